"""Counts tests and shows them readably.

count.py go NAME RESULTS < output of `go test -json`
    Prints a line for each package, the output of what failed, and a summary.
    Counts tests at the top level; subtests belong to theirs.
count.py junit NAME RESULTS REPORT.xml
    Prints the summary of a report that pytest wrote.
count.py sum RESULTS
    Prints `N passed, N failed, N skipped` of all.
count.py steps RESULTS FAILED
    The same after what failed, with the end of what each of them said; if no test
    failed but so many steps did, they are the failures.

RESULTS is a file that gets one JSON object for each run: its name, how many tests
passed, failed and were skipped, and what the failed ones said.
The exit code is 1 if a test failed, or if there was none.
"""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree
from collections import Counter, defaultdict


class GoTests:
    """The state of a `go test -json` run."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.output: dict[tuple[str, str], list[str]] = defaultdict(list)
        self.failed: Counter[str] = Counter()  # tests, by package
        self.failures: dict[str, str] = {}
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
        said = "".join(self.output.pop((package, test), []))
        print(title, said, sep="\n", end="", flush=True)
        self.failures[title] = said


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
    counts = [tests.counts[action] for action in ("pass", "fail", "skip")]
    return summary(name, results, *counts, tests.failures)


def junit(name: str, results: str, report: str) -> int:
    try:
        root = xml.etree.ElementTree.parse(report).getroot()
    except (OSError, xml.etree.ElementTree.ParseError):
        return summary(name, results, 0, 1, 0, {"pytest itself failed": ""})
    suites = root.iter("testsuite")
    total: Counter[str] = Counter()
    for suite in suites:
        total.update({k: int(suite.get(k, 0)) for k in ("tests", "failures", "errors", "skipped")})
    failed = total["failures"] + total["errors"]
    failures = {
        f"--- FAIL {case.get('classname')} {case.get('name')}": said.text or ""
        for case in root.iter("testcase")
        for kind in ("failure", "error")
        for said in case.iter(kind)
    }
    passed = total["tests"] - failed - total["skipped"]
    return summary(name, results, passed, failed, total["skipped"], failures)


def summary(
    name: str, results: str, passed: int, failed: int, skipped: int, failures: dict[str, str]
) -> int:
    print(f"{name}: {passed} passed, {failed} failed, {skipped} skipped", flush=True)
    with open(results, "a", encoding="utf-8") as file:
        counts = {"passed": passed, "failed": failed, "skipped": skipped}
        print(json.dumps({"name": name, **counts, "failures": failures}), file=file)
    return 1 if failed or not passed else 0


# A server's log, which tests print beside what they have to say.
LOG = re.compile(r"\s*time=\S+ level=")


def digest(said: str) -> str:
    """Returns the last lines of what a test said, without a server's log."""
    lines = [line[:300] for line in said.splitlines() if line.strip() and not LOG.match(line)]
    return "".join(f"    {line}\n" for line in lines[-8:])


def steps(results: str, failed: str) -> int:
    with open(results, encoding="utf-8") as file:
        for title, said in (f for line in file for f in json.loads(line)["failures"].items()):
            print(title, digest(said), sep="\n", end="")
    return add_up(results, int(failed))


def add_up(results: str, steps: int = 0) -> int:
    passed = failed = skipped = 0
    with open(results, encoding="utf-8") as file:
        for run in map(json.loads, file):
            passed, failed = passed + run["passed"], failed + run["failed"]
            skipped += run["skipped"]
    failed = failed or steps
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    commands = {"go": go, "junit": junit, "sum": add_up, "steps": steps}
    sys.exit(commands[sys.argv[1]](*sys.argv[2:]))
