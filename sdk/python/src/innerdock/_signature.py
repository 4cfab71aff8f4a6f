"""Keyword arguments that do not exist: never dropped, and answered with what was meant."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

T = TypeVar("T")

# What the same things are called elsewhere.
_ALIASES = {
    "auto_remove": "remove",
    "buildargs": "build_args",
    "cmd": "command",
    "cpu": "cpus",
    "entry_point": "entrypoint",
    "environment": "env",
    "mem_limit": "memory",
    "network_mode": "network",
    "nocache": "no_cache",
    "path": "context",
    "restart_policy": "restart",
    "rm": "remove",
    "working_dir": "workdir",
}


def strict(cls: type[T]) -> type[T]:
    """Makes every public method of a class name near matches in its TypeError."""
    for name, method in list(vars(cls).items()):
        if inspect.isfunction(method) and not name.startswith("_"):
            setattr(cls, name, _checked(method))
    return cls


def _checked(method: Callable[..., Any]) -> Callable[..., Any]:
    known = [name for name in inspect.signature(method).parameters if name != "self"]

    def check(given: Mapping[str, Any]) -> None:
        unknown = [name for name in given if name not in known]
        if unknown:
            raise TypeError(_said(method.__name__, unknown[0], known))

    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def checked(*args: Any, **given: Any) -> Any:
            check(given)
            return await method(*args, **given)
    else:

        @functools.wraps(method)
        def checked(*args: Any, **given: Any) -> Any:
            check(given)
            return method(*args, **given)

    return checked


def _said(method: str, name: str, known: list[str]) -> str:
    said = f"{method}() got an unexpected keyword argument {name!r}"
    near = [alias for alias in [_ALIASES.get(name)] if alias in known]
    near = near or get_close_matches(name, known, n=2)
    if near:
        return f"{said}; did you mean {' or '.join(near)}?"
    if "extra_args" in known:
        option = f"--{name.replace('_', '-')}"
        return f'{said}; options of docker that have no name here go into extra_args=["{option}"]'
    return f"{said}; it has {', '.join(known) or 'none'}"
