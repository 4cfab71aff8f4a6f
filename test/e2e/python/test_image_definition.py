"""Images of everything that a definition can have, built for real."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from innerdock import BuildEvent, Client, Image, ImageBuildError, Sandbox

SECRET = "sesame-8412"


def output(image: Image, client: Client, line: str) -> str:
    with Sandbox(image=image, client=client).create() as instance:
        process = instance.process.exec("sh", "-c", line)
        assert process.wait(60) == 0, process.stderr.read()
        return process.stdout.read()


def test_local_files_and_secrets(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in {
        ".dockerignore": "**/*.log\n",
        "src/main.sh": "echo from a file",
        "src/noise.log": "",
        "one": "1",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "src/link").symlink_to("main.sh")
    monkeypatch.setenv("WORD", SECRET)
    image = (
        Image(base_image="busybox:latest", env_vars={"ODD": 'a "b" $c \\'})
        .with_secrets(["WORD"])
        .add_local_path("src", "/srv/app")
        .add_local_file("one")
        .add_commands(['printf %s "$WORD" | wc -c > /length\nprintf %s "$ODD" > /odd'])
        .with_workdir("/srv/app")
        .with_user("1500:1600")
    )
    events: list[BuildEvent] = []
    built = image.build(progress=events.append, client=client)
    assert SECRET not in str(events)
    said = output(image, client, "sh link; ls; cat /workspace/one /length /odd; id -u; env")
    assert said.startswith(f'from a file\nlink\nmain.sh\n1{len(SECRET)}\na "b" $c \\1500\n'), said
    assert SECRET not in said
    again = image.build(client=client)
    assert (again.id, again.cached) == (built.id, True)
    assert image.exists(client=client)
    new = uuid4().hex  # that no earlier test has built
    (tmp_path / "one").write_text(new)
    assert not image.exists(client=client)
    assert output(image, client, "cat /workspace/one") == new


def test_dockerfile(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "App.Dockerfile"
    file.write_text(
        "FROM busybox:latest AS base\nARG V=0\nRUN echo $V > /v\n"
        "FROM base AS app\nCOPY . /app\nUSER 1500\n"
        "FROM scratch AS other\n"
    )
    (tmp_path / "App.Dockerfile.dockerignore").write_text("*\n!kept\n")
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "left").write_text("left")
    app = Image.from_dockerfile(file, target="app", build_args={"V": "7"})
    assert output(app, client, "cat /v; ls /app; id -u") == "7\nkept\n1500\n"
    more = app.add_commands(["id -u > /who"]).with_workdir("/app")
    assert output(more, client, "cat /who; id -u; pwd") == "0\n0\n/app\n"
    file.write_text("FROM busybox:latest\nRUN echo words && false\n")
    with pytest.raises(ImageBuildError, match="false") as caught:
        Image.from_dockerfile(file).build(client=client)
    assert "words" in "\n".join(caught.value.log)
