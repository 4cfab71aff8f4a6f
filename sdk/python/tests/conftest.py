"""A contract server on a Unix socket, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from contract import Contract, Running
from innerdock import Client, Image, Sandbox, SandboxInstance


@pytest.fixture
def contract() -> Contract:
    return Contract()


@pytest.fixture
def host(contract: Contract, tmp_path: Path) -> Iterator[str]:
    running = Running(contract, tmp_path / "s")
    yield running.host
    running.stop()


@pytest.fixture
def client(host: str) -> Iterator[Client]:
    with Client(host) as client:
        yield client


@pytest.fixture
def instance(client: Client) -> SandboxInstance:
    return Sandbox(image=Image(), client=client).create()


@pytest.fixture
def docker_instance(client: Client) -> SandboxInstance:
    image = Image().with_docker()
    return Sandbox(image=image, docker_enabled=True, client=client).create()
