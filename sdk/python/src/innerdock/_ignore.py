"""Which files `.dockerignore` leaves out, as Docker decides it."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

from ._errors import InvalidRequestError

_WILD = re.compile(r"[*?\[\]\\]")


class Ignore:
    """Patterns, of which the last that matches a file or a directory above it decides."""

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self._rules: list[tuple[bool, re.Pattern[str]]] = []
        for pattern in patterns:
            keep = pattern.startswith("!")
            cleaned = _clean(pattern[1:] if keep else pattern)
            if not cleaned:
                raise InvalidRequestError(
                    f"{pattern!r} is no pattern of .dockerignore: a file name belongs there"
                )
            if cleaned != ".":  # Docker ignores it
                self._rules.append((keep, _compile(cleaned)))
        self.keeps = any(keep for keep, _ in self._rules)
        """Whether something in a directory that is left out may be kept."""

    @classmethod
    def from_text(cls, text: str, more: Iterable[str] = ()) -> Ignore:
        """Reads a `.dockerignore`; more patterns come after its own."""
        lines = text.removeprefix("\ufeff").splitlines()
        patterns = [line.strip() for line in lines if not line.startswith("#")]
        return cls([*filter(None, patterns), *more])

    def __call__(self, path: str) -> bool:
        """Returns whether a path, relative and with slashes, is left out."""
        parts = path.split("/")
        paths = ["/".join(parts[:end]) for end in range(len(parts), 0, -1)]
        out = False
        for keep, pattern in self._rules:
            if keep == out and any(map(pattern.fullmatch, paths)):
                out = not keep
        return out


def _clean(pattern: str) -> str:
    pattern = pattern.strip()
    return posixpath.normpath(pattern).lstrip("/") or "/" if pattern else ""


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(_translate(pattern), re.DOTALL)
    except re.error as cause:
        raise InvalidRequestError(
            f"{pattern!r} is no pattern of .dockerignore: {cause.msg}"
        ) from cause


def _translate(pattern: str) -> str:
    """Returns a pattern as a regular expression."""
    if pattern.startswith("**") and not _WILD.search(pattern[2:]) and pattern[2:3] != "/":
        return ".*" + re.escape(pattern[2:])  # "**.go" is any name with that end
    out, at, in_set = "", 0, False
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "\\":
            out += re.escape(pattern[at : at + 1] or char)
            at += 1
        elif in_set:
            in_set = char != "]"
            out += "\\" + char if char in "[&~|" else char
        elif pattern.startswith("**", at - 1):
            at += 2 if pattern.startswith("/", at + 1) else 1
            out += ".*" if at >= len(pattern) else "(.*/)?"
        elif char == "*":
            out += "[^/]*"
        elif char == "?":
            out += "[^/]"
        elif char == "[":
            in_set = True
            out += char
        else:
            out += re.escape(char)
    return out
