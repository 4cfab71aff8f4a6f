"""Tests of count.py: what a run's summary says of the tests that failed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

COUNT = Path(__file__).with_name("count.py")


def count(*arguments: object, said: str = "") -> tuple[str, int]:
    """Runs count.py and returns what it prints and its exit code."""
    command = [sys.executable, str(COUNT), *map(str, arguments)]
    done = subprocess.run(command, input=said, capture_output=True, text=True, check=False)
    assert not done.stderr
    return done.stdout, done.returncode


def test_failures_stand_at_the_end(tmp_path: Path) -> None:
    results = tmp_path / "results"
    events = [
        {"Action": "pass", "Package": "p", "Test": "TestFine"},
        {"Action": "output", "Package": "p", "Test": "TestBad", "Output": "it is broken\n"},
        {"Action": "output", "Package": "p", "Test": "TestBad", "Output": "time=1 level=INFO a\n"},
        {"Action": "fail", "Package": "p", "Test": "TestBad"},
        {"Action": "fail", "Package": "p"},
    ]
    said, code = count("go", "Go", results, said="\n".join(map(json.dumps, events)))
    assert code == 1
    assert said.endswith("Go: 1 passed, 1 failed, 0 skipped\n")

    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuite tests="3" failures="1" errors="0" skipped="1"><testcase classname="c" name="t">'
        "<failure>assert 1 == 2</failure></testcase></testsuite>"
    )
    assert count("junit", "Python", results, report)[1] == 1

    said, code = count("steps", results, 1)
    assert code == 1
    assert "--- FAIL p TestBad\n    it is broken\n" in said
    assert "--- FAIL c t\n    assert 1 == 2\n" in said
    assert "level=INFO" not in said
    assert said.endswith("\n2 passed, 2 failed, 1 skipped\n")


def test_a_package_that_fails_by_itself_and_a_step_count(tmp_path: Path) -> None:
    results = tmp_path / "results"
    events = [
        {"Action": "pass", "Package": "p", "Test": "TestFine"},
        {"Action": "output", "Package": "p", "Output": "panic: no\n"},
        {"Action": "fail", "Package": "p"},
    ]
    assert count("go", "Go", results, said="\n".join(map(json.dumps, events)))[1] == 1
    assert count("sum", results) == ("1 passed, 1 failed, 0 skipped\n", 1)

    results.unlink()
    assert count("go", "Go", results, said=json.dumps(events[0]))[1] == 0
    assert count("steps", results, 0) == ("1 passed, 0 failed, 0 skipped\n", 0)
    assert count("steps", results, 1) == ("1 passed, 1 failed, 0 skipped\n", 1)


def test_no_test_is_a_failure(tmp_path: Path) -> None:
    results = tmp_path / "results"
    assert count("go", "Go", results)[1] == 1
    assert count("junit", "Python", results, tmp_path / "missing")[1] == 1
    assert count("sum", results)[1] == 1
