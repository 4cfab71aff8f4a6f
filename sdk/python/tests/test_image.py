from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from contract import Contract
from innerdock import (
    BuildEvent,
    Client,
    ConnectionLostError,
    Image,
    ImageBuildError,
    ImageNotFoundError,
    InvalidRequestError,
)

EVENTS: list[tuple[str, dict[str, Any]]] = [
    ("progress", {"step": "base", "message": "making the base"}),
    ("log", {"step": "command 1/1", "message": "Reading package lists\u2028…"}),
    ("image", {"image": {"id": "sha256:abc", "size": 7 << 20, "source": "registry"}}),
]


def test_definition() -> None:
    image = (
        Image(
            python_version="python3.12",
            python_packages=["requests"],
            commands=["echo 1"],
            env_vars={"A": "1"},
        )
        .add_commands(["echo 2", "echo 3"])
        .add_python_packages(["numpy==2.0"])
        .with_envs("B=2")
        .with_docker(source="distro")
    )
    assert image.to_dict() == {
        "python_version": "python3.12",
        "steps": [
            {"python_packages": ["requests"]},
            {"command": "echo 1"},
            {"command": "echo 2"},
            {"command": "echo 3"},
            {"python_packages": ["numpy==2.0"]},
            {"docker": {"source": "distro"}},
        ],
        "env": {"A": "1", "B": "2"},
    }


def test_immutable() -> None:
    base = Image()
    extended = base.with_docker()
    assert base.to_dict() == {"python_version": "python3.11"}
    assert base != extended
    assert extended == Image().with_docker()
    assert hash(extended) == hash(Image().with_docker())
    assert "docker" in repr(extended)


def test_bases() -> None:
    assert Image(base_image="debian:trixie").to_dict() == {"base_image": "debian:trixie"}
    assert Image.from_registry("debian:trixie") == Image(base_image="debian:trixie")
    with pytest.raises(InvalidRequestError, match="not both"):
        Image(python_version="python3.12", base_image="debian:trixie")


def test_environment() -> None:
    image = Image(env_vars=["A=1", "B=x=y"]).with_envs({"A": "2"})
    assert image.to_dict()["env"] == {"A": "2", "B": "x=y"}
    assert image.with_envs({"C": "3"}, clear=True).to_dict()["env"] == {"C": "3"}
    with pytest.raises(InvalidRequestError, match="NAME=value"):
        Image(env_vars="A")


def test_requirements(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("numpy\n")
    file = tmp_path / "requirements.txt"
    file.write_text("# ours\nrequests>=2 # http\n\n-r more.txt\nflask \\\n  >=3\n")
    image = Image().add_python_packages(str(file))
    assert image == Image().add_python_packages(file)
    assert image.to_dict()["steps"] == [
        {"python_packages": ["requests>=2", "numpy", "flask    >=3"]}
    ]
    file.write_text("--index-url https://example.com\n")
    with pytest.raises(InvalidRequestError, match="add_commands"):
        Image(python_packages=str(file))
    with pytest.raises(InvalidRequestError, match="or a list"):
        Image(python_packages="numpy")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Image().add_commands("echo 1"),
        lambda: Image().add_commands([""]),
        lambda: Image().add_commands([1]),  # type: ignore[list-item]
        lambda: Image().add_python_packages([" "]),
        lambda: Image().with_docker(source="snap"),
        lambda: Image.from_id("sha256:abc").with_docker(),
    ],
)
def test_bad_definitions(make: Any) -> None:
    with pytest.raises(InvalidRequestError):
        make()


def test_build(contract: Contract, client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    contract.image_events = EVENTS
    image = Image()
    built = image.build(progress=True, client=client)
    assert (built.id, built.source) == ("sha256:abc", "registry")
    assert capsys.readouterr().err.splitlines() == [
        "innerdock: [base] making the base",
        ["innerdock: [command 1/1]   Reading package lists", "…"][0],
        "…",
        "innerdock: [image] sha256:abc is ready (7 MiB, base from registry)",
    ]
    assert image.build(client=client) is built, "built once"
    assert len(contract.requests) == 1
    assert Image.from_id("sha256:abc").build(client=client).id == "sha256:abc"


def test_progress(
    contract: Contract,
    client: Client,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    contract.image_events = EVENTS
    events: list[BuildEvent] = []
    Image().build(progress=events.append, client=client)
    assert [event.kind for event in events] == ["progress", "log", "image"]
    Image().build(progress=False, client=client)
    Image().build(client=client)
    assert capsys.readouterr().err == "", "no terminal, no progress"
    monkeypatch.setenv("INNERDOCK_PROGRESS", "1")
    Image().build(client=client)
    assert "making the base" in capsys.readouterr().err


def test_failed_build(contract: Contract, client: Client) -> None:
    contract.image_events = [
        *(("log", {"step": "command 1/1", "message": f"line {n}"}) for n in range(80)),
        (
            "error",
            {
                "step": "command 1/1",
                "error": {
                    "code": "image_build_failed",
                    "message": "command 1/1 ended with exit code 1",
                    "request_id": "r",
                },
            },
        ),
    ]
    with pytest.raises(ImageBuildError, match="exit code 1") as caught:
        Image(commands=["false"]).build(client=client)
    assert caught.value.step == "command 1/1"
    assert caught.value.log == [f"line {n}" for n in range(30, 80)]
    assert caught.value.request_id == "r"


def test_unknown_image(contract: Contract, client: Client) -> None:
    with pytest.raises(ImageNotFoundError, match="no/such:image"):
        Image(base_image="no/such:image").build(client=client)


def test_broken_off(contract: Contract, client: Client) -> None:
    contract.image_events = EVENTS[:1]
    with pytest.raises(ConnectionLostError, match="broke off"):
        Image().build(client=client)
