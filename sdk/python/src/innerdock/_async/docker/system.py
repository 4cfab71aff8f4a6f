"""Docker as a whole: events, use, versions."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any

from ... import _dockerargs as args
from ..._dockerargs import Names
from ..._dockermodels import ContainerStats, DiskUsage, DockerEvent, DockerInfo, DockerVersion
from ..._signature import strict
from .daemon import DaemonCommands
from .result import DockerResult, DockerText

JSON_LINES = ["--format", "{{json .}}"]
LOOK_BACK = "30s"
"""How far ``docker events`` looks back, so that its own start misses nothing."""


class DockerEvents:
    """Iterates over events as they happen, from the call that returned it on.

    It goes on until ``until``; leaving the loop, or the block of a context manager,
    ends it.
    """

    def __init__(self, result: DockerResult, live: bool) -> None:
        self.result = result
        """The docker command that it reads."""
        self._since = result.process._state.info.started_at if live else None

    async def __aiter__(self) -> AsyncIterator[DockerEvent]:
        try:
            async for line in self.result.stdout:
                event = DockerEvent.from_json(json.loads(line))
                if self._since is None or event.time >= self._since:
                    yield event
            await self.result.check()
        finally:
            await self.close()

    async def close(self) -> None:
        """Ends it."""
        if self.result.exit_code is None:
            await self.result.kill()

    async def __aenter__(self) -> DockerEvents:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self.close()


@strict
class SystemCommands(DaemonCommands):
    """Commands on Docker as a whole."""

    async def events(
        self,
        filters: Mapping[str, Any] | None = None,
        since: str | int | None = None,
        until: str | int | None = None,
    ) -> DockerEvents:
        """Returns an iterator over what happens: ``events({"type": "container"})``.

        since and until are times (RFC 3339 or seconds since 1970) or ages ("10m").
        Without since it begins with this call, without until it does not end.
        """
        result = await self._start(
            [
                "events",
                *args.filters(filters),
                "--since",
                LOOK_BACK if since is None else str(since),
                *args.value("--until", until),
                *JSON_LINES,
            ]
        )
        return DockerEvents(result, live=since is None)

    async def stats(self, container: Names = ()) -> list[ContainerStats]:
        """Returns what the running containers, or those named, use now; it takes 2 seconds."""
        rows = await self._rows(["stats", "--no-stream", *args.some("a container", container)])
        return [ContainerStats.from_json(row) for row in rows]

    async def info(self) -> DockerInfo:
        """Describes the daemon."""
        return DockerInfo.from_json((await self._rows(["info"]))[0])

    async def version(self) -> DockerVersion:
        """Returns the versions of Docker."""
        return DockerVersion.from_json((await self._rows(["version"]))[0])

    async def system_df(self) -> list[DiskUsage]:
        """Returns what images, containers, volumes and the build cache take on disk."""
        return [DiskUsage.from_json(row) for row in await self._rows(["system", "df"])]

    async def prune(self, all: bool = False, volumes: bool = False) -> DockerText:
        """Removes stopped containers, unused networks, dangling images and the build cache.

        all=True: all unused images; volumes=True: unused anonymous volumes too.
        """
        return await self._text(
            [
                "system",
                "prune",
                "--force",
                *args.flag("--all", all),
                *args.flag("--volumes", volumes),
            ]
        )
