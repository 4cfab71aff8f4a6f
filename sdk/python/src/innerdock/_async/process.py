"""Processes in a sandbox."""

from __future__ import annotations

import signal as signals
import time
from collections.abc import Mapping
from typing import Literal, overload

from .._errors import ConflictError, InvalidRequestError, NotFoundError, ProcessTimeoutError
from .._models import CodeResult, ProcessInfo, Status
from .streams import CombinedOutput, InputStream, OutputStream, ProcessState
from .transport import POLL, Transport

MAX_ARG = 100_000
"""Bytes of code that are passed as an argument; longer code goes through stdin."""


class SandboxProcess:
    """A process that was started in a sandbox."""

    def __init__(
        self,
        transport: Transport,
        base: str,
        info: ProcessInfo,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._state = ProcessState(transport, f"{base}/processes/{info.pid}", info)
        self.env = dict(env or {})
        """The environment variables it was given besides the sandbox's."""
        self.stdin = InputStream(self._state)
        self.stdout = OutputStream(self._state, "stdout")
        self.stderr = OutputStream(self._state, "stderr")
        self.logs = CombinedOutput(self._state, self.stdout, self.stderr)
        """Both outputs in one."""

    @property
    def pid(self) -> int:
        """The process ID in the sandbox."""
        return self._state.info.pid

    @property
    def args(self) -> list[str]:
        """The program and its arguments."""
        return list(self._state.info.args)

    @property
    def cwd(self) -> str:
        """The working directory."""
        return self._state.info.cwd

    @property
    def exit_code(self) -> int | None:
        """The exit code as last heard of; None while it runs. 128 + n after signal n."""
        return self._state.info.exit_code

    async def wait(self, timeout: float | None = None) -> int:
        """Waits for the process to end and returns its exit code.

        After timeout seconds it raises ProcessTimeoutError; the process goes on.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while not self._state.exited:
            left = POLL if end is None else min(POLL, end - time.monotonic())
            if left <= 0 and (await self._state.refresh()).state != "exited":
                raise ProcessTimeoutError(
                    f"process {self.pid} did not end within {timeout:g} s; it goes on: wait() "
                    "again, or kill() it"
                )
            if not self._state.exited:
                await self._state.refresh(left)
        return self.exit_code if self.exit_code is not None else -1

    async def poll(self) -> int | None:
        """Returns the exit code, or None while the process runs."""
        if not self._state.exited:
            await self._state.refresh()
        return self.exit_code

    async def status(self) -> Status:
        """Returns (exit code, state): (-1, "running") or (0, "exited")."""
        code = await self.poll()
        return Status(-1 if code is None else code, self._state.info.state)

    async def kill(self, signal: int | str = "SIGKILL") -> None:
        """Sends a signal to the process and its children. No error if it has ended."""
        name = signal if isinstance(signal, str) else signals.Signals(signal).name
        try:
            await self._state.signal(name)
        except (ConflictError, NotFoundError):
            if await self.poll() is None:
                raise

    def __repr__(self) -> str:
        return f"SandboxProcess(pid={self.pid}, args={self.args}, exit_code={self.exit_code})"


class SandboxProcessManager:
    """Starts and finds the processes of a sandbox."""

    def __init__(self, transport: Transport, base: str) -> None:
        self._transport = transport
        self._base = base

    async def exec(
        self,
        *args: str,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bool | str | bytes = False,
        user: str | None = None,
    ) -> SandboxProcess:
        """Starts a program: ``exec("python", "-c", "print(1)")``. No shell is involved.

        cwd and user are the image's by default, else /workspace and root; env is
        added to the sandbox's environment. stdin=True keeps standard input open for
        ``process.stdin``; text or bytes are what it is; by default it is empty.
        """
        if not args or not all(isinstance(arg, str) for arg in args):
            raise InvalidRequestError(
                'exec takes the program and its arguments as strings: exec("ls", "-l")'
            )
        spec: dict[str, object] = {"args": list(args)}
        if cwd is not None:
            spec["cwd"] = cwd
        if user is not None:
            spec["user"] = str(user)
        if env:
            spec["env"] = {name: str(value) for name, value in env.items()}
        if stdin is not False:
            spec["stdin"] = True
        data = await self._transport.json("POST", f"{self._base}/processes", json=spec)
        process = SandboxProcess(self._transport, self._base, ProcessInfo.from_json(data), env)
        if isinstance(stdin, (str, bytes)):
            try:
                await process.stdin._send(stdin, close=True)
            except ConflictError:
                if await process.poll() is None:
                    raise  # else it ended without reading; its exit code says why
        return process

    @overload
    async def run_code(
        self,
        code: str,
        blocking: Literal[True] = True,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> CodeResult: ...

    @overload
    async def run_code(
        self,
        code: str,
        blocking: Literal[False],
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> SandboxProcess: ...

    async def run_code(
        self,
        code: str,
        blocking: bool = True,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> CodeResult | SandboxProcess:
        """Runs Python code with the image's python3 and returns what it printed.

        With blocking=False it returns the process at once.
        """
        if len(code.encode()) > MAX_ARG:
            process = await self.exec("python3", "-", cwd=cwd, env=env, stdin=code)
        else:
            process = await self.exec("python3", "-c", code, cwd=cwd, env=env)
        if not blocking:
            return process
        exit_code = await process.wait()
        return CodeResult(
            process.pid, exit_code, await process.stdout.read(), await process.stderr.read()
        )

    async def list_processes(self) -> dict[int, SandboxProcess]:
        """Returns the processes that were started through the API, by process ID."""
        data = await self._transport.json("GET", f"{self._base}/processes")
        infos = [ProcessInfo.from_json(item) for item in data["processes"] or ()]
        return {info.pid: SandboxProcess(self._transport, self._base, info) for info in infos}

    async def get_process(self, pid: int) -> SandboxProcess:
        """Returns a process that was started through the API."""
        data = await self._transport.json("GET", f"{self._base}/processes/{int(pid)}")
        return SandboxProcess(self._transport, self._base, ProcessInfo.from_json(data))
