"""Sandboxes that are."""

from __future__ import annotations

import time
from types import TracebackType
from urllib.parse import quote

from .._errors import InnerdockTimeoutError
from .._models import SandboxInfo, Status
from .client import Client
from .docker import SandboxDockerManager
from .fs import SandboxFileSystem
from .process import SandboxProcessManager
from .transport import POLL


class SandboxInstance:
    """A sandbox on a server. As a context manager it terminates the sandbox at the end."""

    def __init__(self, client: Client, info: SandboxInfo, daemon_timeout: float = 30.0) -> None:
        self.client = client
        self._info = info
        self._base = f"/v1/sandboxes/{quote(info.id, safe='')}"
        self.timings: dict[str, float] = {}
        """Seconds, as seen from here: image, create, docker_ready, docker_run."""
        self.process = SandboxProcessManager(client.transport, self._base)
        """Processes."""
        self.fs = SandboxFileSystem(client.transport, self._base)
        """Files."""
        self.docker = SandboxDockerManager(
            client.transport,
            self._base,
            self.process,
            info.docker.profile,
            self.timings,
            daemon_timeout,
        )
        """Docker."""

    @property
    def id(self) -> str:
        """The sandbox's ID."""
        return self._info.id

    @property
    def container_id(self) -> str:
        """The sandbox's ID."""
        return self._info.id

    def sandbox_id(self) -> str:
        """Returns the sandbox's ID."""
        return self._info.id

    @property
    def name(self) -> str:
        """The sandbox's name; empty if it has none."""
        return self._info.name

    async def info(self) -> SandboxInfo:
        """Asks the server how the sandbox is."""
        self._info = SandboxInfo.from_json(await self.client.transport.json("GET", self._base))
        return self._info

    async def status(self) -> Status:
        """Returns (exit code, state): -1 while it lives, 0 once terminated, 1 if it failed."""
        return _status(await self.info())

    async def poll(self) -> int | None:
        """Returns None while the sandbox lives; 0 once it is terminated, 1 if it failed."""
        status = await self.status()
        return None if status.exit_code < 0 else status.exit_code

    async def wait(self, timeout: float | None = None) -> int:
        """Waits for the sandbox to end: 0 if it was terminated, 1 if it failed.

        Raises InnerdockTimeoutError after timeout seconds; the sandbox goes on.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = POLL if end is None else max(0.0, min(POLL, end - time.monotonic()))
            data = await self.client.transport.json(
                "GET", f"{self._base}/wait", params={"timeout": f"{left:g}"}, timeout=left + POLL
            )
            self._info = SandboxInfo.from_json(data)
            if self._info.ended:
                return _status(self._info).exit_code
            if end is not None and time.monotonic() >= end:
                raise InnerdockTimeoutError(
                    f"sandbox {self.id} did not end within {timeout:g} s; terminate() ends it"
                )

    async def logs(self) -> str:
        """Returns the server's log of the sandbox's start and life."""
        return (await self.client.transport.request("GET", f"{self._base}/logs")).text

    async def terminate(self) -> bool:
        """Ends the sandbox with everything in it. True; also when it had ended before."""
        data = await self.client.transport.json("DELETE", self._base, timeout=POLL * 4)
        self._info = SandboxInfo.from_json(data)
        return self._info.ended or self._info.state == "terminating"

    async def __aenter__(self) -> SandboxInstance:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self.terminate()

    def __repr__(self) -> str:
        return f"SandboxInstance({self.id!r}, state={self._info.state!r})"


def _status(info: SandboxInfo) -> Status:
    code = {"terminated": 0, "failed": 1}.get(info.state, -1)
    return Status(code, info.state)
