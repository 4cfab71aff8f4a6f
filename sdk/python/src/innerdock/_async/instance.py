"""Sandboxes that are."""

from __future__ import annotations

import time
from types import TracebackType
from urllib.parse import quote

from .._errors import InnerdockTimeoutError
from .._models import SandboxInfo, Status
from .._tunnel import Endpoint
from .client import SNAPSHOT_TIMEOUT, Client
from .docker import SandboxDockerManager
from .fs import SandboxFileSystem
from .process import SandboxProcessManager
from .transport import POLL


class SandboxInstance:
    """A sandbox on a server. As a context manager it terminates the sandbox at the end."""

    def __init__(self, client: Client, info: SandboxInfo, daemon_timeout: float = 30.0) -> None:
        self.client = client
        self._info = info
        self._daemon_timeout = daemon_timeout
        self._base = f"/v1/sandboxes/{quote(info.id, safe='')}"
        self.timings: dict[str, float] = {}
        """Seconds, as seen from here: image, create, docker_ready, docker_run."""
        self.process = SandboxProcessManager(client.transport, self._base)
        """Processes."""
        self.fs = SandboxFileSystem(client.transport, self._base)
        """Files."""
        self._endpoint = Endpoint(client.transport.server, info.id, info.address)
        self.docker = SandboxDockerManager(
            client.transport,
            self._base,
            self.process,
            info.docker.profile,
            self.timings,
            daemon_timeout,
        )
        """Docker."""
        self.docker._endpoint = self._endpoint

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

    async def terminate(self, grace: float | None = None) -> bool:
        """Ends the sandbox with everything in it. True; also when it had ended before.

        Processes and containers get SIGTERM, and what is left after ``grace`` seconds
        (10 if you say none, 300 at the most; 0: at once) is killed.
        """
        self._endpoint.close()
        params = {} if grace is None else {"grace": f"{grace:g}"}
        data = await self.client.transport.json(
            "DELETE", self._base, params=params, timeout=POLL * 4 + (grace or 0)
        )
        self._info = SandboxInfo.from_json(data)
        return self._info.ended or self._info.state == "terminating"

    async def pause(self, persist: bool = False) -> None:
        """Has the sandbox stand still: it takes no CPU, and keeps its memory, until resume().

        What needs the sandbox itself raises ConflictError meanwhile; what is under way
        goes on afterwards. A sandbox that is paused stays so, also one that auto_pause
        paused: no request resumes it any more.

        With persist=True it takes no memory either: that goes to the disk. Connections
        from and to the sandbox end.
        """
        data = await self.client.transport.json(
            "POST",
            f"{self._base}/pause",
            params={"persist": "true"} if persist else None,
            timeout=SNAPSHOT_TIMEOUT,
        )
        self._info = SandboxInfo.from_json(data)

    async def resume(self) -> None:
        """Lets the sandbox go on, if it is paused."""
        data = await self.client.transport.json(
            "POST", f"{self._base}/resume", timeout=SNAPSHOT_TIMEOUT
        )
        self._info = SandboxInfo.from_json(data)

    async def snapshot(self, ttl: float | None = None, keep: int | None = None) -> str:
        """Keeps the sandbox as it is, and returns the snapshot's ID.

        Its memory, processes, containers and files are kept, and go on.
        Sandbox.from_snapshot() makes sandboxes that go on from the same moment.

        ttl (float):
            Seconds until the server removes the snapshot. Default: as the server says.
        keep (int):
            How many snapshots of this sandbox are kept; older ones are removed.
        """
        asked = {"ttl": ttl, "keep": keep}
        data = await self.client.transport.json(
            "POST",
            f"{self._base}/snapshots",
            json={name: value for name, value in asked.items() if value is not None},
            timeout=SNAPSHOT_TIMEOUT,
        )
        return str(data["id"])

    async def snapshot_filesystem(self) -> str:
        """Makes an image of the sandbox's files, and returns its ID.

        Image.from_id() makes sandboxes from it. It is the sandbox's own image with what
        has changed below / since; /tmp and Docker's data are no part of it. Nothing is
        frozen meanwhile: stop what writes first. Whoever knows the ID can use the image.
        """
        data = await self.client.transport.json(
            "POST", f"{self._base}/image", timeout=SNAPSHOT_TIMEOUT
        )
        return str(data["id"])

    async def create_image_from_filesystem(self) -> str:
        """beta9's name of snapshot_filesystem()."""
        return await self.snapshot_filesystem()

    async def snapshot_memory(self) -> str:
        """beta9's name of snapshot()."""
        return await self.snapshot()

    async def fork(self, count: int = 1) -> list[SandboxInstance]:
        """Makes copies of the sandbox, which go on from the same moment as it does.

        They are sandboxes of their own, without a name. All are made, or none.
        """
        data = await self.client.transport.make(
            f"{self._base}/fork", json={"count": count}, timeout=SNAPSHOT_TIMEOUT
        )
        return [
            SandboxInstance(self.client, SandboxInfo.from_json(one), self._daemon_timeout)
            for one in data["sandboxes"]
        ]

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
