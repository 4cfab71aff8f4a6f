"""A real server for these tests: that of INNERDOCK_HOST, or one of their own.

Without INNERDOCK_HOST they start bin/innerdock (or INNERDOCK_BIN) with the runsc
of INNERDOCK_RUNSC and the images of INNERDOCK_IMAGES, and afterwards look whether
anything of it is left on the host.
"""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree

import pytest

ROOT = Path(__file__).resolve().parents[3]
SOURCES = [ROOT / "sdk" / "python" / "src", ROOT / "sdk" / "python-beta9" / "src"]
sys.path[:0] = [str(path) for path in SOURCES]

from innerdock import Client, Image, Sandbox, SandboxInstance  # noqa: E402

POOL = 223  # the second byte of the address pool
CACHE = Path(os.environ.get("INNERDOCK_CACHE") or Path.home() / ".cache" / "innerdock")

# Who runs this in the background may have it ignore SIGINT, and its programs with it.
signal.signal(signal.SIGINT, signal.default_int_handler)

PATIENCE = 180  # seconds to wait for what takes far less, unless the machine is busy


def free_pool(second: int) -> tuple[ipaddress.IPv4Network, socket.socket]:
    """Returns the first /20 of 10.SECOND.0.0/16 that nobody uses, and what claims it.

    No interface has an address in it; the claim is known to the tests in Go, and ends
    when it is closed.
    """
    command = ["ip", "-4", "-oneline", "address"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    taken = [ipaddress.ip_interface(line.split()[3]).network for line in shown.splitlines()]
    for third in range(0, 256, 16):
        pool = ipaddress.ip_network(f"10.{second}.{third}.0/20")
        if any(pool.overlaps(network) for network in taken):
            continue
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0innerdock-freepool-{pool}")
        except OSError:
            claim.close()
        else:
            return pool, claim
    raise AssertionError(f"every part of 10.{second}.0.0/16 is in use; see `ip address`")


class Server:
    """bin/innerdock in a directory of its own."""

    def __init__(self, directory: Path, *flags: str) -> None:
        self.directory = directory
        self.flags = flags
        self.binary = Path(os.environ.get("INNERDOCK_BIN") or ROOT / "bin" / "innerdock")
        self.host = f"unix://{directory}/api.sock"
        self.pool, self.claim = free_pool(POOL)
        # an address of loopback that is as much its own as its pool
        self.address = f"127.{str(self.pool[1]).removeprefix('10.')}:7070"
        self.log = directory / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if not self.binary.exists():
            pytest.exit(f"no {self.binary}; run `make build` first, or the tests by `make test`", 1)
        images = os.environ.get("INNERDOCK_IMAGES") or str(CACHE / "images")
        runsc = os.environ.get("INNERDOCK_RUNSC")
        command = [
            *(self.binary, "server", "--data", self.directory / "data", "--images", images),
            *("--socket", self.directory / "api.sock", "--pool", str(self.pool)),
            *(["--runsc", runsc] if runsc else []),
            *self.flags,
        ]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + PATIENCE
        while not (self.directory / "api.sock").exists():
            if self.process.poll() is not None or time.monotonic() > end:
                pytest.exit(f"the server did not start:\n{self.log.read_text()[-3000:]}", 1)
            time.sleep(0.05)

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(PATIENCE)

    def stop(self) -> None:
        self.cli("rm", "--all")
        self.cli("image", "prune", "--cache")
        self.kill(signal.SIGTERM)
        self.claim.close()

    def cli(self, *args: str) -> str:
        done = subprocess.run(
            [self.binary, *args],
            env={**os.environ, "INNERDOCK_HOST": self.host},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def left_over(self) -> list[str]:
        """Returns what the host still has of this server's sandboxes."""
        command = ["go", "run", "./test/census/list", str(self.directory / "data")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()


@pytest.fixture(scope="session")
def server() -> Iterator[Server | None]:
    """The server of these tests, or None if INNERDOCK_HOST names another."""
    if os.environ.get("INNERDOCK_HOST"):
        yield None
        return
    directory = Path(tempfile.mkdtemp(prefix="idk-py-", dir="/var/tmp"))
    server = Server(directory)
    server.start()
    try:
        try:
            server.cli("registry", "seed", "--if-offline")
        except AssertionError as error:
            pytest.exit(f"the registry cache cannot be filled:\n{error}", 1)
        yield server
    finally:
        server.stop()
        left = server.left_over()
        rmtree(directory)
    assert left == []


@pytest.fixture(scope="session")
def host(server: Server | None) -> Iterator[str]:
    """The address of the server; the environment's, too."""
    if server is None:
        yield os.environ["INNERDOCK_HOST"]
        return
    os.environ["INNERDOCK_HOST"] = server.host
    yield server.host
    del os.environ["INNERDOCK_HOST"]


@pytest.fixture(scope="session")
def client(host: str) -> Iterator[Client]:
    with Client(host) as client:
        yield client


@pytest.fixture(scope="session")
def docker_image(client: Client) -> Image:
    image = Image(python_version="python3.11").with_docker()
    image.build(client=client)
    return image


@pytest.fixture(scope="session")
def plain(client: Client) -> Iterator[SandboxInstance]:
    """A sandbox without Docker that tests share."""
    with Sandbox(image=Image(), client=client).create() as instance:
        yield instance


@pytest.fixture(scope="session")
def docker(client: Client, docker_image: Image) -> Iterator[SandboxInstance]:
    """A sandbox with Docker that tests share."""
    sandbox = Sandbox(image=docker_image, docker_enabled=True, memory="2Gi", client=client)
    with sandbox.create() as instance:
        yield instance


def run_program(*command: object, timeout: float = 600, **env: str) -> str:
    """Runs a Python program with the SDK of this checkout; returns what it printed."""
    path = os.pathsep.join(str(source) for source in SOURCES)
    done = subprocess.run(
        [sys.executable, *(str(word) for word in command)],
        env={**os.environ, "PYTHONPATH": path, **env},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
