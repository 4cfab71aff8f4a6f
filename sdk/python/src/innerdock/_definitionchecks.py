"""What the arguments of an image's definition must be, and what they become."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Union, cast

from ._errors import InvalidRequestError, UnsupportedError

Packages = Union[Iterable[str], str, "os.PathLike[str]"]
Environment = Union[Mapping[str, str], Iterable[str], str]
Credentials = Union[Mapping[str, str], Iterable[str]]
Accounts = Union[Credentials, Mapping[str, Credentials]]

DOCKER_SOURCES = ("auto", "docker-ce", "distro")

_PYTHON = re.compile(r"(?:python|micromamba)?(\d+(?:\.\d+){0,2})?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_SHELL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?")
_BREAKS = re.compile(r"[\x00\r\n]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def text(what: str, value: object, lines: bool = False) -> str:
    """Returns a string that is not empty, in one line unless it may have more."""
    if not isinstance(value, str) or not value.strip():
        raise InvalidRequestError(f"{what} is a string that is not empty: {value!r}")
    if "\0" in value or (not lines and _BREAKS.search(value)):
        raise InvalidRequestError(f"{what} holds a line break or a zero byte: {value!r}")
    return value


def texts(what: str, example: str, values: Iterable[str], lines: bool = False) -> list[str]:
    """Returns a list of strings."""
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise InvalidRequestError(f"{what} are a list, such as {example}: {values!r}")
    return [text(f"each of {what}", value, lines) for value in values]


def python_version(version: object) -> str:
    """Returns a version as the API takes it."""
    if not isinstance(version, str) or not version or not _PYTHON.fullmatch(version):
        raise InvalidRequestError(
            f"python_version={version!r} is not a version; write it like 'python3.11'"
        )
    return version


def number_of(version: str) -> str:
    """Returns the number of a version, such as 3.11; empty if it has none."""
    match = _PYTHON.fullmatch(version)
    return (match and match[1]) or ""


def command_steps(commands: Iterable[str]) -> list[Mapping[str, Any]]:
    """Returns the steps that run lines of shell."""
    lines = texts("commands", '["apt-get update", "…"]', commands, lines=True)
    return [{"command": line} for line in lines]


def package_steps(packages: Packages) -> list[Mapping[str, Any]]:
    """Returns the step that installs packages with pip, if there are any."""
    if isinstance(packages, (str, os.PathLike)):
        names = _read_requirements(Path(packages), [])
    else:
        names = texts("packages", '["requests", "numpy==2.0"]', packages)
    return [{"python_packages": names}] if names else []


def micromamba_step(packages: Packages, channels: Iterable[str] | None) -> Mapping[str, Any]:
    """Returns the step that installs micromamba, and packages with it."""
    if isinstance(packages, (str, os.PathLike)):
        names = _read_requirements(Path(packages), [])
    else:
        names = texts("packages", '["numpy", "python=3.12"]', packages)
    step: dict[str, Any] = {"packages": names} if names else {}
    if channels is not None:
        step["channels"] = texts("channels", '["conda-forge"]', channels)
    for word in [*names, *step.get("channels", ())]:
        if word.startswith("-"):
            raise InvalidRequestError(f"{word!r} is an option, not a package or a channel")
    return {"micromamba": step}


def _read_requirements(path: Path, within: list[Path]) -> list[str]:
    if path in within:
        raise InvalidRequestError(f"{path} includes itself")
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as cause:
        reason = getattr(cause, "strerror", None) or cause
        raise InvalidRequestError(
            f"{path}: {reason}; packages is the path of a requirements file, or a list "
            'such as ["requests"]'
        ) from cause
    names: list[str] = []
    for line in content.replace("\\\n", " ").splitlines():
        line = line.split(" #")[0].strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith(("-r ", "--requirement ")):
            more = path.parent / line.split(None, 1)[1]
            names += _read_requirements(more, [*within, path])
        elif line.startswith("-"):
            raise InvalidRequestError(
                f"{path}: {line!r} is an option of pip, not a package; run pip with it in "
                "add_commands([...])"
            )
        else:
            names.append(text(f"a package of {path}", line))
    return names


def environment(env: Environment | None) -> dict[str, str]:
    """Returns environment variables as a dict."""
    if env is None:
        return {}
    if isinstance(env, Mapping):
        pairs = dict(env)
    else:
        pairs = {}
        for item in [env] if isinstance(env, str) else env:
            name, equals, value = item.partition("=") if isinstance(item, str) else ("", "", "")
            if not equals:
                raise InvalidRequestError(f"{item!r} is no environment variable; write NAME=value")
            pairs[name] = value
    return {variable(name): _value(name, value) for name, value in pairs.items()}


def variable(name: object) -> str:
    """Returns the name of an environment variable."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidRequestError(
            f"{name!r} cannot be an environment variable: use letters, digits and underscores"
        )
    return name


