"""Streams and results that also are strings, for those who want one.

str() cannot await, so only the synchronous twins get SyncStringLike.
"""

from __future__ import annotations

from collections.abc import Iterator


class AsyncStringLike:
    """Nothing: in asynchronous code use ``await stream.text()``."""


class SyncStringLike:
    """str(), ==, in, len() and the str methods most used, on the whole text.

    Each of them waits for the process to end.
    """

    def text(self) -> str:
        """Returns the whole text, once the process has ended."""
        raise NotImplementedError

    def __str__(self) -> str:
        return self.text()

    def __contains__(self, part: object) -> bool:
        return isinstance(part, str) and part in self.text()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            return self.text() == other
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __len__(self) -> int:
        return len(self.text())

    def __bool__(self) -> bool:
        return bool(self.text())

    def strip(self, chars: str | None = None) -> str:
        """Returns text().strip(chars)."""
        return self.text().strip(chars)

    def split(self, sep: str | None = None, maxsplit: int = -1) -> list[str]:
        """Returns text().split(sep, maxsplit)."""
        return self.text().split(sep, maxsplit)

    def splitlines(self, keepends: bool = False) -> list[str]:
        """Returns text().splitlines(keepends)."""
        return self.text().splitlines(keepends)

    def startswith(self, prefix: str | tuple[str, ...]) -> bool:
        """Returns text().startswith(prefix)."""
        return self.text().startswith(prefix)

    def endswith(self, suffix: str | tuple[str, ...]) -> bool:
        """Returns text().endswith(suffix)."""
        return self.text().endswith(suffix)

    def __format__(self, spec: str) -> str:
        return format(self.text(), spec)

    def __add__(self, other: str) -> str:
        return self.text() + other

    def __radd__(self, other: str) -> str:
        return other + self.text()


class SyncResultLike(SyncStringLike):
    """A string-like result whose truth is success and whose items are lines."""

    def wait(self) -> bool:
        """Waits for the command; returns whether it succeeded."""
        raise NotImplementedError

    def __bool__(self) -> bool:
        return self.wait()

    def __iter__(self) -> Iterator[str]:
        return iter(self.text().splitlines())


class AsyncResultLike(AsyncStringLike):
    """Nothing: in asynchronous code use ``await result.wait()`` and ``lines()``."""
