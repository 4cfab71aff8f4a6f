"""Server-sent events, read from bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

MAX_EVENT = 4 << 20
"""Bytes of one line of an event, at most."""


@dataclass(frozen=True)
class Event:
    """One event: its name and its data, which is JSON in this API."""

    name: str
    data: dict[str, Any]


class Parser:
    """Turns chunks of a text/event-stream into events."""

    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[Event]:
        """Returns the events that chunk completes."""
        events = []
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > MAX_EVENT:
            raise ValueError(f"a server-sent event is larger than {MAX_EVENT} bytes")
        for line in lines:
            event = self._line(line.rstrip(b"\r"))
            if event is not None:
                events.append(event)
        return events

    def _line(self, line: bytes) -> Event | None:
        if not line:
            name, data = self._name or "message", b"\n".join(self._data)
            self._name, self._data = "", []
            return Event(name, _object(data)) if data else None
        key, _, value = line.partition(b":")
        value = value[1:] if value.startswith(b" ") else value
        if key == b"event":
            self._name = value.decode()
        elif key == b"data":
            self._data.append(value)
        return None


def _object(data: bytes) -> dict[str, Any]:
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError("the data of a server-sent event is no JSON object")
    return value
