from __future__ import annotations

import hashlib
import io
import tarfile
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


def test_complete_definition() -> None:
    image = (
        Image(base_image="debian:trixie", base_image_creds=("me", "secret"))
        .add_python_version("python3.13")
        .micromamba()
        .add_micromamba_packages(["numpy >=2"], channels=["bioconda", "conda-forge"])
        .with_workdir("/srv//app/")
        .with_user(1000)
        .with_secrets({"B": "2"})
        .with_secrets({"A": "1"})
    )
    assert image.to_dict() == {
        "base_image": "debian:trixie",
        "steps": [
            {"python_version": "python3.13"},
            {"micromamba": {}},
            {"micromamba": {"packages": ["numpy >=2"], "channels": ["bioconda", "conda-forge"]}},
        ],
        "working_dir": "/srv/app",
        "user": "1000",
        "secrets": ["A", "B"],
    }
    assert "secret'" not in repr(image) + str(image.to_dict())
    assert image._request()["credentials"] == {"username": "me", "password": "secret"}
    assert image._request()["secret_values"] == {"A": "1", "B": "2"}
    assert image.with_secrets({"A": "other"}) == image, "values are no part of it"
    assert Image("python3.11").add_python_version("3.12").to_dict() == {"python_version": "3.12"}
    mamba = {"steps": [{"micromamba": {"packages": ["python=3.12", "pip"]}}]}
    assert Image("micromamba3.12").to_dict() == {"python_version": "python3.12", **mamba}
    assert Image("micromamba3.12") == Image("python3.12").micromamba()


