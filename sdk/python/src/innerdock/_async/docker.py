"""Docker in a sandbox."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

from .. import _dockerargs as args
from .._dockerargs import Command, Names, Ports, Volumes
from .._errors import (
    CommandNotFoundError,
    DockerCommandError,
    DockerDaemonNotReadyError,
    DockerDisabledError,
    DockerNotInstalledError,
    InvalidRequestError,
    error_from,
)
from .._models import DockerStatus
from .._strings import AsyncResultLike
from .process import SandboxProcess, SandboxProcessManager
from .streams import OutputStream
from .transport import POLL, Transport

INSTALL = "please install Docker in your image using Image().with_docker()"
COMPOSE_FILE = "docker-compose.yml"


class DockerResult(AsyncResultLike):
    """A docker command that was started. ``wait()`` tells whether it succeeded."""

    def __init__(
        self, process: SandboxProcess, on_exit: Callable[[], object] | None = None
    ) -> None:
        self.process = process
        """The docker command line in the sandbox."""
        self._on_exit = on_exit
        process.stdout._waits = process.stderr._waits = True

    @property
    def stdout(self) -> OutputStream:
        """Standard output: ``read()`` all of it, iterate over its lines, or use it as a string."""
        return self.process.stdout

    @property
    def stderr(self) -> OutputStream:
        """Standard error: ``read()`` all of it, iterate over its lines, or use it as a string."""
        return self.process.stderr

    @property
    def exit_code(self) -> int | None:
        """The exit code; None until ``wait()`` has seen the end."""
        return self.process.exit_code

    @property
    async def success(self) -> bool:
        """Waits for the command, and tells whether it succeeded."""
        return await self.wait()

    @property
    async def output(self) -> str:
        """Waits for the command; all it wrote, standard output first."""
        return await self.stdout.text() + await self.stderr.text()

    async def wait(self, timeout: float | None = None) -> bool:
        """Waits for the command and returns whether it succeeded.

        After timeout seconds it raises ProcessTimeoutError; the command goes on.
        """
        code = await self.process.wait(timeout)
        if self._on_exit is not None:
            self._on_exit()
            self._on_exit = None
        return code == 0

    async def check(self) -> DockerResult:
        """Waits for the command; raises DockerCommandError if it failed, else returns self."""
        if not await self.wait():
            raise DockerCommandError(
                self.process.args, self.exit_code or 0, await self.stderr.text()
            )
        return self

    async def text(self) -> str:
        """Waits for the command and returns its standard output."""
        return await self.stdout.text()

    async def lines(self) -> list[str]:
        """Waits for the command and returns the lines of its standard output."""
        return (await self.text()).splitlines()

    async def logs(self) -> AsyncIterator[str]:
        """Yields the lines of both outputs as they come, to the end of the command."""
        async for line in self.process.logs:
            yield line

    async def kill(self) -> None:
        """Ends the docker command (a container that it started may go on)."""
        await self.process.kill()

    def __repr__(self) -> str:
        return f"DockerResult({' '.join(self.process.args)!r}, exit_code={self.exit_code})"


class SandboxDockerManager:
    """Runs docker commands in a sandbox that was created with docker_enabled=True.

    Every method first waits until the Docker daemon is ready, daemon_timeout
    seconds at most. ``run``, ``pull``, ``push``, ``build``, ``logs``, ``exec``,
    ``compose_up``, ``compose_logs`` and ``compose_build`` return when the command
    has started: ``wait()`` for it. The others return when it has ended. A command
    that fails raises nothing by itself: look at ``wait()``, or call ``check()``.
    """

    def __init__(
        self,
        transport: Transport,
        base: str,
        processes: SandboxProcessManager,
        profile: str,
        timings: dict[str, float],
        daemon_timeout: float = 30.0,
    ) -> None:
        self._transport = transport
        self._base = base
        self._processes = processes
        self._profile = profile
        self._timings = timings
        self._created = time.monotonic()
        self.daemon_timeout = daemon_timeout
        """Seconds that every method waits for the daemon, at most."""

    # The daemon.

    async def status(self, wait: float = 0) -> DockerStatus:
        """Returns the state of Docker; waits up to so many seconds until it is settled."""
        params = {"wait": f"{wait:g}"} if wait else None
        data = await self._transport.json(
            "GET", f"{self._base}/docker", params=params, timeout=wait + POLL
        )
        return DockerStatus.from_json(data)

    async def is_daemon_ready(self) -> bool:
        """Tells whether the daemon answers now."""
        return (await self.status()).state == "ready"

    async def wait_for_daemon(self, timeout: float | None = None) -> None:
        """Waits until the daemon is ready, daemon_timeout seconds if no time is given.

        Raises DockerDaemonNotReadyError after that; DockerDisabledError,
        DockerNotInstalledError or DockerDaemonFailedError as soon as it is known.
        """
        limit = self.daemon_timeout if timeout is None else timeout
        end = time.monotonic() + limit
        while True:
            left = max(0.0, end - time.monotonic())
            asked = time.monotonic()
            status = await self.status(min(left, POLL))
            if status.state == "ready":
                self._timings.setdefault("docker_ready", time.monotonic() - self._created)
                return
            if status.state == "disabled":
                raise DockerDisabledError(
                    status.reason
                    or "Docker is not enabled in this sandbox; create it with "
                    "Sandbox(image=Image().with_docker(), docker_enabled=True)"
                )
            if status.state == "failed":
                body = {"code": status.code or "docker_failed", "message": status.reason}
                raise error_from(body, timeout=limit)
            if time.monotonic() >= end:
                raise DockerDaemonNotReadyError(limit, _not_ready(limit, status))
            if time.monotonic() - asked < 0.05:  # answered without waiting: do not spin
                await asyncio.sleep(0.1)

    async def logs_of_daemon(self) -> str:
        """Returns dockerd's own log, the last MiB of it."""
        return (await self._transport.request("GET", f"{self._base}/docker/logs")).text

    # Containers.

    async def run(
        self,
        image: str,
        command: Command = None,
        name: str | None = None,
        detach: bool = False,
        remove: bool = False,
        volumes: Volumes = None,
        env: Mapping[str, str] | None = None,
        ports: Ports = None,
        network: str | None = None,
        extra_args: Sequence[str] | None = None,
    ) -> DockerResult:
        """Runs a container: ``run("nginx:latest", detach=True, ports={8080: 80})``.

        command: words, or a string that is split as a shell would.
        volumes: {"/workspace/data": "/data"}, {"cache": "/c:ro"} or ["cache:/c:ro"].
        ports: {8080: 80} is port 80 of the container on port 8080 of the sandbox.
        extra_args: further options of ``docker run``, before the image.
        """
        extra = args.words(extra_args)
        words = [
            "run",
            *args.flag("--detach", detach),
            *args.flag("--rm", remove),
            *args.value("--name", name),
            *args.network(self._profile, network, extra),
            *args.volumes(volumes),
            *args.pairs("--env", env),
            *args.ports(ports),
            *extra,
            args.name("an image", image),
            *args.words(command),
        ]
        await self.wait_for_daemon()
        started = time.monotonic()
        return await self._start(
            words,
            on_exit=lambda: self._timings.setdefault("docker_run", time.monotonic() - started),
        )

    async def ps(self, all: bool = False, quiet: bool = False) -> DockerResult:
        """Lists the running containers; all=True: those that have ended too."""
        return await self._finish(["ps", *args.flag("--all", all), *args.flag("--quiet", quiet)])

    async def exec(
        self,
        container: str,
        command: Command,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        user: str | None = None,
        detach: bool = False,
        extra_args: Sequence[str] | None = None,
    ) -> DockerResult:
        """Runs a command in a running container."""
        words = args.words(command)
        if not words:
            raise InvalidRequestError('exec needs a command: exec("web", "ls -l")')
        return await self._start(
            [
                "exec",
                *args.flag("--detach", detach),
                *args.pairs("--env", env),
                *args.value("--workdir", workdir),
                *args.value("--user", user),
                *args.words(extra_args),
                args.name("a container", container),
                *words,
            ]
        )

    async def logs(
        self,
        container: str,
        follow: bool = False,
        tail: int | None = None,
        timestamps: bool = False,
    ) -> DockerResult:
        """Shows what a container has written; follow=True goes on until it ends."""
        return await self._start(
            [
                "logs",
                *args.flag("--follow", follow),
                *args.flag("--timestamps", timestamps),
                *args.value("--tail", tail),
                args.name("a container", container),
            ]
        )

    async def start(self, container: Names) -> DockerResult:
        """Starts one or several stopped containers."""
        return await self._finish(["start", *args.names("a container", container)])

    async def stop(self, container: Names, timeout: int | None = None) -> DockerResult:
        """Stops one or several containers: SIGTERM, then SIGKILL after timeout seconds."""
        return await self._finish(
            ["stop", *args.value("--time", timeout), *args.names("a container", container)]
        )

    async def restart(self, container: Names, timeout: int | None = None) -> DockerResult:
        """Restarts one or several containers."""
        return await self._finish(
            ["restart", *args.value("--time", timeout), *args.names("a container", container)]
        )

    async def rm(
        self, container: Names, force: bool = False, volumes: bool = False
    ) -> DockerResult:
        """Removes one or several containers; force=True: running ones too."""
        return await self._finish(
            [
                "rm",
                *args.flag("--force", force),
                *args.flag("--volumes", volumes),
                *args.names("a container", container),
            ]
        )

    # Images.

    async def pull(self, image: str, quiet: bool = False) -> DockerResult:
        """Pulls an image, through the server's registry cache."""
        return await self._start(
            ["pull", *args.flag("--quiet", quiet), args.name("an image", image)]
        )

    async def push(self, image: str) -> DockerResult:
        """Pushes an image to its registry."""
        return await self._start(["push", args.name("an image", image)])

    async def build(
        self,
        tag: str,
        context: str = ".",
        dockerfile: str | None = None,
        build_args: Mapping[str, str] | None = None,
        no_cache: bool = False,
        quiet: bool = False,
        extra_args: Sequence[str] | None = None,
    ) -> DockerResult:
        """Builds an image from a directory of the sandbox, relative to /workspace."""
        extra = args.words(extra_args)
        return await self._start(
            [
                "build",
                *args.value("--tag", args.name("an image", tag)),
                *args.value("--file", dockerfile),
                *args.pairs("--build-arg", build_args),
                *args.flag("--no-cache", no_cache),
                *args.flag("--quiet", quiet),
                *args.network(self._profile, None, extra),
                *extra,
                args.name("a directory", context),
            ]
        )

    async def images(self, all: bool = False, quiet: bool = False) -> DockerResult:
        """Lists the images."""
        return await self._finish(
            ["images", *args.flag("--all", all), *args.flag("--quiet", quiet)]
        )

    async def tag(self, source: str, target: str) -> DockerResult:
        """Gives an image another name."""
        return await self._finish(
            ["tag", args.name("an image", source), args.name("an image", target)]
        )

    async def rmi(self, image: Names, force: bool = False) -> DockerResult:
        """Removes one or several images."""
        return await self._finish(
            ["rmi", *args.flag("--force", force), *args.names("an image", image)]
        )

    async def login(
        self, username: str, password: str, registry: str | None = None
    ) -> DockerResult:
        """Logs in to a registry. The password goes through standard input."""
        where = [] if registry is None else [args.name("a registry", registry)]
        return await self._finish(
            ["login", "--username", username, "--password-stdin", *where], stdin=password
        )

    # Volumes and networks.

    async def volume_create(self, name: str, driver: str | None = None) -> DockerResult:
        """Creates a volume."""
        return await self._finish(
            ["volume", "create", *args.value("--driver", driver), args.name("a volume", name)]
        )

    async def volume_ls(self, quiet: bool = False) -> DockerResult:
        """Lists the volumes."""
        return await self._finish(["volume", "ls", *args.flag("--quiet", quiet)])

    async def volume_inspect(self, name: Names) -> DockerResult:
        """Describes one or several volumes, as JSON."""
        return await self._finish(["volume", "inspect", *args.names("a volume", name)])

    async def volume_rm(self, name: Names, force: bool = False) -> DockerResult:
        """Removes one or several volumes."""
        return await self._finish(
            ["volume", "rm", *args.flag("--force", force), *args.names("a volume", name)]
        )

    async def network_create(
        self,
        name: str,
        driver: str | None = None,
        subnet: str | None = None,
        internal: bool = False,
    ) -> DockerResult:
        """Creates a network; containers on it find each other by name."""
        return await self._finish(
            [
                "network",
                "create",
                *args.value("--driver", driver),
                *args.value("--subnet", subnet),
                *args.flag("--internal", internal),
                args.name("a network", name),
            ]
        )

    async def network_ls(self, quiet: bool = False) -> DockerResult:
        """Lists the networks."""
        return await self._finish(["network", "ls", *args.flag("--quiet", quiet)])

    async def network_inspect(self, name: Names) -> DockerResult:
        """Describes one or several networks, as JSON."""
        return await self._finish(["network", "inspect", *args.names("a network", name)])

    async def network_connect(self, network: str, container: str) -> DockerResult:
        """Connects a container to a network."""
        return await self._finish(
            [
                "network",
                "connect",
                args.name("a network", network),
                args.name("a container", container),
            ]
        )

    async def network_disconnect(
        self, network: str, container: str, force: bool = False
    ) -> DockerResult:
        """Disconnects a container from a network."""
        return await self._finish(
            [
                "network",
                "disconnect",
                *args.flag("--force", force),
                args.name("a network", network),
                args.name("a container", container),
            ]
        )

    async def network_rm(self, name: Names) -> DockerResult:
        """Removes one or several networks."""
        return await self._finish(["network", "rm", *args.names("a network", name)])

    # Compose.

    async def compose_up(
        self,
        file: str = COMPOSE_FILE,
        detach: bool = True,
        build: bool = False,
        wait: bool = False,
        cwd: str | None = None,
        services: Iterable[str] = (),
    ) -> DockerResult:
        """Starts the services of a Compose file; wait=True: until they are healthy."""
        return await self._start(
            [
                *_compose(file, "up"),
                *args.flag("--detach", detach),
                *args.flag("--build", build),
                *args.flag("--wait", wait),
                *args.names("a service", services),
            ],
            cwd=cwd,
        )

    async def compose_down(
        self, file: str = COMPOSE_FILE, volumes: bool = False, cwd: str | None = None
    ) -> DockerResult:
        """Stops and removes the services; volumes=True: their volumes too."""
        return await self._finish(
            [*_compose(file, "down"), *args.flag("--volumes", volumes)], cwd=cwd
        )

    async def compose_ps(
        self,
        file: str = COMPOSE_FILE,
        all: bool = False,
        quiet: bool = False,
        cwd: str | None = None,
    ) -> DockerResult:
        """Lists the services' containers."""
        return await self._finish(
            [*_compose(file, "ps"), *args.flag("--all", all), *args.flag("--quiet", quiet)],
            cwd=cwd,
        )

    async def compose_logs(
        self,
        file: str = COMPOSE_FILE,
        follow: bool = False,
        tail: int | None = None,
        cwd: str | None = None,
        services: Iterable[str] = (),
    ) -> DockerResult:
        """Shows what the services have written."""
        return await self._start(
            [
                *_compose(file, "logs"),
                "--no-color",
                *args.flag("--follow", follow),
                *args.value("--tail", tail),
                *args.names("a service", services),
            ],
            cwd=cwd,
        )

    async def compose_build(
        self,
        file: str = COMPOSE_FILE,
        no_cache: bool = False,
        pull: bool = False,
        cwd: str | None = None,
        services: Iterable[str] = (),
    ) -> DockerResult:
        """Builds the images of the services."""
        return await self._start(
            [
                *_compose(file, "build"),
                *args.flag("--no-cache", no_cache),
                *args.flag("--pull", pull),
                *args.names("a service", services),
            ],
            cwd=cwd,
        )

    # Anything else.

    async def cli(
        self, *words: str, cwd: str | None = None, stdin: bool | str | bytes = False
    ) -> DockerResult:
        """Runs any docker command: ``cli("inspect", "web")``."""
        if not words:
            raise InvalidRequestError('cli needs a docker command: cli("inspect", "web")')
        return await self._start(list(words), cwd=cwd, stdin=stdin)

    async def _finish(
        self, words: list[str], cwd: str | None = None, stdin: str | bool = False
    ) -> DockerResult:
        result = await self._start(words, cwd=cwd, stdin=stdin)
        await result.wait()
        return result

    async def _start(
        self,
        words: list[str],
        cwd: str | None = None,
        stdin: bool | str | bytes = False,
        on_exit: Callable[[], object] | None = None,
    ) -> DockerResult:
        await self.wait_for_daemon()
        try:
            process = await self._processes.exec("docker", *words, cwd=cwd, stdin=stdin)
        except CommandNotFoundError as cause:
            raise DockerNotInstalledError(
                f"docker not found - {INSTALL}", request_id=cause.request_id, status=cause.status
            ) from cause
        return DockerResult(process, on_exit)


def _compose(file: str, verb: str) -> list[str]:
    return ["compose", "--ansi", "never", "--file", file, verb]


def _not_ready(limit: float, status: DockerStatus) -> str:
    missing = f" ({status.reason})" if status.reason else ""
    return (
        f"the Docker daemon was not ready after {limit:g} s{missing}; to wait longer, set "
        f"instance.docker.daemon_timeout = {max(60, int(limit * 2))}. instance.logs() shows "
        "how far it got"
    )
