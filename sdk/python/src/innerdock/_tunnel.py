"""Ways from programs of this machine to a sandbox's Docker and its published ports.

A server on this machine has a Unix socket for each sandbox's Docker. For any other
one a thread of this process forwards, with an event loop of its own: the same for
synchronous and asynchronous programs.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import hashlib
import json
import logging
import os
import select
import shutil
import ssl
import tempfile
import threading
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from ._config import Address
from ._errors import (
    ConnectionLostError,
    InnerdockError,
    ServerNotRunningError,
    UnavailableError,
    error_from,
)

PROTOCOL = "innerdock-tunnel/1"
CHUNK = 64 << 10
"""Bytes that are read and sent at a time."""
MAX_FRAME = 1 << 20
MAX_HEAD = 64 << 10
MAX_NEWS = 1 << 20
"""Bytes of one list of published ports: it comes from inside a sandbox."""
MAX_PORTS = 512
FIRST_NEWS = 10.0
"""Seconds that a Docker client waits until the published ports are followed."""
UPGRADE_TIMEOUT = 60.0
HANGUP_PACE = 1.0

_log = logging.getLogger("innerdock")


@dataclass(frozen=True)
class Server:
    """What is needed to connect to a server."""

    address: Address
    api_key: str
    verify: bool | str | ssl.SSLContext

    async def connect(self, path: str) -> Tunnel:
        """Asks for a tunnel; raises an InnerdockError where there is none."""
        try:
            return await asyncio.wait_for(self._connect(path), UPGRADE_TIMEOUT)
        except asyncio.TimeoutError as cause:
            raise ConnectionLostError(f"{self.address.host} does not answer") from cause
        except (OSError, EOFError, asyncio.LimitOverrunError) as cause:
            raise ServerNotRunningError(
                f"{self.address.host} cannot be reached: {cause}"
            ) from cause

    async def _connect(self, path: str) -> Tunnel:
        url = urlsplit(self.address.base_url)
        if self.address.uds:
            reader, writer = await asyncio.open_unix_connection(self.address.uds, limit=2 * CHUNK)
        else:
            secure = self._context() if url.scheme == "https" else None
            port = url.port or (443 if secure else 80)
            reader, writer = await asyncio.open_connection(
                url.hostname, port, ssl=secure, limit=2 * CHUNK
            )
        try:
            lines = [
                f"GET {url.path}{path} HTTP/1.1",
                f"Host: {url.netloc}",
                "Connection: Upgrade",
                f"Upgrade: {PROTOCOL}",
            ]
            if self.api_key:
                lines.append(f"Authorization: Bearer {self.api_key}")
            writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
            await writer.drain()
            await _accepted(reader)
        except BaseException:
            writer.close()
            raise
        return Tunnel(reader, writer)

    def _context(self) -> ssl.SSLContext:
        if isinstance(self.verify, ssl.SSLContext):
            return self.verify
        if isinstance(self.verify, str):
            return ssl.create_default_context(cafile=self.verify)
        return httpx.create_ssl_context(verify=self.verify)


async def _accepted(reader: asyncio.StreamReader) -> None:
    """Reads the answer; raises the error in it if it is no tunnel."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status, *headers = head.split("\r\n")
    code = int(status.split()[1])
    if code == 101:
        return
    length = 0
    for header in headers:
        name, _, value = header.partition(":")
        if name.lower() == "content-length" and value.strip().isdigit():
            length = min(int(value), MAX_HEAD)
    try:
        body = json.loads(await reader.readexactly(length))
    except ValueError:
        body = {}
    raise error_from(body if isinstance(body, dict) else {}, code)


