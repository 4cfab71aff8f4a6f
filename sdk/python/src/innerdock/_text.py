"""Bytes of a process as text: decoding, lines, and what was dropped."""

from __future__ import annotations

import codecs

MAX_LINE = 1 << 20
"""Characters of a line, at most; a longer one is handed out in pieces."""


def dropped_marker(count: int) -> str:
    """Returns the text that stands where count bytes were dropped."""
    return f"\n[innerdock: {count} bytes dropped]\n"


class Decoder:
    """Decodes UTF-8 that arrives in pieces; what is not UTF-8 becomes U+FFFD."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, data: bytes, final: bool = False) -> str:
        """Returns the text that data completes; with final, all of it."""
        return self._decoder.decode(data, final)

    def dropped(self, count: int) -> str:
        """Returns what stands between two pieces when count bytes are missing."""
        return self.feed(b"", final=True) + dropped_marker(count)


class Lines:
    """Cuts text that arrives in pieces into lines, which keep their newline."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0

    def feed(self, text: str) -> list[str]:
        """Returns the lines that text completes."""
        lines = []
        *complete, rest = text.split("\n")
        for line in complete:
            lines.append("".join((*self._parts, line, "\n")))
            self._parts, self._length = [], 0
        if rest:
            self._parts.append(rest)
            self._length += len(rest)
        return lines + self.flush() if self._length > MAX_LINE else lines

    def flush(self) -> list[str]:
        """Returns the last line, if it had no newline."""
        last, self._parts, self._length = "".join(self._parts), [], 0
        return [last] if last else []
