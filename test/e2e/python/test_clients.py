"""Docker clients of Python on this machine, with the Docker of a sandbox."""

from __future__ import annotations

import asyncio
import inspect
import re
import socket
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree

import docker
import pytest

from conftest import Server, run_program
from innerdock import Client, Image, Sandbox, SandboxInstance, aio


def fetch(url: str) -> bytes:
    """Read a page. A published port is there as soon as its container runs, and a connection
    waits for what listens behind it."""
    with urllib.request.urlopen(url, timeout=60) as page:
        return page.read()


# What a test suite does with testcontainers: Ryuk first, then containers of its own.
SUITE = (
    f"""
from __future__ import annotations
import urllib.request
{inspect.getsource(fetch)}"""
    + """
import docker
from testcontainers.core.container import DockerContainer, Reaper

client = docker.from_env()
with DockerContainer("nginx:latest").with_exposed_ports(80) as nginx:
    url = f"http://{nginx.get_container_host_ip()}:{nginx.get_exposed_port(80)}/"
    assert b"nginx" in fetch(url)
    names = [container.name for container in client.containers.list()]
    assert any(name.startswith("testcontainers-ryuk-") for name in names), names
    with DockerContainer("busybox:latest").with_command("sleep 1000") as box:
        code, output = box.exec(["echo", "from inside"])
        assert (code, output) == (0, b"from inside\\n"), (code, output)

# What is left behind is Ryuk's to remove, once nobody is connected to it.
left = DockerContainer("busybox:latest").with_command("sleep 1000").start()
Reaper._socket.close()
try:
    left.get_wrapped_container().wait(condition="removed", timeout=60)
except docker.errors.NotFound:
    pass  # it was quick
Reaper._container = None
client.close()
print("done")
"""
)


@pytest.fixture(scope="module")
def addresses() -> Iterator[dict[str, tuple[str, str]]]:
    """A server of these tests' own: its host and key, from here and as from elsewhere."""
    directory = Path(tempfile.mkdtemp(prefix="idk-py-", dir="/var/tmp"))
    nowhere = "http://127.0.0.1:1"  # what was seeded is all there is
    server = Server(directory, "--registry-upstream", nowhere)
    server.flags += ("--listen", server.address)
    server.start()
    try:
        server.cli("registry", "seed")
        key = re.search("idk_[A-Za-z0-9_-]+", server.cli("key", "create", "-o", "json"))
        assert key
        yield {"local": (server.host, ""), "remote": (f"http://{server.address}", key[0])}
    finally:
        server.stop()
        left = server.left_over()
        rmtree(directory)
    assert left == []


@pytest.fixture(scope="module")
def sandbox_id(addresses: dict[str, tuple[str, str]]) -> str:
    with Client(*addresses["local"]) as client:
        image = Image(python_version="python3.11").with_docker()
        sandbox = Sandbox(image=image, docker_enabled=True, memory="2Gi", client=client)
        instance = sandbox.create()
        instance.docker.wait_for_daemon()
        return instance.id


@pytest.fixture(params=["local", "remote"])
def instance(
    request: pytest.FixtureRequest, addresses: dict[str, tuple[str, str]], sandbox_id: str
) -> Iterator[SandboxInstance]:
    with Client(*addresses[request.param]) as client:
        instance = Sandbox.connect(sandbox_id, client=client)
        yield instance
        instance._endpoint.close()


def test_docker_py(instance: SandboxInstance) -> None:
    client = docker.DockerClient(base_url=instance.docker.host)
    try:
        assert client.containers.run("busybox:latest", "echo hi", remove=True) == b"hi\n"
        web = client.containers.run("nginx:latest", detach=True, ports={"80/tcp": None})
        web.reload()
        port = web.ports["80/tcp"][0]["HostPort"]
        url = f"http://{instance.docker.publish_address}:{port}/"
        assert b"nginx" in fetch(url)
        code, streams = web.exec_run("sh -c 'echo out; echo err >&2; exit 3'", demux=True)
        assert (code, streams) == (3, (b"out\n", b"err\n"))
        web.remove(force=True)
    finally:
        client.close()


def test_half_closed_attach(instance: SandboxInstance) -> None:
    client = docker.APIClient(base_url=instance.docker.host)
    try:
        box = client.create_container("busybox:latest", ["cat"], stdin_open=True)
        options = {"stdin": 1, "stdout": 1, "stream": 1}
        stream = client.attach_socket(box["Id"], options)
        client.start(box["Id"])
        stream._sock.sendall(b"until the end")
        stream._sock.shutdown(socket.SHUT_WR)
        said = b""
        while data := stream._sock.recv(4096):
            said += data
        assert said[8:] == b"until the end"
        stream._sock.close()
        stream.close()
        client.remove_container(box["Id"], force=True)
    finally:
        client.close()


def test_testcontainers(instance: SandboxInstance) -> None:
    printed = run_program(
        "-c",
        SUITE,
        DOCKER_HOST=instance.docker.host,
        TESTCONTAINERS_HOST_OVERRIDE=instance.docker.publish_address,
        TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE="/var/run/docker.sock",
        RYUK_RECONNECTION_TIMEOUT="1s",
    )
    assert printed.endswith("done\n")


def test_asynchronously(addresses: dict[str, tuple[str, str]], sandbox_id: str) -> None:
    async def version() -> str:
        async with aio.Client(*addresses["remote"]) as client:
            instance = await aio.Sandbox.connect(sandbox_id, client=client)
            host = instance.docker.host

            def ask() -> str:
                api = docker.APIClient(base_url=host)
                try:
                    return str(api.version()["Version"])
                finally:
                    api.close()

            try:
                return await asyncio.to_thread(ask)
            finally:
                instance._endpoint.close()

    assert asyncio.run(version())


def test_a_wrong_key_is_told_to_the_docker_client(
    addresses: dict[str, tuple[str, str]], sandbox_id: str
) -> None:
    with Client(*addresses["remote"]) as client:
        instance = Sandbox.connect(sandbox_id, client=client)
    server = instance._endpoint._server
    object.__setattr__(server, "api_key", "idk_" + "A" * 43)
    api = docker.APIClient(base_url=instance.docker.host, version="1.43")
    try:
        with pytest.raises(docker.errors.APIError, match="key"):
            api.version()
    finally:
        api.close()
        instance._endpoint.close()