class Tunnel:
    """One end of a tunnel: frames of a length and as many bytes; a length of 0 is the end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> AsyncIterator[bytes]:
        """Yields what comes until the other side ends its direction; EOFError if it is cut off."""
        while True:
            left = int.from_bytes(await self._reader.readexactly(4), "big")
            if left == 0:
                return
            if left > MAX_FRAME:
                raise EOFError("a frame of the tunnel is too long")
            while left:
                data = await self._reader.read(min(left, CHUNK))
                if not data:
                    raise EOFError("the tunnel was cut off")
                left -= len(data)
                yield data

    async def write(self, data: bytes) -> None:
        """Sends bytes, CHUNK at the most; none of them end this direction."""
        self._writer.write(len(data).to_bytes(4, "big") + data)
        await self._writer.drain()

    def close(self) -> None:
        """Closes both directions."""
        self._writer.close()


async def _join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tunnel: Tunnel) -> None:
    """Passes bytes in both directions until both have ended or one is cut off."""

    async def outwards() -> None:
        while data := await reader.read(CHUNK):
            await tunnel.write(data)
        await tunnel.write(b"")

    async def inwards() -> None:
        async for data in tunnel.read():
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    both: asyncio.Future[Any] = asyncio.gather(outwards(), inwards())
    watch: asyncio.Future[Any] = asyncio.ensure_future(_hung_up(reader, writer))
    try:
        await asyncio.wait([both, watch], return_when=asyncio.FIRST_COMPLETED)
    finally:
        both.cancel()
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError, EOFError):
            await both
        tunnel.close()


async def _hung_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Returns when a client that has ended its direction is gone altogether."""
    poll = select.poll()
    poll.register(writer.get_extra_info("socket").fileno(), 0)
    while True:
        await asyncio.sleep(HANGUP_PACE)  # there is no event for it
        if reader.at_eof() and any(event & select.POLLHUP for _, event in poll.poll(0)):
            return


