"""What a user may get wrong: a clear error, and nothing left behind."""

from __future__ import annotations

import pytest

from conftest import Server
from innerdock import (
    Client,
    CommandNotFoundError,
    ConflictError,
    DockerCommandError,
    DockerDisabledError,
    DockerNotInstalledError,
    Image,
    ImageBuildError,
    ImageNotFoundError,
    InvalidRequestError,
    NotFoundError,
    Sandbox,
    SandboxInstance,
    SandboxTerminatedError,
    ServerNotRunningError,
    UnsupportedError,
)


def test_gpu(client: Client) -> None:
    with pytest.raises(UnsupportedError, match="no GPU") as caught:
        Sandbox(gpu="A100", client=client).create()
    assert caught.value.code == "unsupported"


@pytest.mark.parametrize("memory", ["4GB!", "lots", "-1Gi", "1000000Gi", "1"])
def test_memory(client: Client, memory: str) -> None:
    with pytest.raises(InvalidRequestError, match="memory"):
        Sandbox(memory=memory, client=client).create()


@pytest.mark.parametrize("cpu", [0, -1, 1e9, 0.01])
def test_cpu(client: Client, cpu: float) -> None:
    with pytest.raises(InvalidRequestError, match="cpu"):
        Sandbox(cpu=cpu, client=client).create()


@pytest.mark.parametrize("name", ["A", "-a", "a" * 64, "ä", "a b"])
def test_name(client: Client, name: str) -> None:
    with pytest.raises(InvalidRequestError, match="name"):
        Sandbox(name=name, client=client).create()


def test_profile(client: Client, docker_image: Image) -> None:
    with pytest.raises(InvalidRequestError, match="profile"):
        Sandbox(docker_image, docker_enabled=True, docker_profile="huge", client=client).create()


def test_unknown_image(client: Client) -> None:
    with pytest.raises(ImageNotFoundError) as caught:
        Sandbox(Image(base_image="innerdock.invalid/no/such:image"), client=client).create()
    assert "innerdock.invalid/no/such" in str(caught.value)
    with pytest.raises(ImageNotFoundError):
        Sandbox(f"sha256:{'0' * 64}", client=client).create()


def test_a_build_that_fails(client: Client) -> None:
    image = Image(commands=["echo before; echo broken >&2; exit 7"])
    with pytest.raises(ImageBuildError) as caught:
        image.build(client=client)
    assert "7" in str(caught.value)
    assert any("broken" in line for line in caught.value.log)


def test_image_without_docker(client: Client) -> None:
    with Sandbox(image=Image(), docker_enabled=True, client=client).create() as instance:
        with pytest.raises(DockerNotInstalledError) as caught:
            instance.docker.run("hello-world")
        assert str(caught.value) == (
            "dockerd not found - please install Docker in your image using Image().with_docker()"
        )
        assert instance.process.exec("true").wait() == 0, "the rest of the sandbox works"


def test_docker_without_docker_enabled(plain: SandboxInstance) -> None:
    with pytest.raises(DockerDisabledError, match="docker_enabled"):
        plain.docker.run("hello-world")


def test_two_sandboxes_with_one_name(client: Client) -> None:
    first = Sandbox(name="py-twice", client=client).create()
    with first, pytest.raises(ConflictError, match="py-twice"):
        Sandbox(name="py-twice", client=client).create()
    Sandbox(name="py-twice", client=client).create().terminate()


def test_terminate_twice_and_exec_afterwards(client: Client) -> None:
    instance = Sandbox(client=client).create()
    process = instance.process.exec("sleep", "60")
    assert instance.terminate() is True
    assert instance.terminate() is True
    with pytest.raises(SandboxTerminatedError):
        instance.process.exec("true")
    with pytest.raises(SandboxTerminatedError):
        process.wait()
    with pytest.raises(SandboxTerminatedError):
        instance.fs.read_text("x")
    with pytest.raises(SandboxTerminatedError):
        instance.docker.ps()


def test_unknown_command(plain: SandboxInstance) -> None:
    with pytest.raises(CommandNotFoundError, match="no-such-command"):
        plain.process.exec("no-such-command", "-x")
    with pytest.raises(InvalidRequestError, match="/nowhere"):
        plain.process.exec("true", cwd="/nowhere")


def test_unknown_things(client: Client, plain: SandboxInstance) -> None:
    with pytest.raises(NotFoundError):
        Sandbox.connect("nobody", client=client)
    with pytest.raises(NotFoundError):
        plain.process.get_process(999_999)
    with pytest.raises(NotFoundError, match="missing"):
        plain.fs.read_bytes("missing")
    with pytest.raises(NotFoundError):
        plain.fs.delete_file("missing")


def test_docker_commands_that_fail(docker: SandboxInstance) -> None:
    docker.docker.pull("busybox:latest").check()
    result = docker.docker.run("busybox:latest", "sh -c 'echo said; echo why >&2; exit 5'")
    assert result.wait() is False
    assert (result.exit_code, result.stdout, result.stderr) == (5, "said\n", "why\n")
    with pytest.raises(DockerCommandError, match="No such container"):
        docker.docker.stop("nobody").check()
    assert not docker.docker.rm("nobody")


def test_no_server(tmp_path) -> None:
    with (
        Client("http://127.0.0.1:9") as client,
        pytest.raises(ServerNotRunningError, match="make up"),
    ):
        Sandbox(client=client).create()


def test_nothing_is_left_of_refused_sandboxes(server: Server | None, client: Client) -> None:
    before = len(client.sandboxes(all=True))
    with pytest.raises(InvalidRequestError):
        Sandbox(memory="4GB!", client=client).create()
    assert len(client.sandboxes(all=True)) == before
