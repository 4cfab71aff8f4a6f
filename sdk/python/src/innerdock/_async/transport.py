"""Requests to the server: one connection pool, typed errors, careful repetition."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from json import loads
from typing import Any, NamedTuple

import httpx

from .._config import Address
from .._errors import (
    ConnectionLostError,
    InnerdockError,
    InnerdockTimeoutError,
    ServerError,
    ServerNotRunningError,
    UnavailableError,
    error_from,
)
from .._sse import Event, Parser
from .._tunnel import Server
from .._version import __version__

CONNECT_TIMEOUT = 5.0
POLL = 30.0
"""Seconds that one long poll asks the server to wait, at most."""
RETRY_DELAYS = (0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds before each repetition: enough for a server that restarts."""
MAX_ANSWER = 64 << 20
"""Bytes of an answer that is kept in memory, unless a caller wants more."""
IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE"})
REQUEST_ID = "Innerdock-Request-Id"
"""The header that names a request; the sandboxes that it made say it as request_id."""


class Answer(NamedTuple):
    """A successful answer of the server."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.content.decode("utf-8", "replace")


class Transport:
    """Sends requests to one server. Safe to share between threads (its tasks, in asyncio)."""

    def __init__(
        self, address: Address, api_key: str, timeout: float, verify: bool | str | ssl.SSLContext
    ) -> None:
        self.address = address
        self.server = Server(address, api_key, verify)
        self.timeout = timeout
        self._answered = False
        if isinstance(verify, str):
            verify = ssl.create_default_context(cafile=verify)
        limits = httpx.Limits(
            max_connections=256, max_keepalive_connections=32, keepalive_expiry=60
        )
        headers = {"User-Agent": f"innerdock-python/{__version__}"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        self._http = httpx.AsyncClient(
            base_url=address.base_url,
            headers=headers,
            timeout=self._timeouts(timeout),
            limits=limits,
            verify=verify,
            trust_env=not address.loopback,
            transport=(
                httpx.AsyncHTTPTransport(uds=address.uds, limits=limits) if address.uds else None
            ),
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        content: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        limit: int | None = MAX_ANSWER,
    ) -> Answer:
        """Sends a request and returns its successful answer.

        timeout is how long, in seconds, the server may be silent, limit how many
        bytes it may answer. Requests that change nothing when they come twice are
        repeated when the connection breaks or the server is starting; all of them
        when nothing was sent yet to a server that has answered before.
        """
        replayable = content is None or isinstance(content, bytes)
        delays = iter(RETRY_DELAYS)
        while True:
            try:
                async with self.stream(
                    method,
                    path,
                    params=params,
                    json=json,
                    content=content,
                    headers=headers,
                    timeout=timeout,
                ) as response:
                    body = await _body(response, limit)
                    return Answer(response.status_code, response.headers, body)
            except InnerdockError as error:
                delay = next(delays, None)
                if delay is None or not replayable or not self._may_repeat(error, method):
                    raise
            await asyncio.sleep(delay)

    async def json(self, method: str, path: str, **rest: Any) -> Any:
        """Sends a request and returns its answer's JSON."""
        answer = await self.request(method, path, **rest)
        try:
            return loads(answer.content)
        except ValueError as cause:
            raise _unreadable(cause) from cause

    async def make(self, path: str, *, json: Any, timeout: float) -> Any:
        """Sends a request that makes sandboxes, and returns its answer's JSON.

        The server ends those of a client that has left. When this is given up (an
        interrupt, a cancellation, the timeout) while the answer is on its way, the
        server cannot know, and they are ended from here.
        """
        request_id = secrets.token_hex(8)
        try:
            return await self.json(
                "POST", path, json=json, headers={REQUEST_ID: request_id}, timeout=timeout
            )
        except BaseException as error:
            if isinstance(error, InnerdockTimeoutError) or not isinstance(error, Exception):
                with suppress(InnerdockError):
                    await self._unmake(request_id)
            raise

    async def _unmake(self, request_id: str) -> None:
        made = await self.json("GET", "/v1/sandboxes")
        for sandbox in made["sandboxes"]:
            if sandbox.get("request_id") == request_id:
                await self.request("DELETE", f"/v1/sandboxes/{sandbox['id']}", params={"grace": 0})

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        content: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """Sends a request and gives its successful answer, with the body unread."""
        try:
            async with self._http.stream(
                method,
                path,
                params=params,
                json=json,
                content=content,
                headers=headers,
                timeout=self._timeouts(timeout),
            ) as response:
                self._answered = True
                if not response.is_success:
                    raise _error_of(response.status_code, await _body(response, MAX_ANSWER))
                yield response
        except httpx.TransportError as cause:
            error = self._translate(cause, timeout)
            raise error from _origin(error, cause)

    async def events(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        content: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[Event, None]:
        """Sends a request and yields the server-sent events of its answer."""
        parser = Parser()
        async with self.stream(
            method,
            path,
            params=params,
            json=json,
            content=content,
            headers={**(headers or {}), "Accept": "text/event-stream"},
            timeout=timeout,
        ) as response:
            async for chunk in response.aiter_bytes():
                try:
                    events = parser.feed(chunk)
                except ValueError as cause:
                    raise _unreadable(cause) from cause
                for event in events:
                    yield event

    def _timeouts(self, timeout: float | None) -> httpx.Timeout:
        silence = self.timeout if timeout is None else timeout
        return httpx.Timeout(silence, connect=CONNECT_TIMEOUT)

    def _may_repeat(self, error: InnerdockError, method: str) -> bool:
        if isinstance(error, ServerNotRunningError):
            return self._answered
        return isinstance(error, UnavailableError) and method in IDEMPOTENT

    def _translate(self, cause: httpx.TransportError, timeout: float | None) -> InnerdockError:
        host = self.address.host
        if isinstance(cause, (httpx.ConnectError, httpx.ConnectTimeout)):
            return ServerNotRunningError(_how_to_start(host, cause))
        if isinstance(cause, httpx.TimeoutException):
            silence = self.timeout if timeout is None else timeout
            return InnerdockTimeoutError(f"no answer from {host} within {silence:g} s")
        if isinstance(cause, httpx.UnsupportedProtocol):
            return InnerdockError(str(cause), code="invalid")
        said = str(cause) or type(cause).__name__
        return ConnectionLostError(
            f"the connection to {host} broke before the answer was complete ({said}); "
            "the server's log has the cause"
        )


def _origin(error: InnerdockError, cause: Exception) -> Exception | None:
    """Returns the cause, unless the message says it all."""
    return None if isinstance(error, ServerNotRunningError) else cause


def _how_to_start(host: str, cause: Exception) -> str:
    reason = str(cause) or type(cause).__name__
    root: BaseException | None = cause
    while root is not None:
        if isinstance(root, PermissionError):
            return (
                f"may not open {host}: permission denied. The socket belongs to the server's "
                "administrator: use sudo, or set INNERDOCK_HOST and INNERDOCK_API_KEY "
                "(`innerdock key create`)"
            )
        if isinstance(root, OSError) and root.strerror:
            reason = root.strerror
        root = root.__cause__ or root.__context__
    return (
        f"no innerdock server answers at {host} ({reason}). Start it with `innerdock server` "
        "(or `make up` in a checkout), or set INNERDOCK_HOST to where one runs"
    )


async def _body(response: httpx.Response, limit: int | None) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if limit is not None and len(body) > limit:
            raise ServerError(f"the server's answer is larger than {limit} bytes")
    return bytes(body)


def _unreadable(cause: ValueError) -> ServerError:
    return ServerError(f"the server's answer cannot be read: {cause}")


def _error_of(status: int, content: bytes) -> InnerdockError:
    try:
        body = loads(content)
    except ValueError:
        body = {}
    if not isinstance(body, dict):
        body = {}
    if not body.get("message") and not body.get("detail") and content:
        body["message"] = content.decode("utf-8", "replace").strip()[:500]
    return error_from(body, status)