async def _refuse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, error: InnerdockError
) -> None:
    """Tells a Docker client why there is no Docker, as the Docker API tells errors."""
    with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError):
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"message": f"innerdock: {error}"}).encode()
        head = (
            "HTTP/1.1 502 Bad Gateway\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()


def loopback(sandbox_id: str) -> str:
    """Returns the address of this machine's loopback network that is a sandbox's own."""
    digest = hashlib.sha256(sandbox_id.encode()).digest()
    return f"127.{1 + digest[0] % 254}.{digest[1]}.{1 + digest[2] % 254}"


class Forwarder:
    """Forwards a sandbox's Docker and its published ports, in a thread, until close()."""

    def __init__(self, server: Server, sandbox_id: str) -> None:
        self._server = server
        self._base = f"/v1/sandboxes/{quote(sandbox_id, safe='')}"
        self.address = loopback(sandbox_id)
        self._directory = tempfile.mkdtemp(prefix="innerdock-")
        self.socket = os.path.join(self._directory, "docker.sock")
        self._ports: dict[int, asyncio.AbstractServer] = {}
        self._told: set[str] = set()
        self._running: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="innerdock-tunnel", daemon=True)
        self._thread.start()
        try:
            self._running.result()
        except BaseException:
            self.close()
            raise
        atexit.register(self.close)

    def close(self) -> None:
        """Ends the forwarding and every connection. Once is enough."""
        atexit.unregister(self.close)
        with contextlib.suppress(AttributeError, RuntimeError):  # it has not begun, or has ended
            self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if not self._running.done():
                self._running.set_exception(error)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(lambda _, context: _log.debug("%s", context))
        self._end = asyncio.Event()
        self._news = asyncio.Event()
        server = await asyncio.start_unix_server(self._docker, self.socket, limit=2 * CHUNK)
        following = asyncio.ensure_future(self._follow())
        self._running.set_result(None)
        await self._end.wait()
        following.cancel()
        for listening in (server, *self._ports.values()):
            listening.close()

    async def _docker(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(asyncio.TimeoutError):  # the ports come later, then
                await asyncio.wait_for(self._news.wait(), FIRST_NEWS)
            tunnel = await self._server.connect(f"{self._base}/docker/connect")
            await _join(reader, writer, tunnel)
        except InnerdockError as error:
            await _refuse(reader, writer, error)
        finally:
            writer.close()

    async def _port(
        self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            tunnel = await self._server.connect(f"{self._base}/ports/{port}/connect")
            await _join(reader, writer, tunnel)
        except InnerdockError as error:
            _log.debug("port %d: %s", port, error)
        finally:
            writer.close()

    async def _follow(self) -> None:
        """Listens for what is published, across restarts of the server."""
        pause = 0.1
        while True:
            try:
                async for ports, udp in self._published():
                    await self._listen(ports, udp)
                    self._news.set()
                    pause = 0.1
            except UnavailableError:
                pass
            except InnerdockError as error:
                self._news.set()  # those who connect are told
                _log.debug("published ports are no longer followed: %s", error)
                return
            except (OSError, EOFError):
                pass
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5.0)

    async def _published(self) -> AsyncIterator[tuple[list[int], list[int]]]:
        """Yields the published TCP and UDP ports and every change, and acknowledges each."""
        tunnel = await self._server.connect(f"{self._base}/docker/ports")
        try:
            text = b""
            async for data in tunnel.read():
                *lines, text = (text + data).split(b"\n")
                if len(text) > MAX_NEWS:
                    raise EOFError("a list of published ports is too long")
                for line in lines:
                    version, ports, udp = _news(line)
                    yield ports, udp
                    await tunnel.write(json.dumps({"version": version}).encode() + b"\n")
        finally:
            tunnel.close()

    async def _listen(self, ports: list[int], udp: list[int]) -> None:
        for port in set(self._ports) - set(ports):
            self._ports.pop(port).close()
        self._told &= {f"{port}/tcp" for port in ports} | {f"{port}/udp" for port in udp}
        for port in udp:
            self._tell(f"{port}/udp", "only TCP is; it is reached on the sandbox's own address")
        for port in ports:
            if port in self._ports:
                continue
            try:
                self._ports[port] = await asyncio.start_server(
                    _serving(self._port, port), self.address, port, limit=2 * CHUNK
                )
            except OSError as error:
                self._tell(f"{port}/tcp", error)

    def _tell(self, port: str, why: object) -> None:
        """Warns of a port that is not forwarded, once as long as it is published."""
        if port not in self._told:
            self._told.add(port)
            _log.warning("port %s of the sandbox is not forwarded: %s", port, why)


def _serving(serve: Any, port: int) -> Any:
    def connected(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Coroutine[Any, Any, None]:
        coroutine: Coroutine[Any, Any, None] = serve(port, reader, writer)
        return coroutine

    return connected


def _news(line: bytes) -> tuple[int, list[int], list[int]]:
    """Reads one line of news, which comes from inside a sandbox."""
    try:
        news = json.loads(line)
        version = int(news["version"])
        ports, udp = (list(news.get(kind) or ()) for kind in ("ports", "udp"))
    except (ValueError, TypeError, KeyError, AttributeError) as cause:
        raise EOFError("a list of published ports cannot be read") from cause
    return version, _known(ports), _known(udp)


def _known(ports: list[object]) -> list[int]:
    known = [port for port in ports if type(port) is int and 0 < port < 65536]
    return known[:MAX_PORTS]


class Endpoint:
    """Where programs of this machine reach one sandbox's Docker."""

    def __init__(self, server: Server, sandbox_id: str, address: str) -> None:
        self._server = server
        self._id = sandbox_id
        self._address = address
        self._lock = threading.Lock()
        self._forwarder: Forwarder | None = None

    @property
    def host(self) -> str:
        """What DOCKER_HOST is to be."""
        return f"unix://{self._local() or self._forwarded().socket}"

    @property
    def publish_address(self) -> str:
        """Where published ports are reached."""
        return self._address if self._local() else self._forwarded().address

    def close(self) -> None:
        """Ends the forwarding, if there is any."""
        with self._lock:
            forwarder, self._forwarder = self._forwarder, None
        if forwarder is not None:
            forwarder.close()

    def _local(self) -> str | None:
        """Returns the server's own socket for this sandbox, if this machine has it."""
        if not self._server.address.uds:
            return None
        path = Path(self._server.address.uds).parent / "docker" / f"{self._id}.sock"
        return str(path) if path.is_socket() else None

    def _forwarded(self) -> Forwarder:
        with self._lock:
            if self._forwarder is None:
                self._forwarder = Forwarder(self._server, self._id)
            return self._forwarder
