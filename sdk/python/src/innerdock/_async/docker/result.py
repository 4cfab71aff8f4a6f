"""What the methods of the Docker manager return."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, TypeVar

from ..._dockererrors import failure
from ..._errors import DockerCommandError
from ..._strings import AsyncResultLike
from ..process import SandboxProcess
from ..streams import InputStream, OutputStream

C = TypeVar("C", bound="DockerCommand")
E = TypeVar("E", bound="Ended")


class DockerCommand(AsyncResultLike):
    """A docker command that was started.

    Iteration yields the lines of both outputs as they come. As a context manager
    it ends the command if it still runs at the end of the block.
    """

    def __init__(
        self, process: SandboxProcess, on_exit: Callable[[], object] | None = None
    ) -> None:
        self.process = process
        """The docker command line in the sandbox."""
        self._on_exit = on_exit
        process._state.owned = True
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
    def stdin(self) -> InputStream:
        """Standard input of a command that was started with ``stdin=True``."""
        return self.process.stdin

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

    async def error(self) -> DockerCommandError | None:
        """Waits for the command; the exception that tells why it failed, or None."""
        if await self.wait():
            return None
        return failure(
            self.process.args,
            self.exit_code or 0,
            await self.stdout.text(),
            await self.stderr.text(),
        )

    async def check(self: C) -> C:
        """Waits for the command; raises DockerCommandError if it failed, else returns self."""
        error = await self.error()
        if error is not None:
            raise error
        return self

    async def stream(self: C, on_line: Callable[[str], object]) -> C:
        """Calls on_line with every line of both outputs as it comes; returns self at the end."""
        async for line in self.process.logs:
            on_line(line)
        return self

    async def text(self) -> str:
        """Waits for the command and returns its standard output."""
        return await self.stdout.text()

    async def lines(self) -> list[str]:
        """Waits for the command and returns the lines of its standard output."""
        return (await self.text()).splitlines()

    async def kill(self) -> None:
        """Ends the docker command (a container that it started may go on)."""
        await self.process.kill()

    async def __aiter__(self) -> AsyncIterator[str]:
        async for line in self.process.logs:
            yield line

    async def __aenter__(self: C) -> C:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self.process._state.interrupt()

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"{name}({' '.join(self.process.args)!r}, exit_code={self.exit_code})"


class DockerResult(DockerCommand):
    """A docker command that was started. ``wait()`` tells whether it succeeded.

    It is what the command prints: ``str()``, ``in``, ``==`` and the like wait for its
    end. Iteration yields the lines of both outputs as they come. As a context manager
    it ends the command if it still runs at the end of the block.
    """

    async def logs(self) -> AsyncIterator[str]:
        """Yields the lines of both outputs as they come, to the end of the command."""
        async for line in self.process.logs:
            yield line


class DetachedRun(DockerResult):
    """``docker run --detach``: its output is the container's ID."""

    @property
    async def output(self) -> str:
        """Waits for the command; the ID of the container."""
        return (await self.stdout.text()).strip()


class Ended:
    """What results of commands that have ended have in common: they still can be asked."""

    _result: DockerResult

    @property
    def result(self) -> DockerResult:
        """The command that it is the result of."""
        return self._result

    @property
    def process(self) -> SandboxProcess:
        """The docker command line in the sandbox."""
        return self.result.process

    @property
    def stdout(self) -> OutputStream:
        """Standard output: ``read()`` all of it, or use it as a string."""
        return self.result.stdout

    @property
    def stderr(self) -> OutputStream:
        """Standard error: ``read()`` all of it, or use it as a string."""
        return self.result.stderr

    @property
    def exit_code(self) -> int | None:
        """The exit code."""
        return self.result.exit_code

    @property
    async def success(self) -> bool:
        """Whether the command succeeded."""
        return await self.result.wait()

    @property
    async def output(self) -> str:
        """All that the command wrote, standard output first."""
        return await self.result.output

    async def wait(self, timeout: float | None = None) -> bool:
        """Returns at once whether the command succeeded: it has ended."""
        return await self.result.wait(timeout)

    async def error(self) -> DockerCommandError | None:
        """Returns the exception that tells why the command failed, or None."""
        return await self.result.error()

    async def check(self: E) -> E:
        """Raises DockerCommandError if the command failed, else returns self."""
        await self.result.check()
        return self

    async def text(self) -> str:
        """Returns standard output."""
        return await self.result.text()

    async def lines(self) -> list[str]:
        """Returns the lines of standard output."""
        return await self.result.lines()

    async def logs(self) -> AsyncIterator[str]:
        """Yields the lines of both outputs."""
        async for line in self.result.logs():
            yield line


class DockerText(Ended, str):
    """What a docker command printed, without the last newline: a str that can be asked.

    ``wait()``, ``stdout.read()`` and the like are those of a DockerResult.
    """

    def __new__(cls, value: str, result: DockerResult) -> DockerText:
        """Makes the text of a result."""
        self = str.__new__(cls, value)
        self._result = result
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (str(self),)


class DockerList(Ended, list[str]):
    """The lines that a docker command printed: a list of str that can be asked.

    ``wait()``, ``stdout.read()`` and the like are those of a DockerResult.
    """

    def __init__(self, value: list[str], result: DockerResult) -> None:
        super().__init__(value)
        self._result = result

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)


class DockerDone(Ended, int):
    """Whether a docker command succeeded: like a bool (1 or 0), and it can be asked.

    ``wait()``, ``stderr.read()``, ``check()`` and the like are those of a DockerResult.
    A failure that nobody looks at before it is forgotten becomes a RuntimeWarning.
    """

    def __new__(cls, value: bool, result: DockerResult, why: str = "") -> DockerDone:
        """Makes the success of a result; why says why it failed."""
        self = int.__new__(cls, value)
        self._result = result
        self._unseen = why
        return self

    @property
    def result(self) -> DockerResult:
        """The command that it is the result of."""
        self._unseen = ""
        return self._result

    def __bool__(self) -> bool:
        self._unseen = ""
        return int(self) != 0

    def __eq__(self, other: object) -> bool:
        self._unseen = ""
        return int(self) == other

    def __hash__(self) -> int:
        return hash(int(self))

    def __str__(self) -> str:
        return str(bool(self))

    def __repr__(self) -> str:
        return f"DockerDone({bool(self)}, {' '.join(self._result.process.args)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return bool, (int(self),)

    def __del__(self) -> None:
        if getattr(self, "_unseen", ""):
            warnings.warn(
                f"nobody looked at a failure: {self._unseen}", RuntimeWarning, stacklevel=2
            )
