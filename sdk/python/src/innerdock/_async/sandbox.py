"""Sandboxes to be: what to ask the server for."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from .. import _spec
from .._definition import ImageDefinition
from .._errors import ImageNotFoundError, InvalidRequestError
from .._models import BuiltImage, SandboxInfo
from .._progress import Progress
from .client import Client, default_client
from .image import Image
from .instance import SandboxInstance

CREATE_TIMEOUT = 300.0
"""Seconds that the server may take to start a sandbox."""
SERVER_DOCKER_TIMEOUT = 60.0
"""Seconds that the server gives dockerd, at least, so that daemon_timeout can be raised later."""


class Sandbox:
    """What a sandbox shall be; ``create()`` makes one.

    image (Image):
        What its file system begins with; built when needed. Also an image
        reference such as ``"debian:trixie"``, or the ID of a built image.
    docker_enabled (bool):
        Enable Docker-in-Docker support inside the sandbox.

        IMPORTANT: You must install Docker in your image first using `Image().with_docker()`.

        Example:
            image = Image(python_version="python3.11").with_docker()
            sandbox = Sandbox(image=image, docker_enabled=True)
            instance = sandbox.create()
            instance.docker.run("hello-world")
    cpu (float):
        Cores, 0.1 to the machine's.
    memory (str or int):
        A size such as ``"512Mi"`` or ``"4Gi"``; a number is MiB.
    disk (str or int):
        What changes to the root, `/tmp` and Docker's data may take on disk. The
        server's default is 10Gi.
    gpu (str):
        Refused by servers without GPUs.
    env (dict):
        Environment of every process.
    name (str):
        Unique among your live sandboxes: lower-case letters, digits and dashes.
    block_network (bool):
        Nothing is reachable but the server's DNS and registry cache.
    allow_private (list of str):
        CIDRs that are reachable although they are private. The public internet
        is reachable unless block_network=True.
    docker_profile (str):
        ``"full"``: overlays, bridge networks, published ports. ``"minimal"``: vfs
        and host networking only.
    auto_pause (float):
        Seconds without an open request after which the sandbox is paused. The next
        request resumes it. Default: never.
    daemon_timeout (float):
        Seconds that ``instance.docker`` waits for the Docker daemon.
    client (Client):
        The server. Default: that of INNERDOCK_HOST.
    progress (bool or function):
        How an image build shows what it does; see Image.build().

    Parameters that beta9 has and innerdock does not raise UnsupportedError.
    """

    def __init__(
        self,
        image: ImageDefinition | BuiltImage | str | None = None,
        docker_enabled: bool = False,
        cpu: float | int | str = 1.0,
        memory: str | int = "1Gi",
        disk: str | int | None = None,
        gpu: str | None = None,
        env: Mapping[str, str] | None = None,
        name: str | None = None,
        block_network: bool = False,
        allow_private: Iterable[str] | None = None,
        docker_profile: str = "full",
        auto_pause: float | None = None,
        daemon_timeout: float = 30.0,
        client: Client | None = None,
        progress: Progress = None,
        **unsupported: Any,
    ) -> None:
        _spec.refuse(unsupported)
        if block_network and allow_private:
            raise InvalidRequestError("block_network=True blocks what allow_private= would open")
        self.image = _image_of(image)
        self.docker_enabled = docker_enabled
        self.daemon_timeout = daemon_timeout
        self.progress = progress
        self._client = client
        self._body = _body(
            cpu=_spec.cores(cpu),
            memory=_spec.size("memory", memory),
            disk=None if disk is None else _spec.size("disk", disk),
            gpu=str(gpu) if gpu else None,
            env={key: str(value) for key, value in (env or {}).items()},
            name=name,
            docker=_body(
                enabled=True,
                profile=docker_profile,
                ready_timeout=max(daemon_timeout, SERVER_DOCKER_TIMEOUT),
            )
            if docker_enabled
            else None,
            network=_body(
                block=block_network or None,
                allow=_spec.strings("allow_private", allow_private or ()),
            ),
            auto_pause=auto_pause,
        )

    async def create(self) -> SandboxInstance:
        """Builds the image if needed, starts a sandbox and returns it.

        The sandbox runs when this returns; Docker, if enabled, may be starting,
        and every method of ``instance.docker`` waits for it. When it is interrupted
        or cancelled, no sandbox is left.
        """
        client = self._client or default_client()
        started = time.monotonic()
        built = await self._build(client)
        ready = time.monotonic()
        try:
            data = await self._post(client, built)
        except ImageNotFoundError:
            if not isinstance(self.image, Image) or self.image._id is not None:
                raise
            self.image._forget()  # the server's store lost it since it was built
            data = await self._post(client, await self._build(client))
        instance = SandboxInstance(client, SandboxInfo.from_json(data), self.daemon_timeout)
        instance.timings["image"] = ready - started
        instance.timings["create"] = time.monotonic() - ready
        return instance

    @classmethod
    async def from_snapshot(
        cls,
        snapshot: str,
        name: str | None = None,
        cpu: float | int | str | None = None,
        memory: str | int | None = None,
        env: Mapping[str, str] | None = None,
        auto_pause: float | None = None,
        daemon_timeout: float = 30.0,
        client: Client | None = None,
    ) -> SandboxInstance:
        """Starts a sandbox that goes on from a snapshot, and returns it.

        snapshot is what SandboxInstance.snapshot() returned. What is left out is as it
        was; ``env`` is added for processes that are started from now on.
        """
        client = client or default_client()
        body = _body(
            snapshot=snapshot,
            name=name,
            cpu=None if cpu is None else _spec.cores(cpu),
            memory=None if memory is None else _spec.size("memory", memory),
            env={key: str(value) for key, value in (env or {}).items()},
            auto_pause=auto_pause,
        )
        data = await client.transport.make("/v1/sandboxes", json=body, timeout=CREATE_TIMEOUT)
        return SandboxInstance(client, SandboxInfo.from_json(data), daemon_timeout)

    async def create_from_memory_snapshot(self, snapshot_id: str) -> SandboxInstance:
        """beta9's name of from_snapshot(); of this sandbox's settings it takes the client."""
        return await self.from_snapshot(
            snapshot_id, daemon_timeout=self.daemon_timeout, client=self._client
        )

    @classmethod
    async def connect(cls, id: str, client: Client | None = None) -> SandboxInstance:
        """Returns a live sandbox by its ID or name."""
        client = client or default_client()
        data = await client.transport.json("GET", f"/v1/sandboxes/{quote(id, safe='')}")
        return SandboxInstance(client, SandboxInfo.from_json(data))

    async def _build(self, client: Client) -> str:
        if isinstance(self.image, Image):
            return (await self.image.build(self.progress, client)).id
        return self.image.id

    async def _post(self, client: Client, image_id: str) -> Any:
        return await client.transport.make(
            "/v1/sandboxes", json={**self._body, "image": image_id}, timeout=CREATE_TIMEOUT
        )


def _body(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in (None, {}, [])}


def _image_of(image: ImageDefinition | BuiltImage | str | None) -> Image | BuiltImage:
    if image is None:
        return Image()
    if isinstance(image, (Image, BuiltImage)):
        return image
    if isinstance(image, str):
        return Image.from_id(image) if image.startswith("sha256:") else Image(base_image=image)
    if isinstance(image, ImageDefinition):  # of the other twin
        twin = Image()
        twin.__dict__.update(image.__dict__, _built=None)
        return twin
    raise InvalidRequestError(f"image={image!r} is no Image")
