"""Images: a definition, and the build of it on a server."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import quote

from .._context import Packed
from .._definition import ImageDefinition
from .._errors import (
    ConnectionLostError,
    ImageBuildError,
    ImageNotFoundError,
    InnerdockError,
    InvalidRequestError,
    error_from,
)
from .._local import AsyncReader, async_pack
from .._models import BuildEvent, BuiltImage
from .._progress import Progress, reporter
from .._sse import Event
from .client import Client, default_client
from .transport import Transport

LOG_TAIL = 50
"""Lines of a failed build's log that its error carries."""


class Image(ImageDefinition):
    """The definition of an image: what a sandbox's file system begins with.

    It is immutable: every method returns a new one, so definitions can be shared
    and extended. ::

        image = (
            Image(python_version="python3.11")
            .add_python_packages(["requests"])
            .add_commands(["apt-get update && apt-get install -y git"])
            .with_docker()
        )

    python_version (str):
        The base: the official Python image of that version, or the same made
        from Debian packages where no registry can be reached.
    python_packages (list of str, or path of a requirements file):
        Packages for pip.
    commands (list of str):
        Lines for /bin/sh, run as root, after the packages.
    base_image (str):
        An image reference such as ``debian:trixie``, instead of python_version.
    base_image_creds (pair, dict, or list of str):
        The account at its registry; see from_registry().
    env_vars (dict):
        Environment of every process.
    """

    async def dockerfile(self, client: Client | None = None) -> str:
        """Returns the Dockerfile that the definition is. Nothing is built."""
        if self._id is not None:
            raise InvalidRequestError("an image made with from_id() has no definition to show")
        transport = (client or default_client()).transport
        answer = await transport.json("POST", "/v1/images/dockerfile", json=self._described())
        return str(answer["dockerfile"])

    async def exists(self, client: Client | None = None) -> bool:
        """Returns whether the server has the image already. Nothing is built."""
        transport = (client or default_client()).transport
        try:
            if self._id is not None:
                await transport.json("GET", f"/v1/images/{quote(self._id, safe='')}")
            else:
                request = self._request()
                if self._sources():
                    with (packed := await async_pack(self._sources())).file:
                        request["context"] = packed.digest
                await transport.json("POST", "/v1/images/find", json=request)
        except ImageNotFoundError:
            return False
        return True

    async def build(self, progress: Progress = None, client: Client | None = None) -> BuiltImage:
        """Builds the image on the server and returns it, with its ID.

        An image that the server has is there at once; local files are read each time,
        and sent if they made no image before. progress=True shows what
        happens on standard error (the default on a terminal, or with
        INNERDOCK_PROGRESS=1), False shows nothing; a function gets each
        BuildEvent. Raises ImageBuildError or ImageNotFoundError.
        """
        transport = (client or default_client()).transport
        host = transport.address.host
        if self._built is not None and self._built[0] == host and not self._sources():
            built: BuiltImage = self._built[1]
            return built
        if self._id is not None:
            path = f"/v1/images/{quote(self._id, safe='')}"
            built = BuiltImage.from_json(await transport.json("GET", path))
        else:
            built = await build(transport, self, progress)
        self._built = (host, built)
        return built

    def _forget(self) -> None:
        self._built = None


async def build(transport: Transport, image: ImageDefinition, progress: Progress) -> BuiltImage:
    """Has a definition built, reporting what happens."""
    report = reporter(progress)
    request, sources = image._request(), image._sources()
    if not sources:
        events = transport.events("POST", "/v1/images", json=request)
        return await _follow(events, report)
    with (packed := await async_pack(sources)).file:
        request["context"] = packed.digest
        try:
            found = await transport.json("POST", "/v1/images/find", json=request)
        except ImageNotFoundError:
            pass
        else:
            built = BuiltImage.from_json(found)
            report(BuildEvent("image", "image", _summary(built)))
            return built
        report(BuildEvent("progress", "context", f"sending {packed.size / 1e6:.1f} MB of files"))
        form = _Form(request, packed)
        events = transport.events(
            "POST", "/v1/images/build", content=form.chunks(), headers=form.headers
        )
        return await _follow(events, report)


class _Form:
    """A definition and its files as a request."""

    def __init__(self, definition: dict[str, Any], packed: Packed) -> None:
        boundary = secrets.token_hex(16)
        part = f'--{boundary}\r\nContent-Disposition: form-data; name="'
        self._files = AsyncReader(packed.path)
        self._head = (
            f'{part}definition"\r\n\r\n{json.dumps(definition)}\r\n'
            f'{part}context"; filename="context.tar"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self.headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(len(self._head) + packed.size + len(self._tail)),
        }

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yields the body."""
        yield self._head
        async for chunk in self._files:
            yield chunk
        yield self._tail


async def _follow(events: AsyncIterator[Event], report: Callable[[BuildEvent], None]) -> BuiltImage:
    """Reports the events of a build, and returns what it made."""
    log: list[str] = []
    built: BuiltImage | None = None
    failure: InnerdockError | None = None
    async for event in events:
        step, message = event.data.get("step", ""), event.data.get("message", "")
        if event.name == "image":
            built = BuiltImage.from_json(event.data["image"])
            report(BuildEvent("image", "image", _summary(built)))
            continue
        if event.name == "error":
            failure = error_from(event.data.get("error") or {})
            if isinstance(failure, ImageBuildError):
                failure.step, failure.log = step, log
            report(BuildEvent("error", step, str(failure)))
            continue
        if event.name == "log":
            log = [*log[1 - LOG_TAIL :], message]
        report(BuildEvent(event.name, step, message))
    if failure is not None:
        raise failure
    if built is None:
        raise ConnectionLostError(
            "the image build broke off; the server's log has the cause, and build() tries again"
        )
    return built


def _summary(built: BuiltImage) -> str:
    how = "cached" if built.cached else f"{built.size >> 20} MiB"
    return f"{built.id[:19]} is ready ({how}, base from {built.source or 'unknown'})"
