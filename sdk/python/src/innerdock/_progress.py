"""How an image build shows what it does."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Union

from ._models import BuildEvent

Progress = Union[bool, Callable[[BuildEvent], None], None]
"""True: lines on standard error; False: silence; a function: called with each
event; None: lines if standard error is a terminal or INNERDOCK_PROGRESS=1."""


def reporter(progress: Progress) -> Callable[[BuildEvent], None]:
    """Returns the function that gets every event of a build."""
    if callable(progress):
        return progress
    if progress is None:
        wish = os.environ.get("INNERDOCK_PROGRESS", "")
        progress = wish not in ("", "0") or (wish != "0" and sys.stderr.isatty())
    return _print if progress else _ignore


def _print(event: BuildEvent) -> None:
    if not event.message:
        return
    # The step alone is what BuildKit says when it begins one.
    head = f"[{event.step}] " if event.step not in ("", event.message) else ""
    indent = "  " if event.kind == "log" else ""
    print(f"innerdock: {head}{indent}{event.message}", file=sys.stderr, flush=True)


def _ignore(event: BuildEvent) -> None:
    pass
