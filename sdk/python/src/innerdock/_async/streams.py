"""The output and the input of a process."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from .._errors import ConnectionLostError, InnerdockError, UnavailableError
from .._local import AsyncInterrupt
from .._models import ProcessInfo
from .._strings import AsyncStringLike
from .._text import Decoder, Lines, dropped_marker
from .transport import POLL, RETRY_DELAYS, Transport

MAX_OUTPUT = 16 << 20
"""Bytes of one answer, at most: twice what the server keeps."""
INTERRUPT_GRACE = 5.0
"""Seconds that an interrupted command has to end by itself."""
END = 1 << 62
"""An offset past everything: of a stream that is not wanted."""


class ProcessState:
    """What is known about a process, kept up to date by everything that asks."""

    def __init__(self, transport: Transport, path: str, info: ProcessInfo) -> None:
        self.transport = transport
        self.path = path
        self.info = info
        self.owned = False
        """Whether who waits for it wants it to end with the wait: Ctrl-C, cancellation."""

    @property
    def exited(self) -> bool:
        """Whether the process is known to have exited."""
        return self.info.state == "exited"

    async def refresh(self, wait: float = 0) -> ProcessInfo:
        """Asks how the process is; waits up to so many seconds for its end."""
        params = {"wait": f"{wait:g}"} if wait else None
        try:
            data = await self.transport.json("GET", self.path, params=params, timeout=wait + POLL)
        except AsyncInterrupt:
            await self.interrupt()
            raise
        self.info = ProcessInfo.from_json(data)
        return self.info

    async def signal(self, name: str) -> None:
        """Sends a signal to the process and its group."""
        await self.transport.request("POST", f"{self.path}/signal", json={"signal": name})

    async def interrupt(self) -> None:
        """Ends an owned process as Ctrl-C does, and by force if that takes too long."""
        if not self.owned or self.exited:
            return
        self.owned = False
        try:
            await self.signal("SIGINT")
            if (await self.refresh(INTERRUPT_GRACE)).state != "exited":
                await self.signal("SIGKILL")
        except InnerdockError:
            pass  # it has ended, or what interrupted is what the caller must hear of

    async def join(self) -> None:
        """Waits for the end of the process."""
        while not self.exited:
            await self.refresh(POLL)


class OutputStream(AsyncStringLike):
    """Standard output or standard error of a process.

    ``read()`` returns what is there now and consumes it (of a docker command:
    waits for its end first); iteration yields lines as they come, to the end. The
    server keeps the last 8 MiB of a stream: a reader that comes too late finds
    ``[innerdock: N bytes dropped]`` in the text.
    """

    def __init__(self, process: ProcessState, name: str) -> None:
        self._process = process
        self._name = name
        self._waits = False
        self._offset = 0
        self._dropped = 0
        self._decoder = Decoder()
        self._text: str | None = None

    @property
    def dropped(self) -> int:
        """Bytes that were dropped before they could be read."""
        return self._dropped

    async def read(self) -> str:
        """Returns the text that is there now, and consumes it."""
        exited = self._process.exited or self._waits
        missing, data = await self._consume()
        text = self._decoder.dropped(missing) if missing else ""
        return text + self._decoder.feed(data, final=exited)

    async def read_bytes(self) -> bytes:
        """Returns the bytes that are there now, and consumes them; see dropped."""
        _, data = await self._consume()
        return data

    async def text(self) -> str:
        """Waits for the process to end and returns the whole text, consuming nothing."""
        if self._text is None:
            await self._process.join()
            missing, data = await self._fetch(0)
            self._text = (dropped_marker(missing) if missing else "") + data.decode(
                "utf-8", "replace"
            )
        return self._text

    async def __aiter__(self) -> AsyncIterator[str]:
        lines = Lines()
        async for _, text in follow(self._process, [self]):
            for line in lines.feed(text):
                yield line
        for line in lines.flush():
            yield line

    def __repr__(self) -> str:
        return f"OutputStream({self._name} of process {self._process.info.pid})"

    async def _consume(self) -> tuple[int, bytes]:
        if self._waits:
            await self._process.join()
        missing, data = await self._fetch(self._offset)
        self._offset += missing + len(data)
        self._dropped += missing
        return missing, data

    async def _fetch(self, offset: int) -> tuple[int, bytes]:
        """Returns how many bytes from offset on are lost, and those after them."""
        response = await self._process.transport.request(
            "GET",
            f"{self._process.path}/{self._name}",
            params={"offset": offset},
            limit=MAX_OUTPUT,
        )
        first = int(response.headers.get("Innerdock-Offset", offset))
        return max(0, first - offset), response.content

    def _take(self, event: dict[str, Any]) -> str:
        """Returns the text of an event with data, or of one that tells a loss."""
        offset = int(event.get("offset") or 0)
        missing = max(0, offset - self._offset)
        if "dropped" in event:
            missing += int(event["dropped"])
        data = base64.b64decode(event.get("data") or "")
        data = data[max(0, self._offset - offset) :]
        self._offset += missing + len(data)
        self._dropped += missing
        text = self._decoder.dropped(missing) if missing else ""
        return text + self._decoder.feed(data)


class CombinedOutput:
    """Both outputs of a process. It shares its position with stdout and stderr."""

    def __init__(self, process: ProcessState, stdout: OutputStream, stderr: OutputStream) -> None:
        self._process = process
        self._streams = [stdout, stderr]

    async def read(self) -> str:
        """Returns what both have now, standard output first, and consumes it."""
        return "".join([await stream.read() for stream in self._streams])

    async def __aiter__(self) -> AsyncIterator[str]:
        lines = [Lines(), Lines()]
        async for index, text in follow(self._process, self._streams):
            for line in lines[index].feed(text):
                yield line
        for rest in lines:
            for line in rest.flush():
                yield line


class InputStream:
    """Standard input of a process that was started with ``stdin=True``."""

    def __init__(self, process: ProcessState) -> None:
        self._process = process

    async def write(self, data: str | bytes) -> None:
        """Writes data; text as UTF-8."""
        await self._send(data, close=False)

    async def close(self) -> None:
        """Ends the input: the process reads its end."""
        await self._send(b"", close=True)

    async def _send(self, data: str | bytes, close: bool) -> None:
        await self._process.transport.request(
            "POST",
            f"{self._process.path}/stdin",
            params={"close": "true"} if close else None,
            content=data.encode() if isinstance(data, str) else data,
            headers={"Content-Type": "application/octet-stream"},
        )


async def follow(
    process: ProcessState, streams: list[OutputStream]
) -> AsyncGenerator[tuple[int, str], None]:
    """Yields (index of the stream, text) as it arrives, to the end of the process.

    Goes on where it was when the connection breaks.
    """
    if process.exited:
        for index, stream in enumerate(streams):
            yield index, await stream.read()
        return
    by_name = {stream._name: index for index, stream in enumerate(streams)}
    delays = iter(RETRY_DELAYS)
    while True:
        offsets = {
            f"{name}_offset": streams[by_name[name]]._offset if name in by_name else END
            for name in ("stdout", "stderr")
        }
        events = process.transport.events("GET", f"{process.path}/output", params=offsets)
        try:
            async for event in events:
                delays = iter(RETRY_DELAYS)
                if event.name == "exit":
                    process.info = ProcessInfo.from_json(event.data["process"])
                    break
                name = event.data.get("stream") if event.name == "dropped" else event.name
                if name in by_name:
                    index = by_name[name]
                    yield index, streams[index]._take(event.data)
        except UnavailableError:
            pass
        except AsyncInterrupt:
            await process.interrupt()
            raise
        finally:
            await events.aclose()
        if process.exited:
            break
        delay = next(delays, None)
        if delay is None:
            raise ConnectionLostError(
                f"the output of process {process.info.pid} broke off; the server's log has the "
                "cause"
            )
        await asyncio.sleep(delay)
    for index, stream in enumerate(streams):
        yield index, stream._decoder.feed(b"", final=True)
