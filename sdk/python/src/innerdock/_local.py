"""Files of this machine, and other things whose two twins differ."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from ._context import Packed, Source, pack

CHUNK = 1 << 20

SyncInterrupt = (KeyboardInterrupt,)
AsyncInterrupt = (KeyboardInterrupt, asyncio.CancelledError)
"""What ends a wait from outside."""

SyncLock = threading.Lock
AsyncLock = asyncio.Lock


sync_pack = pack


async def async_pack(sources: Sequence[tuple[str, Source]]) -> Packed:
    """Is pack() without blocking the event loop."""
    return await asyncio.to_thread(pack, sources)


class SyncReader:
    """Iterates over a file's bytes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[bytes]:
        with open(self._path, "rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk


class AsyncReader:
    """Iterates over a file's bytes without blocking the event loop."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def __aiter__(self) -> AsyncIterator[bytes]:
        file = await asyncio.to_thread(open, self._path, "rb")
        try:
            while chunk := await asyncio.to_thread(file.read, CHUNK):
                yield chunk
        finally:
            file.close()


class _Part:
    """A file that gets its name only when it is complete."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
        self._file = open(self._part, "wb")  # noqa: SIM115 - closed in _finish

    def _finish(self, complete: bool) -> None:
        self._file.close()
        if complete:
            os.replace(self._part, self._path)
        else:
            with suppress(FileNotFoundError):
                self._part.unlink()


class SyncWriter(_Part):
    """Writes a file; it appears under its name when the block ends well."""

    def __enter__(self) -> SyncWriter:
        return self

    def write(self, data: bytes) -> None:
        """Appends data."""
        self._file.write(data)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._finish(kind is None)


class AsyncWriter(_Part):
    """Writes a file without blocking the event loop."""

    async def __aenter__(self) -> AsyncWriter:
        return self

    async def write(self, data: bytes) -> None:
        """Appends data."""
        await asyncio.to_thread(self._file.write, data)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._finish(kind is None)


class _Scope:
    def __init__(self) -> None:
        self.pid = os.getpid()


_scope = _Scope()


def sync_scope() -> Any:
    """Returns what a default client may be shared within: the process, not its forks."""
    global _scope
    if _scope.pid != os.getpid():
        _scope = _Scope()
    return _scope


def async_scope() -> Any:
    """Returns what a default client may be shared within: the event loop."""
    return asyncio.get_running_loop()
