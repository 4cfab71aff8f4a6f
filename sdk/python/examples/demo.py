"""Runs the first example as it stands in the documentation, and tells how long it took.

`make demo` starts a server and runs this. The program that runs is
test/e2e/python/seed_basic.py, unchanged: the times are those that the SDK keeps
in ``instance.timings``.
"""

from __future__ import annotations

import runpy
import sys
import time
from pathlib import Path

PROGRAM = Path(__file__).resolve().parents[3] / "test" / "e2e" / "python" / "seed_basic.py"

PHASES = {
    "image": "image ready",
    "create": "sandbox created",
    "docker_ready": "Docker ready",
    "docker_run": "first docker run",
}


def main() -> None:
    """Shows the program, runs it and prints the table."""
    print(f"{PROGRAM.name}:\n")
    print("".join(f"    {line}\n" for line in PROGRAM.read_text().splitlines()), flush=True)

    started = time.monotonic()
    instance = runpy.run_path(str(PROGRAM))["instance"]
    total = time.monotonic() - started

    sys.stdout.flush()
    for phase, name in PHASES.items():
        print(f"{name:<18}{instance.timings[phase]:8.2f} s")
    print(f"{'all of it':<18}{total:8.2f} s")


if __name__ == "__main__":
    main()
