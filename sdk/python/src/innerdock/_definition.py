"""What an image is made of: a value without effects, shared by both twins of Image."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, Union

from ._errors import InvalidRequestError

Self = TypeVar("Self", bound="ImageDefinition")
Packages = Union[Iterable[str], str, "os.PathLike[str]"]

DEFAULT_PYTHON = "python3.11"
DOCKER_SOURCES = ("auto", "docker-ce", "distro")


class ImageDefinition:
    """A base and steps on it. Every method returns a new definition."""

    def __init__(
        self,
        python_version: str = DEFAULT_PYTHON,
        python_packages: Packages = (),
        commands: Iterable[str] = (),
        base_image: str | None = None,
        env_vars: Mapping[str, str] | Iterable[str] | str | None = None,
    ) -> None:
        if base_image is not None and python_version != DEFAULT_PYTHON:
            raise InvalidRequestError(
                "an image has either python_version or base_image, not both; to have Python in "
                f"{base_image!r}, install it with add_commands([...])"
            )
        self._id: str | None = None
        self._base = (
            {"base_image": base_image} if base_image else {"python_version": python_version}
        )
        self._steps: tuple[Mapping[str, Any], ...] = (
            *_package_steps(python_packages),
            *_command_steps(commands),
        )
        self._env: Mapping[str, str] = _environment(env_vars)
        self._built: Any = None

    @classmethod
    def from_registry(cls: type[Self], image_uri: str) -> Self:
        """Returns the image that a reference such as ``debian:trixie`` names."""
        return cls(base_image=image_uri)

    @classmethod
    def from_id(cls: type[Self], image_id: str) -> Self:
        """Returns an image that was built before, by its ID (``sha256:…``)."""
        image = cls()
        image._id = image_id
        return image

    def add_commands(self: Self, commands: Iterable[str]) -> Self:
        """Adds lines for /bin/sh, run as root while the image is built."""
        return self._plus(_command_steps(commands))

    def add_python_packages(self: Self, packages: Packages) -> Self:
        """Adds packages for pip: a list of requirements, or the path of a requirements file."""
        return self._plus(_package_steps(packages))

    def with_envs(
        self: Self, env_vars: Mapping[str, str] | Iterable[str] | str, clear: bool = False
    ) -> Self:
        """Adds environment variables of every process: a dict, or ``NAME=value`` strings.

        clear=True first removes those that the definition had.
        """
        new = self._copy()
        new._env = {**({} if clear else self._env), **_environment(env_vars)}
        return new

    def with_docker(self: Self, source: str = "auto") -> Self:
        """Installs Docker Engine, the CLI, and the Compose and Buildx plugins.

        A sandbox with ``docker_enabled=True`` needs it. source is where they come
        from: ``docker-ce`` (Docker's own repository), ``distro`` (the packages of
        the distribution) or ``auto`` (the former if it can be reached).
        """
        if source not in DOCKER_SOURCES:
            raise InvalidRequestError(
                f"with_docker(source={source!r}): the sources are {', '.join(DOCKER_SOURCES)}"
            )
        return self._plus([{"docker": {"source": source}}])

    def to_dict(self) -> dict[str, Any]:
        """Returns the definition as the API takes it."""
        definition: dict[str, Any] = dict(self._base)
        if self._steps:
            definition["steps"] = [dict(step) for step in self._steps]
        if self._env:
            definition["env"] = dict(self._env)
        return definition

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

    def _key(self) -> str:
        return self._id or json.dumps(self.to_dict(), sort_keys=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImageDefinition) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._key()})"


def _command_steps(commands: Iterable[str]) -> list[Mapping[str, Any]]:
    if isinstance(commands, str):
        raise InvalidRequestError('commands is a list of lines: ["apt-get update", "…"]')
    return [{"command": _text("a command", command)} for command in commands]


def _package_steps(packages: Packages) -> list[Mapping[str, Any]]:
    if isinstance(packages, (str, os.PathLike)):
        names = _read_requirements(Path(packages))
    else:
        names = [_text("a package", package) for package in packages]
    return [{"python_packages": names}] if names else []


def _read_requirements(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as cause:
        raise InvalidRequestError(
            f"{path}: {cause.strerror}; packages is the path of a requirements file, or a list "
            'such as ["requests"]'
        ) from cause
    names: list[str] = []
    for line in text.replace("\\\n", " ").splitlines():
        line = line.split(" #")[0].strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith(("-r ", "--requirement ")):
            names += _read_requirements(path.parent / line.split(None, 1)[1])
        elif line.startswith("-"):
            raise InvalidRequestError(
                f"{path}: {line!r} is an option of pip, not a package; run pip with it in "
                "add_commands([...])"
            )
        else:
            names.append(line)
    return names


def _environment(env: Mapping[str, str] | Iterable[str] | str | None) -> dict[str, str]:
    if env is None:
        return {}
    if isinstance(env, Mapping):
        pairs = dict(env)
    else:
        pairs = {}
        for item in [env] if isinstance(env, str) else env:
            name, equals, value = item.partition("=")
            if not equals:
                raise InvalidRequestError(f"{item!r} is no environment variable; write NAME=value")
            pairs[name] = value
    return {_text("a name", name): str(value) for name, value in pairs.items()}


def _text(what: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InvalidRequestError(f"{what} of an image is a string that is not empty: {value!r}")
    return value
