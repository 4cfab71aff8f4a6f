"""Where the server is, and what can be asked of it as a whole."""

from __future__ import annotations

import os
import ssl
import threading
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote
from weakref import WeakKeyDictionary

from .._config import resolve
from .._local import CHUNK, AsyncReader, AsyncWriter, async_scope
from .._models import (
    BuiltImage,
    PoolInfo,
    SandboxInfo,
    ServerVersion,
    SnapshotInfo,
    TemplateInfo,
)
from .transport import Transport

SNAPSHOT_TIMEOUT = 660.0
"""Seconds for the writing of a sandbox to the server's disk."""


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

    async def snapshots(self) -> list[SnapshotInfo]:
        """Returns the snapshots, the newest first."""
        data = await self.transport.json("GET", "/v1/snapshots")
        return [SnapshotInfo.from_json(item) for item in data["snapshots"] or ()]

    async def delete_snapshot(self, snapshot: str) -> None:
        """Deletes a snapshot by its ID. What was started from it goes on."""
        await self.transport.request("DELETE", f"/v1/snapshots/{quote(snapshot, safe='')}")

    async def create_pool(
        self,
        image: str,
        size: int,
        *,
        memory: str | None = None,
        disk: str | None = None,
        docker: bool = True,
    ) -> PoolInfo:
        """Has the server keep sandboxes ready, and returns the pool.

        Whoever creates a sandbox with that image (an ID), memory ("4Gi"), disk and
        Docker gets one of them within milliseconds. For administrators.
        """
        spec = _kind(image, memory, disk) | {"size": size, "docker": {"enabled": docker}}
        return PoolInfo.from_json(await self.transport.json("POST", "/v1/pools", json=spec))

    async def pools(self) -> list[PoolInfo]:
        """Returns the pools, the oldest first. For administrators."""
        data = await self.transport.json("GET", "/v1/pools")
        return [PoolInfo.from_json(item) for item in data["pools"] or ()]

    async def delete_pool(self, pool: str) -> None:
        """Ends a pool, by its ID, and the sandboxes that wait in it."""
        await self.transport.request("DELETE", f"/v1/pools/{quote(pool, safe='')}")

    async def create_template(
        self, image: str, *, memory: str | None = None, disk: str | None = None
    ) -> TemplateInfo:
        """Makes the template of a kind of sandbox with Docker, and returns it when it is ready.

        The server makes one by itself after the first sandbox of a kind (image, an
        ID; memory; disk); with this the first starts warm too. For administrators.
        """
        spec = _kind(image, memory, disk)
        data = await self.transport.json("POST", "/v1/templates", json=spec)
        return TemplateInfo.from_json(data)

    async def templates(self) -> list[TemplateInfo]:
        """Returns the templates, the oldest first. For administrators."""
        data = await self.transport.json("GET", "/v1/templates")
        return [TemplateInfo.from_json(item) for item in data["templates"] or ()]

    async def delete_template(self, template: str) -> None:
        """Removes a template by its ID. What was started from it goes on."""
        await self.transport.request("DELETE", f"/v1/templates/{quote(template, safe='')}")

    async def export_snapshot(
        self, snapshot: str, path: str | os.PathLike[str], *, with_image: bool = True
    ) -> None:
        """Writes an archive of a snapshot to a file; complete, or not at all.

        It is for import_snapshot() on a server with the same version of innerdock, which
        must have the image where with_image=False leaves it out. It holds the memory of
        the sandbox: whoever has the file has every secret that was in there.
        """
        async with (
            self.transport.stream(
                "GET",
                f"/v1/snapshots/{quote(snapshot, safe='')}/archive",
                params={"image": "true" if with_image else "false"},
            ) as response,
            AsyncWriter(Path(path)) as file,
        ):
            async for chunk in response.aiter_bytes(CHUNK):
                await file.write(chunk)

    async def import_snapshot(self, path: str | os.PathLike[str]) -> str:
        """Makes a snapshot of an archive of export_snapshot(), and returns its ID."""
        data = await self.transport.json(
            "POST",
            "/v1/snapshots/import",
            content=AsyncReader(Path(path)),
            headers={"Content-Type": "application/x-tar"},
            timeout=SNAPSHOT_TIMEOUT,
        )
        return str(data["id"])

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


def _kind(image: str, memory: str | None, disk: str | None) -> dict[str, Any]:
    """Returns a kind of sandbox as requests name it, without what the server decides."""
    asked = {"image": image, "memory": memory, "disk": disk}
    return {name: value for name, value in asked.items() if value is not None}


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
