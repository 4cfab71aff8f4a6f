"""Arguments of the docker command line, made from those of the Docker manager."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Union

from ._errors import InvalidRequestError

Command = Union[str, Sequence[str], None]
Volumes = Union[Mapping[str, Any], Iterable[str], None]
Ports = Union[Mapping[Any, Any], Iterable[Any], None]
Names = Union[str, Iterable[str]]


def words(command: Command) -> list[str]:
    """Returns a command as words: a string is split as a shell would."""
    if command is None:
        return []
    if isinstance(command, str):
        return shlex.split(command)
    return [str(word) for word in command]


def name(what: str, value: str) -> str:
    """Returns value, which must be a name: one line, and nothing like an option."""
    if not isinstance(value, str) or not value.strip():
        raise InvalidRequestError(f"{value!r} is no name of {what}: it is empty")
    if value.startswith("-"):
        raise InvalidRequestError(
            f"{value!r} is no name of {what}: names do not begin with a dash, options do"
        )
    if any(char.isspace() or not char.isprintable() for char in value):
        raise InvalidRequestError(
            f"{value!r} is no name of {what}: it has a space, a newline or a control character"
        )
    return value


def path(what: str, value: str) -> str:
    """Returns value, which must be a path and must not look like an option or be ``-``."""
    if not isinstance(value, str) or not value or "\0" in value or value.startswith("-"):
        raise InvalidRequestError(
            f"{value!r} is no path of {what}: write ./{value} if its name begins with a dash"
        )
    return value


def names(what: str, values: Names) -> list[str]:
    """Returns one or several names as a list."""
    found = [name(what, value) for value in ([values] if isinstance(values, str) else values)]
    if not found:
        raise InvalidRequestError(f"there is no name of {what} in {values!r}")
    return found


def some(what: str, values: Names) -> list[str]:
    """Returns any number of names as a list."""
    return names(what, values) if values else []


def named(option: str, what: str, given: str | None) -> list[str]:
    """Returns the option with a name, unless that is None."""
    return [] if given is None else [option, name(what, given)]


def flag(option: str, on: bool) -> list[str]:
    """Returns the option if it is on."""
    return [option] if on else []


def value(option: str, given: object) -> list[str]:
    """Returns the option with its value, unless that is None."""
    return [] if given is None else [option, str(given)]


def pairs(option: str, given: Mapping[str, Any] | None) -> list[str]:
    """Returns the option once for each NAME=value."""
    args = []
    for key, val in (given or {}).items():
        if not isinstance(key, str) or not key or "=" in key:
            raise InvalidRequestError(f"{key!r} is no name of a variable or label")
        args += [option, f"{key}={val}"]
    return args


def repeated(option: str, given: Names) -> list[str]:
    """Returns the option once for each value."""
    args = []
    for val in [given] if isinstance(given, str) else given:
        args += [option, str(val)]
    return args


def filters(given: Mapping[str, Any] | None) -> list[str]:
    """Returns --filter options: {"status": "exited", "label": ["a=1", "b"]}."""
    args = []
    for key, val in (given or {}).items():
        for item in [val] if isinstance(val, (str, int)) else val:
            args += ["--filter", f"{key}={item}"]
    return args


def compose(file: Names, *words: str) -> list[str]:
    """Returns the words of a command of Compose."""
    files = [path("a Compose file", item) for item in ([file] if isinstance(file, str) else file)]
    if not files:
        raise InvalidRequestError(f"file={file!r} names no Compose file")
    return ["compose", "--ansi", "never", *repeated("--file", files), *words]


def services(file: Names, verb: str, names: Names, *options: str) -> list[str]:
    """Returns the words of a command of Compose for some services; without names: for all."""
    return [*compose(file, verb), *options, *some("a service", names)]


def volumes(given: Volumes) -> list[str]:
    """Returns -v options.

    given maps a source (a path in the sandbox or a volume) to a path in the
    container, with ``:ro`` if wanted, or to {"bind": path, "mode": "ro"}; or it
    is a list of "source:path[:ro]".
    """
    args = []
    for item in _items("volumes", given):
        if isinstance(item, tuple):
            source, target = item
            if isinstance(target, Mapping):
                mode = target.get("mode")
                target = target["bind"] + (f":{mode}" if mode else "")
            item = f"{source}:{target}"
        args += ["-v", str(item)]
    return args


def ports(given: Ports) -> list[str]:
    """Returns -p options.

    given maps a port of the sandbox to a port of the container, {8080: 80}; or
    it is a list of what -p takes, ["8080:80"].
    """
    args = []
    for item in _items("ports", given):
        if isinstance(item, tuple):
            outer, inner = item
            if "/" in str(outer):
                raise InvalidRequestError(
                    f"ports={{{outer!r}: {inner!r}}}: the sandbox's port comes first and the "
                    'protocol goes with the container\'s: {8080: "80/tcp"}'
                )
            item = f"{outer}:{inner}"
        args += ["-p", str(item)]
    return args


def network(profile: str, wanted: str | None, extra: Sequence[str]) -> list[str]:
    """Returns --network; in profile minimal there is only the host's, so it is the default."""
    if wanted is not None:
        return ["--network", name("a network", wanted)]
    named = any(arg.split("=")[0] in ("--network", "--net") for arg in extra)
    return ["--network", "host"] if profile == "minimal" and not named else []


def _items(what: str, given: Any) -> list[Any]:
    if given is None:
        return []
    if isinstance(given, Mapping):
        return list(given.items())
    if isinstance(given, (str, int)):
        raise InvalidRequestError(f"{what} is a dict or a list, not {given!r}")
    return list(given)
