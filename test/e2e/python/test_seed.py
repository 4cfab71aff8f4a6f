"""The programs that innerdock was asked for, word by word."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import ROOT, run_program
from innerdock import Client, Image, Sandbox, SandboxInstance

HERE = Path(__file__).parent


def test_basic(client: Client, docker_image: Image) -> None:
    before = {box.id for box in client.sandboxes()}
    assert "Hello from Docker!" in run_program(HERE / "seed_basic.py")
    assert {box.id for box in client.sandboxes()} == before


def test_advanced(docker_image: Image, client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    sandbox = Sandbox(image=docker_image, docker_enabled=True, memory="2Gi", client=client)
    with sandbox.create() as instance:
        instance.fs.write_text("/workspace/Dockerfile", "FROM nginx:latest\n")
        program = compile((HERE / "seed_advanced.py").read_text(), "seed_advanced.py", "exec")
        exec(program, {"instance": instance})
    shown = capsys.readouterr().out
    assert "test-container" in shown
    assert "test:latest" in shown
    assert " Up " in shown


def test_how_to_use(docker: SandboxInstance) -> None:
    """Steps 1 to 3 of "How to Use Docker in Sandboxes"."""
    instance = docker
    instance.fs.write_text("/workspace/Dockerfile", "FROM busybox:latest\nRUN echo 1\n")
    assert instance.docker.run("hello-world").wait()
    assert instance.docker.pull("nginx:latest").wait()
    assert instance.docker.build("my-app:v1", context="/workspace").wait()


def test_profile_minimal(docker_image: Image, client: Client) -> None:
    sandbox = Sandbox(
        image=docker_image,
        docker_enabled=True,
        docker_profile="minimal",
        memory="2Gi",
        client=client,
    )
    with sandbox.create() as instance:
        result = instance.docker.run("hello-world").check()
        assert "Hello from Docker!" in result
        driver = instance.docker.cli("info", "--format", "{{.Driver}}").check()
        assert driver.strip() == "vfs"
        instance.fs.write_text("Dockerfile", "FROM busybox:latest\nRUN echo built > /built\n")
        instance.docker.build("t").check()
        assert instance.docker.run("t", "cat /built", remove=True) == "built\n"


@pytest.mark.parametrize(
    "example",
    ["hello_world", "custom_image", "compose", "published_port", "volumes_and_environment"],
)
def test_example(example: str, host: str, docker_image: Image) -> None:
    path = ROOT / "sdk" / "python" / "examples" / "docker_sandbox_example.py"
    shown = run_program(path, example)
    want = {
        "hello_world": "Hello from Docker!",
        "custom_image": "Hello, world, from an image of my own",
        "compose": "the visitor got: Welcome to nginx!",
        "published_port": "port 8080 of the sandbox says: Welcome to nginx!",
        "volumes_and_environment": "the volume holds: Hello, volumes!",
    }
    assert want[example] in shown


def test_demo(host: str, docker_image: Image) -> None:
    shown = run_program(ROOT / "sdk" / "python" / "examples" / "demo.py")
    assert "Hello from Docker!" in shown
    for phase in ("image ready", "sandbox created", "Docker ready", "first docker run"):
        assert phase in shown
