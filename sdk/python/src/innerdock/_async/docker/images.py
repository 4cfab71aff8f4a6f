"""Images, and the registries that they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

from ... import _dockerargs as args
from ..._dockerargs import Names
from ..._dockermodels import DockerImage
from ..._errors import InvalidRequestError
from ..._signature import strict
from .daemon import NO_CREDENTIALS, DaemonCommands, _success
from .result import DockerDone, DockerList, DockerResult, DockerText


@strict
class ImageCommands(DaemonCommands):
    """Commands on images."""

    async def pull(
        self, image: str, quiet: bool = False, platform: str | None = None
    ) -> DockerResult:
        """Pulls an image, through the server's registry cache."""
        return await self._start(
            [
                "pull",
                *args.flag("--quiet", quiet),
                *args.value("--platform", platform),
                args.name("an image", image),
            ]
        )

    async def push(self, image: str) -> DockerResult:
        """Pushes an image to its registry."""
        return await self._start(["push", args.name("an image", image)])

    async def build(
        self,
        tag: str,
        context: str = ".",
        dockerfile: str | None = None,
        build_args: Mapping[str, Any] | None = None,
        no_cache: bool = False,
        quiet: bool = False,
        extra_args: Sequence[str] | None = None,
        *,
        target: str | None = None,
        pull: bool = False,
        network: str | None = None,
        labels: Mapping[str, Any] | None = None,
    ) -> DockerResult:
        """Builds an image from a directory of the sandbox, relative to /workspace.

        The result's ``check()`` raises DockerBuildError, which knows the step that failed.
        """
        extra = args.words(extra_args)
        return await self._start(
            [
                "build",
                *args.named("--tag", "an image", tag),
                *args.value("--file", dockerfile),
                *args.pairs("--build-arg", build_args),
                *args.flag("--no-cache", no_cache),
                *args.flag("--quiet", quiet),
                *args.network(self._profile, network, extra),
                *args.value("--target", target),
                *args.flag("--pull", pull),
                *args.pairs("--label", labels),
                *extra,
                args.path("a directory", context),
            ]
        )

    @overload
    async def images(self, quiet: Literal[False] = False, all: bool = False) -> DockerText: ...

    @overload
    async def images(self, quiet: Literal[True], all: bool = False) -> DockerList: ...

    @overload
    async def images(self, quiet: bool = False, all: bool = False) -> DockerText | DockerList: ...

    async def images(self, quiet: bool = False, all: bool = False) -> DockerText | DockerList:
        """Lists the images, as a table. quiet=True: a list of their IDs."""
        words = ["images", *args.flag("--all", all)]
        return await self._list([*words, "--quiet"]) if quiet else await self._text(words)

    async def list_images(self, filters: Mapping[str, Any] | None = None) -> list[DockerImage]:
        """Returns the images as values. filters: {"reference": "nginx*", "dangling": "true"}."""
        words = ["images", "--quiet", "--no-trunc", *args.filters(filters)]
        ids = list(dict.fromkeys(await self._list(words)))
        found = await self._inspect("image", ids, missing_ok=True)
        return [DockerImage.from_json(item) for item in found]

    async def inspect_image(self, image: str) -> DockerImage:
        """Describes an image; ``raw`` of it is all that Docker tells."""
        found = await self._inspect("image", [args.name("an image", image)])
        return DockerImage.from_json(found[0])

    async def tag(self, source: str, target: str) -> DockerDone:
        """Gives an image another name."""
        return await self._done(
            ["tag", args.name("an image", source), args.name("an image", target)]
        )

    async def rmi(self, image: Names, force: bool = False) -> DockerDone:
        """Removes one or several images."""
        return await self._done(
            ["rmi", *args.flag("--force", force), *args.names("an image", image)]
        )

    async def save(self, image: Names, path: str) -> DockerResult:
        """Writes images to a tar file of the sandbox."""
        return await self._start(
            ["save", "--output", args.path("a file", path), *args.names("an image", image)]
        )

    async def load(self, path: str) -> DockerResult:
        """Reads images from a tar file of the sandbox."""
        return await self._start(["load", "--input", args.path("a file", path)])

    async def login(
        self,
        username: str | None = None,
        password: str | None = None,
        registry: str | None = None,
    ) -> DockerDone:
        """Logs in to a registry; Docker Hub if none is named.

        Without username and password: with DOCKER_USERNAME and DOCKER_PASSWORD of the
        sandbox's environment. The password goes through standard input.
        """
        where = None if registry is None else args.name("a registry", registry)
        if username is None and password is None:
            await self.wait_for_daemon()
            self._login_tried = True
            result = await self._login_of_sandbox(where, once=False)
            if not await result.wait() and result.exit_code == NO_CREDENTIALS:
                raise InvalidRequestError(
                    "login() needs username and password, or DOCKER_USERNAME and "
                    "DOCKER_PASSWORD in the sandbox's environment: Sandbox(env=…)"
                )
            return await _success(result)
        if not username or not isinstance(username, str) or not username.isprintable():
            raise InvalidRequestError(f"username={username!r} is no name of a user")
        if not password or not isinstance(password, str) or "\n" in password.rstrip("\n"):
            raise InvalidRequestError("password is empty, or has more than one line")
        return await self._login(where, username, password)

    async def logout(self, registry: str | None = None) -> DockerDone:
        """Forgets the credentials of a registry; of Docker Hub if none is named."""
        where = [] if registry is None else [args.name("a registry", registry)]
        self._login_tried = True
        return await self._done(["logout", *where])
