"""Compose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

from ... import _dockerargs as args
from ..._dockerargs import Command, Names
from ..._dockermodels import Container
from ..._errors import InvalidRequestError
from ..._signature import strict
from .containers import ContainerCommands, Input
from .result import DockerCommand, DockerDone, DockerList, DockerResult, DockerText

COMPOSE_FILE = "docker-compose.yml"


class DockerComposeStack(DockerCommand):
    """The services of a Compose file, being started. ``wait()`` tells whether that succeeded.

    Iteration yields the lines of ``docker compose up`` as they come. What is asked of
    a stack that was started with detach=True waits until it is up.
    """

    def __init__(
        self,
        result: DockerResult,
        commands: ComposeCommands,
        file: Names,
        cwd: str | None,
        detach: bool,
    ) -> None:
        super().__init__(result.process)
        self._commands = commands
        self._file = file
        self._cwd = cwd
        self._detach = detach

    @property
    async def services(self) -> DockerList:
        """The names of the services."""
        return await self._commands._list(
            args.compose(self._file, "config", "--services"), self._cwd
        )

    async def containers(self, all: bool = True) -> list[Container]:
        """Returns the services' containers as values: state, health, exit code, ports."""
        await self._up()
        return await self._commands.compose_containers(self._file, self._cwd, all)

    async def ps(self) -> DockerText:
        """Lists the services' containers, as a table."""
        await self._up()
        return await self._commands.compose_ps(self._file, self._cwd)

    @overload
    async def logs(
        self,
        service: str | None = None,
        follow: Literal[False] = False,
        tail: int | None = None,
    ) -> DockerText: ...

    @overload
    async def logs(
        self, service: str | None = None, *, follow: Literal[True], tail: int | None = None
    ) -> DockerResult: ...

    @overload
    async def logs(
        self, service: str | None = None, follow: bool = False, tail: int | None = None
    ) -> DockerText | DockerResult: ...

    async def logs(
        self, service: str | None = None, follow: bool = False, tail: int | None = None
    ) -> DockerText | DockerResult:
        """Returns what the services have written; follow=True goes on: iterate over it."""
        await self._up()
        services = [] if service is None else [service]
        result = await self._commands.compose_logs(self._file, follow, self._cwd, tail, services)
        if follow:
            return result
        await result.check()
        return DockerText((await result.text()).removesuffix("\n"), result)

    async def exec(self, service: str, command: Command) -> DockerResult:
        """Runs a command in a service's container."""
        await self._up()
        return await self._commands.compose_exec(service, command, self._file, self._cwd)

    async def stop(self, timeout: int | None = None) -> DockerDone:
        """Stops the services."""
        await self._up()
        return await self._commands.compose_stop(self._file, self._cwd, timeout=timeout)

    async def down(self, volumes: bool = False) -> DockerDone:
        """Stops and removes the services; volumes=True: their volumes too."""
        if self._detach:
            await self.wait()
        return await self._commands.compose_down(self._file, volumes, self._cwd)

    async def _up(self) -> None:
        if self._detach:
            await self.check()


