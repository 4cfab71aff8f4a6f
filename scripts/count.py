"""Counts tests and shows them readably.

count.py go NAME RESULTS < output of `go test -json`
    Prints a line for each package, the output of what failed, and a summary.
    Counts tests at the top level; subtests belong to theirs.
count.py junit NAME RESULTS REPORT.xml
    Prints the summary of a report that pytest wrote.
count.py sum RESULTS
    Prints `N passed, N failed, N skipped` of all.
count.py steps RESULTS FAILED
    The same, where so many steps have failed: if no test did, they are the failures.

RESULTS is a file that gets one line for each run: NAME PASSED FAILED SKIPPED.
The exit code is 1 if a test failed, or if there was none.
"""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree
from collections import Counter, defaultdict


class GoTests:
    """The state of a `go test -json` run."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.output: dict[tuple[str, str], list[str]] = defaultdict(list)
        self.failed: Counter[str] = Counter()  # tests, by package
        self.skipped: list[str] = []

    def read(self, event: dict) -> None:
        """Takes one event."""
        package = event.get("Package") or event.get("ImportPath", "")
        test = event.get("Test", "")
        action = event["Action"]
        if action in ("output", "build-output"):
            self.output[package, test].append(event["Output"])
        elif action == "build-fail":
            self.counts["fail"] += 1
            self.say(f"--- DOES NOT BUILD {package}", package, "")
        elif action in ("pass", "fail", "skip") and test:
            self.ended(action, package, test)
        elif action == "fail":
            # A package may fail without a test of its own: a leak, a time limit.
            if not self.failed[package] and not event.get("FailedBuild"):
                self.counts["fail"] += 1
            for test in [t for p, t in self.output if p == package and t]:
                self.say(f"--- DID NOT END {package} {test}", package, test)
            self.say(f"FAIL {package} {event.get('Elapsed', 0):.1f} s", package, "")
        elif action == "pass":
            self.output.pop((package, ""), None)
            print(f"ok   {package} {event.get('Elapsed', 0):.1f} s", flush=True)

    def ended(self, action: str, package: str, test: str) -> None:
        """Takes the end of a test."""
        if "/" not in test:
            self.counts[action] += 1
        if action == "fail":
            self.failed[package] += 1
            self.say(f"--- FAIL {package} {test}", package, test)
            return
        said = "".join(self.output.pop((package, test), []))
        if action == "skip" and "/" not in test:
            self.skipped.append(f"{package} {test}: {' '.join(said.split()[3:])[:200]}")

    def say(self, title: str, package: str, test: str) -> None:
        print(title, "".join(self.output.pop((package, test), [])), sep="\n", end="", flush=True)


def go(name: str, results: str) -> int:
    tests = GoTests()
    for line in sys.stdin:
        try:
            event = json.loads(line)
        except ValueError:  # what the go command itself says
            print(line, end="", flush=True)
            continue
        tests.read(event)
    for test in tests.skipped:
        print("skipped:", test)
    return summary(name, results, tests.counts["pass"], tests.counts["fail"], tests.counts["skip"])


def junit(name: str, results: str, report: str) -> int:
    try:
        suites = xml.etree.ElementTree.parse(report).getroot().iter("testsuite")
    except (OSError, xml.etree.ElementTree.ParseError):
        return summary(name, results, 0, 1, 0)  # pytest itself failed
    total: Counter[str] = Counter()
    for suite in suites:
        total.update({k: int(suite.get(k, 0)) for k in ("tests", "failures", "errors", "skipped")})
    failed = total["failures"] + total["errors"]
    return summary(
        name, results, total["tests"] - failed - total["skipped"], failed, total["skipped"]
    )


def summary(name: str, results: str, passed: int, failed: int, skipped: int) -> int:
    print(f"{name}: {passed} passed, {failed} failed, {skipped} skipped", flush=True)
    with open(results, "a", encoding="utf-8") as file:
        print(name, passed, failed, skipped, file=file)
    return 1 if failed or not passed else 0


def add_up(results: str, steps: str = "0") -> int:
    passed = failed = skipped = 0
    with open(results, encoding="utf-8") as file:
        for line in file:
            a, b, c = map(int, line.split()[-3:])
            passed, failed, skipped = passed + a, failed + b, skipped + c
    failed = failed or int(steps)
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    commands = {"go": go, "junit": junit, "sum": add_up, "steps": add_up}
    sys.exit(commands[sys.argv[1]](*sys.argv[2:]))