def _value(name: str, value: object) -> str:
    if not isinstance(value, (str, int, float)):
        raise InvalidRequestError(f"the environment variable {name} is a string: {value!r}")
    if _BREAKS.search(str(value)):
        raise InvalidRequestError(
            f"the environment variable {name} holds a line break or a zero byte, which no "
            "Dockerfile can say: put it into a file, or pass it with Sandbox(env=…)"
        )
    return str(value)


def workdir(path: object) -> str:
    """Returns a working directory without what means nothing in it."""
    if not isinstance(path, (str, os.PathLike)):
        raise InvalidRequestError(f"with_workdir takes a path such as '/app': {path!r}")
    name = os.fspath(path)
    clean = "/" + posixpath.normpath(name).lstrip("/") if isinstance(name, str) else ""
    if not isinstance(name, str) or not name.startswith("/") or _CONTROL.search(name):
        raise InvalidRequestError(f"with_workdir({name!r}): an absolute path, such as '/app'")
    if clean == "/":
        raise InvalidRequestError(
            "with_workdir('/'): a directory below it, such as '/app'; pass cwd='/' to exec() "
            "for a process that begins there"
        )
    return clean


def user(name: object) -> str:
    """Returns a user with, perhaps, its group."""
    if isinstance(name, int) and not isinstance(name, bool) and name >= 0:
        name = str(name)
    if not isinstance(name, str) or not _USER.fullmatch(name):
        raise InvalidRequestError(
            f"with_user({name!r}): a name or a number, such as 'app', 1000 or 'app:staff'"
        )
    return name


def docker_step(source: object) -> Mapping[str, Any]:
    """Returns the step that installs Docker."""
    if source not in DOCKER_SOURCES:
        raise InvalidRequestError(
            f"with_docker(source={source!r}): the sources are {', '.join(DOCKER_SOURCES)}"
        )
    return {"docker": {"source": source}}


def docker_images(images: object) -> list[str]:
    """Returns the references of the images that Docker has from the start."""
    if isinstance(images, str) or not isinstance(images, Iterable):
        raise InvalidRequestError(f'with_docker(images={images!r}): a list such as ["redis:7"]')
    references = list(images)
    for reference in references:
        if not isinstance(reference, str) or not reference.strip() or reference.startswith("-"):
            raise InvalidRequestError(
                f"with_docker(images=…): {reference!r} is no image; name one like redis:7"
            )
    return references


def image_path(path: object, name: str) -> str:
    """Returns where in the image a file of that name goes; a / at the end is a directory."""
    if not isinstance(path, (str, os.PathLike)):
        raise InvalidRequestError(f"remote_path is a path in the image, not {path!r}")
    target = os.fspath(path)
    if not isinstance(target, str) or not target.startswith("/") or _CONTROL.search(target):
        raise InvalidRequestError(f"remote_path={target!r}: an absolute path in the image")
    if ".." in target.split("/"):
        raise InvalidRequestError(f"remote_path={target!r}: write it without '..'")
    return target + name if target.endswith("/") else target