@strict
class ComposeCommands(ContainerCommands):
    """Commands of Compose. file is one path or several, relative to cwd."""

    async def compose_up(
        self,
        file: Names = COMPOSE_FILE,
        detach: bool = True,
        build: bool = False,
        cwd: str | None = None,
        wait: bool = False,
        services: Names = (),
        scale: Mapping[str, int] | None = None,
        profiles: Names = (),
    ) -> DockerComposeStack:
        """Starts the services of a Compose file; wait=True: until they are healthy.

        Iterate over the stack for its progress; ``check()`` waits until it is up.
        """
        profiled = args.repeated("--profile", args.some("a profile", profiles))
        numbers = [f"{service}={count}" for service, count in (scale or {}).items()]
        result = await self._start(
            [
                *args.compose(file, *profiled, "up"),
                *args.flag("--detach", detach),
                *args.flag("--build", build),
                *args.flag("--wait", wait),
                *args.repeated("--scale", numbers),
                *args.some("a service", services),
            ],
            cwd=cwd,
        )
        return DockerComposeStack(result, self, file, cwd, detach or wait)

    async def compose_down(
        self, file: Names = COMPOSE_FILE, volumes: bool = False, cwd: str | None = None
    ) -> DockerDone:
        """Stops and removes the services; volumes=True: their volumes too."""
        return await self._done(
            [*args.compose(file, "down"), *args.flag("--volumes", volumes)], cwd=cwd
        )

    @overload
    async def compose_ps(
        self,
        file: Names = COMPOSE_FILE,
        cwd: str | None = None,
        all: bool = False,
        quiet: Literal[False] = False,
    ) -> DockerText: ...

    @overload
    async def compose_ps(
        self,
        file: Names = COMPOSE_FILE,
        cwd: str | None = None,
        all: bool = False,
        *,
        quiet: Literal[True],
    ) -> DockerList: ...

    @overload
    async def compose_ps(
        self,
        file: Names = COMPOSE_FILE,
        cwd: str | None = None,
        all: bool = False,
        quiet: bool = False,
    ) -> DockerText | DockerList: ...

    async def compose_ps(
        self,
        file: Names = COMPOSE_FILE,
        cwd: str | None = None,
        all: bool = False,
        quiet: bool = False,
    ) -> DockerText | DockerList:
        """Lists the services' containers, as a table. quiet=True: a list of their IDs."""
        words = [*args.compose(file, "ps"), *args.flag("--all", all)]
        if quiet:
            return await self._list([*words, "--quiet"], cwd)
        return await self._text(words, cwd)

    async def compose_containers(
        self, file: Names = COMPOSE_FILE, cwd: str | None = None, all: bool = True
    ) -> list[Container]:
        """Returns the services' containers as values; all=False: the running ones."""
        words = [*args.compose(file, "ps"), *args.flag("--all", all), "--quiet"]
        return await self._containers(await self._list(words, cwd))

    async def compose_logs(
        self,
        file: Names = COMPOSE_FILE,
        follow: bool = False,
        cwd: str | None = None,
        tail: int | None = None,
        services: Names = (),
    ) -> DockerResult:
        """Shows what the services have written; follow=True goes on until they end."""
        options = ["--no-color", *args.flag("--follow", follow), *args.value("--tail", tail)]
        return await self._start(args.services(file, "logs", services, *options), cwd=cwd)

    async def compose_build(
        self,
        file: Names = COMPOSE_FILE,
        no_cache: bool = False,
        pull: bool = False,
        cwd: str | None = None,
        services: Names = (),
        build_args: Mapping[str, Any] | None = None,
    ) -> DockerResult:
        """Builds the images of the services."""
        options = [
            *args.flag("--no-cache", no_cache),
            *args.flag("--pull", pull),
            *args.pairs("--build-arg", build_args),
        ]
        return await self._start(args.services(file, "build", services, *options), cwd=cwd)

    async def compose_pull(
        self, file: Names = COMPOSE_FILE, cwd: str | None = None, services: Names = ()
    ) -> DockerResult:
        """Pulls the images of the services."""
        return await self._start(args.services(file, "pull", services), cwd=cwd)

    async def compose_run(
        self,
        service: str,
        command: Command = None,
        file: Names = COMPOSE_FILE,
        cwd: str | None = None,
        remove: bool = True,
        env: Mapping[str, Any] | None = None,
        extra_args: Sequence[str] | None = None,
        *,
        stdin: Input = False,
    ) -> DockerResult:
        """Runs a command in a new container of a service, and removes it afterwards."""
        return await self._start(
            [
                *args.compose(file, "run", "--no-TTY"),
                *args.flag("--interactive=false", stdin is False),
                *args.flag("--rm", remove),
                *args.pairs("--env", env),
                *args.words(extra_args),
                args.name("a service", service),
                *args.words(command),
            ],
            cwd=cwd,
            stdin=stdin,
        )

    async def compose_exec(
        self,
        service: str,
        command: Command,
        file: Names = COMPOSE_FILE,
        cwd: str | None = None,
        env: Mapping[str, Any] | None = None,
        workdir: str | None = None,
        user: str | None = None,
        *,
        stdin: Input = False,
    ) -> DockerResult:
        """Runs a command in the running container of a service."""
        words = args.words(command)
        if not words:
            raise InvalidRequestError('compose_exec needs a command: compose_exec("web", "ls")')
        return await self._start(
            [
                *args.compose(file, "exec", "--no-TTY"),
                *args.pairs("--env", env),
                *args.value("--workdir", workdir),
                *args.value("--user", user),
                args.name("a service", service),
                *words,
            ],
            cwd=cwd,
            stdin=stdin,
        )

    async def compose_start(
        self, file: Names = COMPOSE_FILE, cwd: str | None = None, services: Names = ()
    ) -> DockerDone:
        """Starts services that were stopped."""
        return await self._done(args.services(file, "start", services), cwd=cwd)

    async def compose_stop(
        self,
        file: Names = COMPOSE_FILE,
        cwd: str | None = None,
        services: Names = (),
        timeout: int | None = None,
    ) -> DockerDone:
        """Stops the services, and keeps their containers."""
        options = args.value("--timeout", timeout)
        return await self._done(args.services(file, "stop", services, *options), cwd=cwd)

    async def compose_restart(
        self,
        file: Names = COMPOSE_FILE,
        cwd: str | None = None,
        services: Names = (),
        timeout: int | None = None,
    ) -> DockerDone:
        """Restarts the services."""
        options = args.value("--timeout", timeout)
        return await self._done(args.services(file, "restart", services, *options), cwd=cwd)

    async def compose_config(
        self, file: Names = COMPOSE_FILE, cwd: str | None = None
    ) -> DockerText:
        """Checks a Compose file and returns it complete, as YAML."""
        return await self._text(args.compose(file, "config"), cwd)