@pytest.mark.parametrize(
    ("given", "username", "password"),
    [
        (("me", "x"), "me", "x"),
        ({"username": "me", "password": "x"}, "me", "x"),
        ({"GITHUB_USERNAME": "me", "GITHUB_TOKEN": "x"}, "me", "x"),
        ({"GCP_ACCESS_TOKEN": "x"}, "oauth2accesstoken", "x"),
        ({"NGC_API_KEY": "x"}, "$oauthtoken", "x"),
        (["DOCKERHUB_USERNAME", "DOCKERHUB_PASSWORD"], "env-me", "env-x"),
    ],
)
def test_credentials(
    given: Any, username: str, password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKERHUB_USERNAME", "env-me")
    monkeypatch.setenv("DOCKERHUB_PASSWORD", "env-x")
    request = Image.from_registry("ghcr.io/a/b", credentials=given)._request()
    assert request["credentials"] == {"username": username, "password": password}


def test_credentials_of_a_dockerfile(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text("FROM registry.example.com/base\n")
    me = {"username": "me", "password": "x"}
    one = Image.from_dockerfile(file, credentials=("me", "x"))
    assert one._request()["credentials"] == me
    accounts: Any = {"registry.example.com": ("me", "x"), "localhost:5000": me}
    both = Image.from_dockerfile(file, credentials=accounts)
    request = both.add_commands(["true"])._request()
    assert request["registry_credentials"] == {"registry.example.com": me, "localhost:5000": me}
    assert "credentials" not in request
    assert len({one, both, Image.from_dockerfile(file)}) == 3
    assert "'x'" not in repr(both) + str(both.to_dict())
    wrong: Any
    for wrong in ({"docker.io": ("me", "x"), "username": "me"}, {"docker.io": None}):
        with pytest.raises(InvalidRequestError, match="by registry"):
            Image.from_dockerfile(file, credentials=wrong)


def test_secrets_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image().with_secrets(["TOKEN"])
    monkeypatch.delenv("TOKEN", raising=False)
    with pytest.raises(InvalidRequestError, match="the secret TOKEN"):
        image._request()
    monkeypatch.setenv("TOKEN", "line\nline")
    assert image._request()["secret_values"] == {"TOKEN": "line\nline"}


def test_local_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.py").write_text("")
    (tmp_path / "req.txt").write_text("")
    image = (
        Image()
        .add_local_path()
        .add_local_path("src")
        .add_local_path("src/*.py", "/code")
        .add_local_path("src/a.py")
        .add_local_file("req.txt", "/etc/reqs/")
        .add_local_path(tmp_path / "src", "/abs", ignore=["*.pyc"])
    )
    copies = [step["copy"] for step in image.to_dict()["steps"]]
    assert [copy["target"] for copy in copies] == [
        "/workspace/",
        "/workspace/src/",
        "/code/",
        "/workspace/src/a.py",
        "/etc/reqs/req.txt",
        "/abs/",
    ]
    assert [name for name, _ in image._sources()] == [copy["source"] for copy in copies]
    assert image != Image()
    assert (
        Image().add_local_path("src")
        != Image().add_local_path("src", "/workspace/src").with_docker()
    )
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    (other / "src").mkdir()
    assert Image().add_local_path("src") != Image().add_local_path(
        tmp_path / "src", "/workspace/src"
    )


def test_docker_images() -> None:
    image = Image().with_docker(images=["redis:7", "nginx"]).with_docker("distro", ("redis:7",))
    assert image.to_dict()["docker_images"] == ["redis:7", "nginx", "redis:7"]
    assert image != Image().with_docker().with_docker("distro")
    assert "docker_images" not in Image().with_docker().to_dict()
    for wrong in ("redis:7", 7, ["--all-tags"], [""], [7]):
        with pytest.raises(InvalidRequestError, match="redis:7"):
            Image().with_docker(images=wrong)  # type: ignore[arg-type]


def test_dockerfile_definition(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text("FROM scratch\n")
    image = Image.from_dockerfile(file, target="final", build_args={"A": "1"}).with_user("app")
    assert image.to_dict() == {"user": "app"}
    assert str(file) in repr(image)
    assert image != Image.from_dockerfile(file)
    [(name, source)] = image._sources()
    assert (name, source.path) == ("", tmp_path.resolve())
    with pytest.raises(InvalidRequestError, match="COPY"):
        image.add_local_file(file)


def test_files_are_sent_once(
    contract: Contract, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.py").write_text("print(1)")
    image = Image().add_local_path("app.py").with_secrets({"TOKEN": "hush"})
    events: list[BuildEvent] = []
    assert not image.exists(client=client)
    assert image.build(progress=events.append, client=client).id == "sha256:abc"
    assert [event.step for event in events] == ["context", "image"]
    [(definition, archive)] = contract.contexts
    assert definition["steps"] == [{"copy": {"source": "0", "target": "/workspace/app.py"}}]
    assert definition["secret_values"] == {"TOKEN": "hush"}
    assert definition["context"] == "sha256:" + hashlib.sha256(archive).hexdigest()
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        assert files.getnames() == ["0"]
    image.build(client=client)
    assert len(contract.contexts) == 1, "the server had it"
    contract.requests.clear()
    (tmp_path / "app.py").write_text("print(2)")
    image.build(client=client)
    assert len(contract.contexts) == 2, "files are read each time"
    assert contract.contexts[1][0]["context"] != definition["context"]


def test_dockerfile_is_sent(contract: Contract, client: Client, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY a /\n")
    (tmp_path / "a").write_text("")
    image = Image.from_dockerfile(tmp_path / "Dockerfile", target="x", build_args={"A": "1"})
    assert image.dockerfile(client=client) == "FROM scratch\nCOPY a /\n"
    image.build(client=client)
    [(definition, archive)] = contract.contexts
    text = "FROM scratch\nCOPY a /\n"
    assert definition["dockerfile"] == {"text": text, "target": "x", "args": {"A": "1"}}
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        assert files.getnames() == ["Dockerfile", "a"]
    (tmp_path / "Dockerfile").write_bytes(b"\xff")
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        image.build(client=client)


def test_asking_about_a_definition(contract: Contract, client: Client) -> None:
    image = Image(base_image="debian:trixie")
    assert image.id is None
    assert not image.exists(client=client)
    assert image.dockerfile(client=client) == "FROM debian:trixie\n"
    built = image.build(client=client)
    assert image.id == built.id
    assert image.exists(client=client)
    assert Image.from_id("sha256:abc").id == "sha256:abc"
    assert Image.from_id("sha256:abc").exists(client=client)
    with pytest.raises(InvalidRequestError, match="no definition"):
        Image.from_id("sha256:abc").dockerfile(client=client)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Image(python_version="python3.11", base_image="debian"),
        lambda: Image(python_version="three"),
        lambda: Image(python_version=3.11),  # type: ignore[arg-type]
        lambda: Image(base_image=""),
        lambda: Image(base_image="debian\nRUN x"),
        lambda: Image(base_image_creds=("a", "b")),
        lambda: Image(commands={"a": "b"}),
        lambda: Image(commands=b"true"),  # type: ignore[arg-type]
        lambda: Image(commands=["a\0b"]),
        lambda: Image(python_packages=["a\nb"]),
        lambda: Image(python_packages="\0"),
        lambda: Image(python_packages=7),  # type: ignore[arg-type]
        lambda: Image(env_vars={"A=B": "c"}),
        lambda: Image(env_vars={"": "c"}),
        lambda: Image(env_vars={"A": "b\nc"}),
        lambda: Image(env_vars={"A": None}),  # type: ignore[dict-item]
        lambda: Image(env_vars=[1]),  # type: ignore[list-item]
        lambda: Image(base_image="debian").add_python_version("3"),
        lambda: Image().add_python_version(""),
        lambda: Image().add_micromamba_packages(["-c"]),
        lambda: Image().add_micromamba_packages(["numpy"], channels="conda-forge"),
        lambda: Image().with_workdir("app"),
        lambda: Image().with_workdir("/"),
        lambda: Image().with_workdir("/a\nb"),
        lambda: Image().with_workdir(None),  # type: ignore[arg-type]
        lambda: Image().with_user(""),
        lambda: Image().with_user(-1),
        lambda: Image().with_user("a b"),
        lambda: Image().with_user("app:"),
        lambda: Image().with_secrets(["A B"]),
        lambda: Image().with_secrets("TOKEN"),
        lambda: Image().with_secrets(["A-B"]),
        lambda: Image().with_secrets(["A\n"]),
        lambda: Image().with_secrets({"A": ""}),
        lambda: Image().add_local_path("/no/such/place"),
        lambda: Image().add_local_path("../*.py"),
        lambda: Image().add_local_path("/*"),
        lambda: Image().add_local_path(""),
        lambda: Image().add_local_path("/etc"),  # where to?
        lambda: Image().add_local_path("/etc", "relative"),
        lambda: Image().add_local_path("/etc", "/a/../b"),
        lambda: Image().add_local_path("/etc", "/a\nb"),
        lambda: Image().add_local_path("/etc", "/a", ignore="*.log"),
        lambda: Image().add_local_path(7),  # type: ignore[arg-type]
        lambda: Image().add_local_file("/etc", "/x"),
        lambda: Image().add_local_file("\0", "/x"),
        lambda: Image.from_dockerfile("/no/such/Dockerfile"),
        lambda: Image.from_dockerfile("/etc/hostname", context_dir="/etc/hostname"),
        lambda: Image.from_dockerfile("/etc/hostname", target=""),
        lambda: Image.from_dockerfile("/etc/hostname", build_args={"A": "\n"}),
        lambda: Image.from_registry("debian", credentials="me:x"),
        lambda: Image.from_registry("debian", credentials={"username": "me"}),
        lambda: Image.from_registry("debian", credentials=["NO_SUCH_VARIABLE"]),
        lambda: Image.from_id(""),
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


def test_a_step_is_told_once(
    contract: Contract, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    step = "[2/3] RUN true"
    contract.image_events = [("progress", {"step": step, "message": step}), EVENTS[-1]]
    Image().build(progress=True, client=client)
    assert capsys.readouterr().err.startswith(f"innerdock: {step}\n")


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
