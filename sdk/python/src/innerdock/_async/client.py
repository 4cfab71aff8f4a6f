"""Where the server is, and what can be asked of it as a whole."""

from __future__ import annotations

import ssl
import threading
from types import TracebackType
from typing import Any
from urllib.parse import quote
from weakref import WeakKeyDictionary

from .._config import resolve
from .._local import async_scope
from .._models import BuiltImage, SandboxInfo, ServerVersion
from .transport import Transport


class Client:
    """A connection to an innerdock server; used by everything that takes ``client=``.

    host (str):
        ``unix:///path``, ``http://host:port`` or ``https://host:port``. Default:
        the environment's INNERDOCK_HOST, else unix:///run/innerdock/innerdock.sock.
    api_key (str):
        For servers over TCP. Default: the environment's INNERDOCK_API_KEY.
    timeout (float):
        Seconds that the server may be silent while it answers.
    verify (bool, str or ssl.SSLContext):
        How the server's certificate is checked; a str is a file of authorities.
    """

    def __init__(
        self,
        host: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 60.0,
        verify: bool | str | ssl.SSLContext = True,
    ) -> None:
        address, key = resolve(host, api_key)
        self.transport = Transport(address, key, timeout, verify)

    @property
    def host(self) -> str:
        """The server's address."""
        return self.transport.address.host

    async def version(self) -> ServerVersion:
        """Returns the server's versions."""
        return ServerVersion.from_json(await self.transport.json("GET", "/v1/version"))

    async def images(self) -> list[BuiltImage]:
        """Returns the images in the server's store."""
        data = await self.transport.json("GET", "/v1/images")
        return [BuiltImage.from_json(item) for item in data["images"] or ()]

    async def image(self, image_id: str) -> BuiltImage:
        """Returns an image of the server's store."""
        return BuiltImage.from_json(await self.transport.json("GET", _image(image_id)))

    async def delete_image(self, image_id: str) -> None:
        """Deletes an image from the server's store."""
        await self.transport.request("DELETE", _image(image_id))

    async def sandboxes(self, all: bool = False) -> list[SandboxInfo]:
        """Returns the live sandboxes; with all=True those that have ended too."""
        params = {"all": "true"} if all else None
        data = await self.transport.json("GET", "/v1/sandboxes", params=params)
        return [SandboxInfo.from_json(item) for item in data["sandboxes"] or ()]

    async def close(self) -> None:
        """Closes the connections."""
        await self.transport.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"Client({self.host!r})"


def _image(image_id: str) -> str:
    return f"/v1/images/{quote(image_id, safe='')}"


_defaults: WeakKeyDictionary[Any, dict[tuple[str, str], Client]] = WeakKeyDictionary()
_lock = threading.Lock()


def default_client() -> Client:
    """Returns the client of the environment, shared so that connections are re-used."""
    address, key = resolve(None, None)
    with _lock:
        clients = _defaults.setdefault(async_scope(), {})
        found = clients.get((address.host, key))
        if found is None:
            found = clients[address.host, key] = Client(address.host, key)
        return found
