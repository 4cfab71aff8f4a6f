"""What an image is made of: a value without effects, shared by both twins of Image."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from . import _definitionchecks as checks
from ._context import Source
from ._definitionchecks import Accounts, Credentials, Environment, Packages
from ._errors import InvalidRequestError

Self = TypeVar("Self", bound="ImageDefinition")

DEFAULT_PYTHON = "python3.11"
WORKSPACE = "/workspace"


@dataclass(frozen=True)
class Dockerfile:
    """A Dockerfile of this machine, and the directory that its COPY takes files from."""

    path: Path
    context: Source
    target: str = ""
    build_args: tuple[tuple[str, str], ...] = ()

    def read(self) -> dict[str, Any]:
        """Returns it as the API takes it."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, ValueError) as cause:
            raise InvalidRequestError(f"{self.path} cannot be read: {cause}") from cause
        described: dict[str, Any] = {"text": text}
        if self.target:
            described["target"] = self.target
        if self.build_args:
            described["args"] = dict(self.build_args)
        return described


class ImageDefinition:
    """A base and steps on it. Every method returns a new definition."""

    def __init__(
        self,
        python_version: str | None = None,
        python_packages: Packages = (),
        commands: Iterable[str] = (),
        base_image: str | None = None,
        base_image_creds: Credentials | None = None,
        env_vars: Environment | None = None,
    ) -> None:
        if base_image is not None and python_version is not None:
            raise InvalidRequestError(
                "an image has either python_version or base_image, not both; to have Python in "
                f"{base_image!r}: Image(base_image={base_image!r})"
                f".add_python_version({python_version!r})"
            )
        if base_image is None and base_image_creds is not None:
            raise InvalidRequestError("base_image_creds go with base_image")
        self._id: str | None = None
        self._dockerfile: Dockerfile | None = None
        self._base: Mapping[str, str] = (
            {"python_version": checks.python_version(python_version or DEFAULT_PYTHON)}
            if base_image is None
            else {"base_image": checks.text("base_image", base_image)}
        )
        self._account = checks.account(base_image_creds)
        self._registries: Mapping[str, dict[str, str]] = {}
        self._env: Mapping[str, str] = checks.environment(env_vars)
        self._secrets: Mapping[str, str | None] = {}
        self._docker_images: tuple[str, ...] = ()
        self._workdir = self._user = ""
        self._files: tuple[Source, ...] = ()
        self._steps: tuple[Mapping[str, Any], ...] = ()
        if (python_version or "").startswith("micromamba"):  # beta9's word for micromamba()
            number = checks.number_of(self._base["python_version"])
            self._base = {"python_version": f"python{number}" if number else DEFAULT_PYTHON}
            self._steps = self.micromamba()._steps
        self._steps += (*checks.package_steps(python_packages), *checks.command_steps(commands))
        self._built: Any = None

    @classmethod
    def from_registry(
        cls: type[Self], image_uri: str, credentials: Credentials | None = None
    ) -> Self:
        """Returns the image that a reference such as ``debian:trixie`` names.

        credentials are a (username, password) pair, a dict of both, or the names of
        environment variables that end in _USERNAME and _PASSWORD or _TOKEN. The
        server does not keep them.
        """
        return cls(base_image=image_uri, base_image_creds=credentials)

    @classmethod
    def from_dockerfile(
        cls: type[Self],
        path: str | os.PathLike[str],
        context_dir: str | os.PathLike[str] | None = None,
        target: str | None = None,
        build_args: Mapping[str, str] | None = None,
        credentials: Accounts | None = None,
    ) -> Self:
        """Returns the image that a Dockerfile of this machine makes.

        COPY and ADD take files from context_dir, by default the Dockerfile's own
        directory, without what its .dockerignore leaves out. target is the stage to
        build, by default the last.

        credentials, as from_registry() takes them, are an account at the registry that
        the bases come from, Docker Hub only if there is no other; or a dict of accounts
        by registry: ``{"registry.example.com": ("me", password)}``.
        """
        file = _local("from_dockerfile", path)
        if not file.is_file():
            raise InvalidRequestError(f"from_dockerfile: there is no file {file}")
        context = file.parent if context_dir is None else _local("context_dir", context_dir)
        if not context.is_dir():
            raise InvalidRequestError(f"from_dockerfile: there is no directory {context}")
        source = Source(context.resolve(), ignore_file=f"{file.name}.dockerignore")
        image = cls()
        image._base = {}
        image._account, image._registries = checks.accounts(credentials)
        image._dockerfile = Dockerfile(
            file,
            source,
            checks.text("target", target) if target is not None else "",
            tuple(sorted(checks.arguments(build_args).items())),
        )
        return image

    @classmethod
    def from_id(cls: type[Self], image_id: str) -> Self:
        """Returns an image that was built before, by its ID (``sha256:…``)."""
        image = cls()
        image._id = checks.text("image_id", image_id)
        return image

    @property
    def id(self) -> str | None:
        """The ID, once it is built here or if it was made with from_id()."""
        return self._id or (self._built[1].id if self._built is not None else None)

    def add_commands(self: Self, commands: Iterable[str]) -> Self:
        """Adds lines for /bin/sh, run as root while the image is built.

        Each is a step; one of several lines is one script.
        """
        return self._plus(checks.command_steps(commands))

    def add_python_packages(self: Self, packages: Packages) -> Self:
        """Adds packages for pip: a list of requirements, or the path of a requirements file."""
        return self._plus(checks.package_steps(packages))

    def add_python_version(self: Self, python_version: str) -> Self:
        """Makes python3 another version.

        An image that began with a Python version begins with this one instead; any
        other gets it from the packages of its distribution.
        """
        version = checks.python_version(python_version)
        if "python_version" in self._base:
            new = self._copy()
            new._base = {"python_version": version}
            return new
        number = checks.number_of(version)
        if number.count(".") != 1:
            raise InvalidRequestError(
                f"add_python_version({version!r}): a version such as 'python3.12', as "
                "distributions have packages of"
            )
        return self._plus([{"python_version": f"python{number}"}])

    def add_local_path(
        self: Self,
        path: str | os.PathLike[str] = "*",
        remote_path: str | None = None,
        ignore: Iterable[str] = (),
    ) -> Self:
        """Adds files of this machine: a directory's content, a file, or what a pattern finds.

        They are read when the image is built. They go to remote_path, an absolute
        path in the image; by default a relative path goes to the same place below
        /workspace. What the ``.dockerignore`` of the directory says is left out (if it
        has none: that of the working directory), and what ignore says in the same syntax.
        """
        name = os.fspath(path) if isinstance(path, (str, os.PathLike)) else path
        local = _local("add_local_path", path)
        patterns = tuple(checks.texts("ignore", '["*.log"]', ignore))
        if local.is_file():
            if patterns:
                raise InvalidRequestError(f"add_local_path: {local} is a file; ignore is for more")
            return self._copied(Source(local), name, remote_path)
        if local.is_dir():
            here, local = Path.cwd(), local.resolve()
            above = here if here in local.parents else None
            return self._copied(Source(local, ignore=patterns, above=above), name, remote_path)
        parts = Path(name).parts
        if not any(char in name for char in "*?["):
            raise InvalidRequestError(f"add_local_path: there is no file or directory {local}")
        if Path(name).is_absolute() or ".." in parts:
            raise InvalidRequestError(
                f"add_local_path({name!r}): a pattern stays in the working directory; name the "
                "directory itself, and what it shall not bring with ignore=[…]"
            )
        return self._copied(Source(Path.cwd(), name, patterns), ".", remote_path)

    def add_local_file(
        self: Self, local_path: str | os.PathLike[str], remote_path: str | None = None
    ) -> Self:
        """Adds a file of this machine, as add_local_path() does.

        A remote_path that ends in / is a directory.
        """
        local = _local("add_local_file", local_path)
        if not local.is_file():
            raise InvalidRequestError(f"add_local_file: there is no file {local}")
        return self._copied(Source(local), os.fspath(local_path), remote_path)

    def micromamba(self: Self) -> Self:
        """Installs micromamba, and with it the Python that the image began with."""
        number = checks.number_of(self._base.get("python_version", ""))
        packages = [f"python={number}", "pip"] if number else []
        return self._plus([checks.micromamba_step(packages, None)])

    def add_micromamba_packages(
        self: Self, packages: Packages, channels: Iterable[str] | None = None
    ) -> Self:
        """Adds packages of conda channels, by default of conda-forge, with micromamba.

        Their programs come before those of the base, python3 included.
        """
        step = checks.micromamba_step(packages, channels)
        return self._plus([step])

    def with_envs(self: Self, env_vars: Environment, clear: bool = False) -> Self:
        """Adds environment variables of every process: a dict, or ``NAME=value`` strings.

        clear=True first removes those that the definition had.
        """
        new = self._copy()
        new._env = {**({} if clear else self._env), **checks.environment(env_vars)}
        return new

    def with_secrets(self: Self, secrets: Mapping[str, str] | Iterable[str]) -> Self:
        """Gives the steps secrets as environment variables, which the image does not keep.

        They are names of this process's environment variables, read when the image
        is built, or a dict with the values. A definition whose secrets have other
        values is the same image.
        """
        new = self._copy()
        new._secrets = {**self._secrets, **checks.secrets(secrets)}
        return new

    def with_workdir(self: Self, path: str) -> Self:
        """Sets the directory that processes of sandboxes begin in; it is made if need be."""
        new = self._copy()
        new._workdir = checks.workdir(path)
        return new

    def with_user(self: Self, user: str | int) -> Self:
        """Sets whom processes of sandboxes run as: ``"app"``, ``1000`` or ``"app:staff"``.

        Steps of the image are still root's, and so are Docker and ``instance.fs``.
        """
        new = self._copy()
        new._user = checks.user(user)
        return new

    def with_docker(self: Self, source: str = "auto", images: Iterable[str] = ()) -> Self:
        """Installs Docker Engine, the CLI, and the Compose and Buildx plugins.

        A sandbox with ``docker_enabled=True`` needs it. source is where they come
        from: ``docker-ce`` (Docker's own repository), ``distro`` (the packages of
        the distribution) or ``auto`` (the former if it can be reached).

        images, such as ``["redis:7"]``, are there in every sandbox's Docker from the
        start. They are pulled when the image is built, and all its sandboxes share
        them: ``docker run`` pulls nothing.
        """
        new = self._plus([checks.docker_step(source)])
        new._docker_images = (*self._docker_images, *checks.docker_images(images))
        return new

    def to_dict(self) -> dict[str, Any]:
        """Returns the definition as the API takes it, without the content of local files."""
        definition: dict[str, Any] = dict(self._base)
        if self._steps:
            definition["steps"] = [dict(step) for step in self._steps]
        if self._env:
            definition["env"] = dict(self._env)
        if self._workdir:
            definition["working_dir"] = self._workdir
        if self._user:
            definition["user"] = self._user
        if self._docker_images:
            definition["docker_images"] = list(self._docker_images)
        if self._secrets:
            definition["secrets"] = sorted(self._secrets)
        return definition

    def _described(self) -> dict[str, Any]:
        """Returns the definition with what its Dockerfile holds now."""
        definition = self.to_dict()
        if self._dockerfile is not None:
            definition["dockerfile"] = self._dockerfile.read()
        return definition

    def _request(self) -> dict[str, Any]:
        """Returns what a build is asked for with."""
        request = self._described()
        if self._account is not None:
            request["credentials"] = self._account
        if self._registries:
            request["registry_credentials"] = dict(self._registries)
        if self._secrets:
            request["secret_values"] = checks.reveal(self._secrets)
        return request

    def _copy(self: Self) -> Self:
        if self._id is not None:
            raise InvalidRequestError(
                "an image made with from_id() is complete; steps go into a definition, "
                "such as Image(base_image=…)"
            )
        new = copy.copy(self)
        new._built = None
        return new

    def _plus(self: Self, steps: Iterable[Mapping[str, Any]]) -> Self:
        new = self._copy()
        new._steps = (*self._steps, *steps)
        return new

    def _copied(self: Self, source: Source, name: str, remote_path: str | None) -> Self:
        """Adds the step that copies a source, which is called name here."""
        if self._dockerfile is not None:
            raise InvalidRequestError(
                "an image of a Dockerfile takes local files with COPY, from its context_dir"
            )
        if remote_path is None:
            relative = Path(name)
            if relative.is_absolute() or ".." in relative.parts:
                raise InvalidRequestError(
                    f"{name!r} is outside of the working directory: say where it goes with "
                    "remote_path='/…'"
                )
            remote_path = f"{WORKSPACE}/{relative.as_posix()}".removesuffix("/.")
        target = checks.image_path(remote_path, source.path.name if source.path.is_file() else "")
        if source.path.is_dir() and not target.endswith("/"):
            target += "/"
        step = {"copy": {"source": str(len(self._files)), "target": target}}
        new = self._plus([step])
        new._files = (*self._files, source)
        return new

    def _sources(self) -> list[tuple[str, Source]]:
        """Returns the local files that it is made with, by their names in the context."""
        if self._dockerfile is not None:
            return [("", self._dockerfile.context)]
        return [(str(index), source) for index, source in enumerate(self._files)]

    def _key(self) -> str:
        if self._id is not None:
            return self._id
        local = [repr(self._dockerfile), *map(repr, self._files)] if self._sources() else []
        accounts = {"account": self._account, "registries": self._registries}
        return json.dumps({**self.to_dict(), **accounts, "local": local}, sort_keys=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImageDefinition) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        shown = self._id or json.dumps(self.to_dict(), sort_keys=True)
        if self._dockerfile is not None:
            shown = f"{self._dockerfile.path}, {shown}"
        return f"{type(self).__name__}({shown})"


def _local(what: str, path: object) -> Path:
    """Returns a path of this machine, made absolute."""
    if not isinstance(path, (str, os.PathLike)):
        raise InvalidRequestError(f"{what} takes a path, not {path!r}")
    name = os.fspath(path)
    if not isinstance(name, str) or not name or "\0" in name:
        raise InvalidRequestError(f"{what} takes a path that is not empty, not {name!r}")
    return Path.cwd() / Path(name).expanduser()
