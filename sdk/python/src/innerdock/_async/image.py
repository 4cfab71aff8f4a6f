"""Images: a definition, and the build of it on a server."""

from __future__ import annotations

from urllib.parse import quote

from .._definition import ImageDefinition
from .._errors import ConnectionLostError, ImageBuildError, InnerdockError, error_from
from .._models import BuildEvent, BuiltImage
from .._progress import Progress, reporter
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
    env_vars (dict):
        Environment of every process.
    """

    async def build(self, progress: Progress = None, client: Client | None = None) -> BuiltImage:
        """Builds the image on the server and returns it, with its ID.

        An image that the server has is there at once. progress=True shows what
        happens on standard error (the default on a terminal, or with
        INNERDOCK_PROGRESS=1), False shows nothing; a function gets each
        BuildEvent. Raises ImageBuildError or ImageNotFoundError.
        """
        transport = (client or default_client()).transport
        host = transport.address.host
        if self._built is not None and self._built[0] == host:
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
    log: list[str] = []
    built: BuiltImage | None = None
    failure: InnerdockError | None = None
    async for event in transport.events("POST", "/v1/images", json=image.to_dict()):
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
