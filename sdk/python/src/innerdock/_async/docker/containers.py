"""Containers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Union, overload

from ... import _dockerargs as args
from ..._dockerargs import Command, Names, Ports, Volumes
from ..._dockermodels import Container
from ..._errors import InnerdockTimeoutError, InvalidRequestError, ProcessTimeoutError
from ..._signature import strict
from .daemon import DaemonCommands
from .result import DetachedRun, DockerDone, DockerList, DockerResult, DockerText

Input = Union[bool, str, bytes]
"""True: stdin stays open for ``result.stdin``; text or bytes: what the command reads."""


@strict
class ContainerCommands(DaemonCommands):
    """Commands on containers."""

    async def run(
        self,
        image: str,
        command: Command = None,
        name: str | None = None,
        detach: bool = False,
        remove: bool = False,
        volumes: Volumes = None,
        env: Mapping[str, Any] | None = None,
        ports: Ports = None,
        network: str | None = None,
        extra_args: Sequence[str] | None = None,
        *,
        stdin: Input = False,
        tty: bool = False,
        workdir: str | None = None,
        user: str | None = None,
        entrypoint: str | None = None,
        hostname: str | None = None,
        labels: Mapping[str, Any] | None = None,
        restart: str | None = None,
        memory: str | int | None = None,
        cpus: float | None = None,
        pull: str | None = None,
    ) -> DockerResult:
        """Runs a container: ``run("nginx:latest", detach=True, ports={8080: 80})``.

        command: words, or a string that is split as a shell would.
        volumes: {"/workspace/data": "/data"}, {"cache": "/c:ro"} or ["cache:/c:ro"].
        ports: {8080: 80} is port 80 of the container on port 8080 of the sandbox.
        extra_args: further options of ``docker run``, before the image.
        stdin: True keeps standard input open for ``result.stdin``; text or bytes are
        what the container reads.
        pull: always, missing or never.
        """
        extra = args.words(extra_args)
        words = [
            "run",
            *args.flag("--detach", detach),
            *args.flag("--rm", remove),
            *args.named("--name", "a container", name),
            *args.network(self._profile, network, extra),
            *args.volumes(volumes),
            *args.pairs("--env", env),
            *args.ports(ports),
            *_input(stdin, tty, extra),
            *args.value("--workdir", workdir),
            *args.value("--user", user),
            *args.value("--entrypoint", entrypoint),
            *args.value("--hostname", hostname),
            *args.pairs("--label", labels),
            *args.value("--restart", restart),
            *args.value("--memory", memory),
            *args.value("--cpus", cpus),
            *args.value("--pull", pull),
            *extra,
            args.name("an image", image),
            *args.words(command),
        ]
        await self._ready()
        started = time.monotonic()
        return await self._start(
            words,
            stdin=stdin,
            on_exit=lambda: self._timings.setdefault("docker_run", time.monotonic() - started),
            kind=DetachedRun if detach else DockerResult,
        )

    @overload
    async def ps(
        self,
        all: bool = False,
        quiet: Literal[False] = False,
        filters: Mapping[str, Any] | None = None,
    ) -> DockerText: ...

    @overload
    async def ps(
        self, all: bool = False, *, quiet: Literal[True], filters: Mapping[str, Any] | None = None
    ) -> DockerList: ...

    @overload
    async def ps(
        self, all: bool = False, quiet: bool = False, filters: Mapping[str, Any] | None = None
    ) -> DockerText | DockerList: ...

    async def ps(
        self, all: bool = False, quiet: bool = False, filters: Mapping[str, Any] | None = None
    ) -> DockerText | DockerList:
        """Lists the running containers, as a table; all=True: those that have ended too.

        quiet=True: a list of their IDs. filters: {"status": "exited", "label": "a=1"}.
        """
        words = ["ps", *args.flag("--all", all), *args.filters(filters)]
        return await self._list([*words, "--quiet"]) if quiet else await self._text(words)

    async def containers(
        self, all: bool = False, filters: Mapping[str, Any] | None = None
    ) -> list[Container]:
        """Returns the running containers as values; all=True: those that have ended too."""
        words = ["ps", "--quiet", "--no-trunc", *args.flag("--all", all), *args.filters(filters)]
        return await self._containers(await self._list(words))

    async def inspect(self, container: str) -> Container:
        """Describes a container; ``raw`` of it is all that Docker tells."""
        found = await self._inspect("container", [args.name("a container", container)])
        return Container.from_json(found[0])

    async def exec(
        self,
        container: str,
        command: Command,
        env: Mapping[str, Any] | None = None,
        workdir: str | None = None,
        user: str | None = None,
        detach: bool = False,
        extra_args: Sequence[str] | None = None,
        *,
        stdin: Input = False,
        tty: bool = False,
        privileged: bool = False,
    ) -> DockerResult:
        """Runs a command in a running container. stdin as of ``run``."""
        words = args.words(command)
        if not words:
            raise InvalidRequestError('exec needs a command: exec("web", "ls -l")')
        extra = args.words(extra_args)
        return await self._start(
            [
                "exec",
                *args.flag("--detach", detach),
                *args.pairs("--env", env),
                *args.value("--workdir", workdir),
                *args.value("--user", user),
                *args.flag("--privileged", privileged),
                *_input(stdin, tty, extra),
                *extra,
                args.name("a container", container),
                *words,
            ],
            stdin=stdin,
        )

    async def attach(self, container: str, stdin: bool = False) -> DockerResult:
        """Attaches to a running container: what it prints from now on.

        stdin=True: to the input of a container that was run with stdin=True as well;
        Docker detaches when the input ends. Ending the result does not end the container.
        """
        return await self._start(
            [
                "attach",
                "--sig-proxy=false",
                *args.flag("--no-stdin", not stdin),
                args.name("a container", container),
            ],
            stdin=stdin,
        )

    async def logs(
        self,
        container: str,
        follow: bool = False,
        tail: int | None = None,
        timestamps: bool = False,
        since: str | None = None,
    ) -> DockerResult:
        """Shows what a container has written; follow=True goes on until it ends."""
        return await self._start(
            [
                "logs",
                *args.flag("--follow", follow),
                *args.flag("--timestamps", timestamps),
                *args.value("--tail", tail),
                *args.value("--since", since),
                args.name("a container", container),
            ]
        )

    async def start(self, container: Names) -> DockerDone:
        """Starts one or several stopped containers."""
        return await self._done(["start", *args.names("a container", container)])

    async def stop(self, container: Names, timeout: int | None = None) -> DockerDone:
        """Stops one or several containers: SIGTERM, then SIGKILL after timeout seconds."""
        return await self._done(
            ["stop", *args.value("--time", timeout), *args.names("a container", container)]
        )

    async def restart(self, container: Names, timeout: int | None = None) -> DockerDone:
        """Restarts one or several containers."""
        return await self._done(
            ["restart", *args.value("--time", timeout), *args.names("a container", container)]
        )

    async def kill(self, container: Names, signal: str | int = "SIGKILL") -> DockerDone:
        """Sends a signal to one or several containers."""
        return await self._done(
            ["kill", "--signal", str(signal), *args.names("a container", container)]
        )

    async def wait(self, container: str, timeout: float | None = None) -> int:
        """Waits for a container to end and returns its exit code.

        After timeout seconds it raises InnerdockTimeoutError; the container goes on.
        """
        result = await self._start(["wait", args.name("a container", container)])
        try:
            await result.wait(timeout)
        except ProcessTimeoutError as cause:
            await result.kill()
            raise InnerdockTimeoutError(
                f"container {container} did not end within {timeout:g} s; it goes on: wait "
                "again, or stop() it"
            ) from cause
        return int(await (await result.check()).text())

    async def rename(self, container: str, name: str) -> DockerDone:
        """Gives a container another name."""
        words = [args.name("a container", container), args.name("a container", name)]
        return await self._done(["rename", *words])

    async def rm(self, container: Names, force: bool = False, volumes: bool = False) -> DockerDone:
        """Removes one or several containers; force=True: running ones too."""
        return await self._done(
            [
                "rm",
                *args.flag("--force", force),
                *args.flag("--volumes", volumes),
                *args.names("a container", container),
            ]
        )

    async def cp(self, source: str, target: str) -> DockerDone:
        """Copies files into or out of a container: ``cp("web:/etc/nginx", "/workspace/conf")``.

        One of the two is CONTAINER:PATH, the other a path of the sandbox.
        """
        paths = [args.path("a file", path) for path in (source, target)]
        if sum(":" in path for path in paths) != 1:
            raise InvalidRequestError(
                f"cp({source!r}, {target!r}): one of the two is CONTAINER:PATH, the other a path "
                "of the sandbox"
            )
        return await self._done(["cp", *paths])

    async def top(self, container: str) -> list[dict[str, str]]:
        """Returns the processes of a container, each with what ``docker top`` has columns for."""
        text = await self._text(["top", args.name("a container", container)])
        head, *rows = text.splitlines()
        titles = head.split()
        return [dict(zip(titles, row.split(None, len(titles) - 1))) for row in rows]

    async def commit(
        self,
        container: str,
        image: str,
        message: str | None = None,
        changes: Iterable[str] = (),
    ) -> DockerText:
        """Makes an image of a container's files; returns the image's ID.

        changes: lines of a Dockerfile, such as ``CMD ["nginx"]``.
        """
        return await self._text(
            [
                "commit",
                *args.value("--message", message),
                *args.repeated("--change", changes),
                args.name("a container", container),
                args.name("an image", image),
            ]
        )

    async def _containers(self, ids: list[str]) -> list[Container]:
        found = await self._inspect("container", list(ids), missing_ok=True)
        return [Container.from_json(item) for item in found]


def _input(stdin: Input, tty: bool, extra: Sequence[str]) -> list[str]:
    """Returns the options for standard input and a terminal."""
    if tty and stdin is not False:
        raise InvalidRequestError(
            "stdin= and tty=True together need a terminal here, and a command of a sandbox has "
            "none: leave tty out"
        )
    told = any(word in ("-i", "--interactive") for word in extra)
    return [
        *args.flag("--interactive", stdin is not False and not told),
        *args.flag("--tty", tty),
    ]
