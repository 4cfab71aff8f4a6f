"""The Docker daemon of a sandbox, and commands that are given to it."""

from __future__ import annotations

import asyncio
import json
import time
import warnings
from collections.abc import Callable
from typing import Any

from ..._errors import (
    CommandNotFoundError,
    DockerDaemonNotReadyError,
    DockerDisabledError,
    DockerNotFoundError,
    DockerNotInstalledError,
    ProcessTimeoutError,
    error_from,
)
from ..._local import AsyncLock
from ..._models import DockerStatus
from ..._signature import strict
from ..process import SandboxProcessManager
from ..transport import POLL, Transport
from .result import DockerDone, DockerList, DockerResult, DockerText

INSTALL = "please install Docker in your image using Image().with_docker()"
NO_CREDENTIALS = 64
"""The exit code of LOGIN when the sandbox's environment has no credentials."""

# Runs in the sandbox. The password goes from the environment to docker's standard
# input through a built-in of the shell: no process has it as an argument.
LOGIN = f"""
[ -n "$DOCKER_USERNAME" ] && [ -n "$DOCKER_PASSWORD" ] || exit {NO_CREDENTIALS}
registry=${{1:-$DOCKER_REGISTRY}}
if [ "$2" = once ] && grep -qsF "${{registry:-https://index.docker.io/v1/}}" \
    "${{DOCKER_CONFIG:-$HOME/.docker}}/config.json"; then exit 0; fi
printf %s "$DOCKER_PASSWORD" |
    docker login --username "$DOCKER_USERNAME" --password-stdin ${{registry:+"$registry"}}
"""


@strict
class DaemonCommands:
    """The daemon's state, and how every other command reaches it."""

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
        self._login_lock = AsyncLock()
        self._login_tried = False
        self.daemon_timeout = daemon_timeout
        """Seconds that every method waits for the daemon, at most."""

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

    async def _start(
        self,
        words: list[str],
        cwd: str | None = None,
        stdin: bool | str | bytes = False,
        on_exit: Callable[[], object] | None = None,
        kind: type[DockerResult] = DockerResult,
    ) -> DockerResult:
        """Starts a docker command."""
        await self._ready()
        return await self._exec(["docker", *words], cwd, stdin, on_exit, kind)

    async def _ready(self) -> None:
        await self.wait_for_daemon()
        await self._login_once()

    async def _exec(
        self,
        command: list[str],
        cwd: str | None = None,
        stdin: bool | str | bytes = False,
        on_exit: Callable[[], object] | None = None,
        kind: type[DockerResult] = DockerResult,
    ) -> DockerResult:
        try:
            process = await self._processes.exec(*command, cwd=cwd, stdin=stdin, user="root")
        except CommandNotFoundError as cause:
            raise DockerNotInstalledError(
                f"docker not found - {INSTALL}", request_id=cause.request_id, status=cause.status
            ) from cause
        return kind(process, on_exit)

    async def _done(
        self, words: list[str], cwd: str | None = None, stdin: str | bool = False
    ) -> DockerDone:
        """Runs a docker command to its end; whether it succeeded."""
        return await _success(await self._start(words, cwd, stdin))

    async def _text(self, words: list[str], cwd: str | None = None) -> DockerText:
        """Runs a docker command to its end; what it printed. Raises if it failed."""
        result = await (await self._start(words, cwd)).check()
        return DockerText((await result.text()).removesuffix("\n"), result)

    async def _list(self, words: list[str], cwd: str | None = None) -> DockerList:
        """Runs a docker command to its end; the lines it printed. Raises if it failed."""
        result = await (await self._start(words, cwd)).check()
        return DockerList(await result.lines(), result)

    async def _rows(self, words: list[str], cwd: str | None = None) -> list[Any]:
        """Runs a docker command that prints JSON, a value in each line."""
        command = [*words, "--format", "{{json .}}"]
        return [json.loads(line) for line in await self._list(command, cwd) if line]

    async def _inspect(self, kind: str, names: list[str], missing_ok: bool = False) -> list[Any]:
        """Describes things; those that vanished in between may be left out."""
        if not names:
            return []
        result = await self._start([kind, "inspect", *names])
        error = await result.error()
        if error is not None and not (missing_ok and isinstance(error, DockerNotFoundError)):
            raise error
        found: list[Any] = json.loads(await result.text() or "[]")
        return found

    # Credentials.

    async def _login(self, registry: str | None, username: str, password: str) -> DockerDone:
        where = [] if registry is None else [registry]
        words = ["login", "--username", username, "--password-stdin", *where]
        await self.wait_for_daemon()
        self._login_tried = True
        return await _success(await self._exec(["docker", *words], stdin=password))

    async def _login_of_sandbox(self, registry: str | None, once: bool) -> DockerResult:
        """Logs in with the sandbox's DOCKER_USERNAME and DOCKER_PASSWORD."""
        how = ["once"] if once else []
        return await self._exec(["sh", "-c", LOGIN, "docker login", registry or "", *how])

    async def _login_once(self) -> None:
        """Logs in before the first command, if the sandbox's environment says as whom."""
        async with self._login_lock:
            if self._login_tried:
                return
            self._login_tried = True
            result = await self._login_of_sandbox(None, once=True)
            try:
                if await result.wait(self.daemon_timeout) or result.exit_code == NO_CREDENTIALS:
                    return
                why = (await result.stderr.text()).strip()
            except ProcessTimeoutError:
                await result.kill()
                why = f"no answer within {self.daemon_timeout:g} s"
        warnings.warn(
            "the login with DOCKER_USERNAME and DOCKER_PASSWORD of the sandbox's environment "
            f"failed, and Docker goes on without: {why}",
            RuntimeWarning,
            stacklevel=2,
        )


async def _success(result: DockerResult) -> DockerDone:
    error = await result.error()
    return DockerDone(error is None, result, str(error or ""))


def _not_ready(limit: float, status: DockerStatus) -> str:
    missing = f" ({status.reason})" if status.reason else ""
    return (
        f"the Docker daemon was not ready after {limit:g} s{missing}; to wait longer, set "
        f"instance.docker.daemon_timeout = {max(60, int(limit * 2))}. instance.logs() shows "
        "how far it got"
    )