def account(credentials: Credentials | None) -> dict[str, str] | None:
    """Returns the account at a registry that credentials are.

    They are a (name, password) pair, a dict with username and password, or what
    other SDKs take: environment variables, named or with their values.
    """
    if credentials is None:
        return None
    if isinstance(credentials, tuple) and len(credentials) == 2:
        credentials = {"username": credentials[0], "password": credentials[1]}
    if isinstance(credentials, str):
        raise InvalidRequestError("credentials are a (name, password) pair or a dict")
    if not isinstance(credentials, Mapping):
        names = [variable(name) for name in credentials]
        missing = [name for name in names if not os.environ.get(name)]
        if missing:
            raise InvalidRequestError(f"credentials: {missing[0]} is not in the environment")
        credentials = {name: os.environ[name] for name in names}
    found: dict[str, str] = {}
    for name, value in credentials.items():
        key = str(name).upper()
        if key.startswith("AWS_"):
            raise UnsupportedError(
                "credentials of AWS are not exchanged here: pass ('AWS', password) with what "
                "`aws ecr get-login-password` prints"
            )
        if key == "GCP_ACCESS_TOKEN":
            found = {"username": "oauth2accesstoken", "password": value}
        elif key == "NGC_API_KEY":
            found = {"username": "$oauthtoken", "password": value}
        elif key == "USERNAME" or key.endswith("_USERNAME"):
            found["username"] = value
        elif key in ("PASSWORD", "TOKEN") or key.endswith(("_PASSWORD", "_TOKEN")):
            found["password"] = value
    if set(found) != {"username", "password"} or not all(
        isinstance(value, str) and value for value in found.values()
    ):
        raise InvalidRequestError(
            "credentials have a username and a password: {'username': …, 'password': …}"
        )
    return found


def accounts(
    credentials: Accounts | None,
) -> tuple[dict[str, str] | None, dict[str, dict[str, str]]]:
    """Returns the one account that credentials are, or those of a dict, by registry."""
    if not isinstance(credentials, Mapping) or not any(map(_is_registry, credentials)):
        return account(credentials), {}
    found: dict[str, dict[str, str]] = {}
    for registry, given in credentials.items():
        one = account(cast("Credentials", given)) if _is_registry(registry) else None
        if one is None:
            raise InvalidRequestError(
                "credentials by registry: {'registry.example.com': (name, password), …}"
            )
        found[registry] = one
    return None, found


def _is_registry(name: object) -> bool:
    """Tells a registry from the name of a variable."""
    return isinstance(name, str) and (name == "localhost" or "." in name or ":" in name)


def arguments(args: Mapping[str, str] | None) -> dict[str, str]:
    """Returns build arguments."""
    if args is not None and not isinstance(args, Mapping):
        raise InvalidRequestError(f"build_args is a dict, such as {{'VERSION': '1'}}: {args!r}")
    for name, value in (args or {}).items():
        if not isinstance(name, str) or not _SHELL_NAME.fullmatch(name):
            raise InvalidRequestError(
                f"{name!r} cannot be a build argument: use letters, digits and underscores"
            )
        _value(name, value)
    return {name: str(value) for name, value in (args or {}).items()}


def secrets(names: Mapping[str, str] | Iterable[str]) -> dict[str, str | None]:
    """Returns secrets by name; None is for a value of this environment, read when it is built."""
    if isinstance(names, Mapping):
        return {_secret(name): text(f"the secret {name}", v, True) for name, v in names.items()}
    listed = texts("secrets", '["TOKEN"], or {"TOKEN": value}', names)
    return {_secret(name): None for name in listed}


def _secret(name: object) -> str:
    if not isinstance(name, str) or not _SHELL_NAME.fullmatch(name):
        raise InvalidRequestError(
            f"{name!r} cannot be the name of a secret: use letters, digits and underscores"
        )
    return name


def reveal(values: Mapping[str, str | None]) -> dict[str, str]:
    """Returns the values of secrets."""
    revealed: dict[str, str] = {}
    for name, value in values.items():
        known = os.environ.get(name) if value is None else value
        if not known:
            raise InvalidRequestError(
                f"the image needs the secret {name}: set this environment variable, or give its "
                f"value with with_secrets({{{name!r}: …}})"
            )
        revealed[name] = known
    return revealed
