from __future__ import annotations

import pytest

from innerdock import InvalidRequestError
from innerdock._ignore import Ignore

# What Docker's documentation and its own matcher say of these.
CASES = [
    # pattern, left out, kept
    ("*/temp*", ["somedir/temporary.txt", "somedir/temp", "somedir/temp/a"], ["temp", "a/b/temp"]),
    ("*/*/temp*", ["somedir/subdir/temporary.txt"], ["somedir/temporary.txt"]),
    ("temp?", ["tempa", "tempb", "tempa/x"], ["temp", "tempab", "x/tempa"]),
    ("**/*.go", ["a.go", "a/b.go", "a/b/c.go"], ["a.gox", "a/go"]),
    ("**/node_modules", ["node_modules/x", "a/b/node_modules/c/d"], ["a/node_modules2"]),
    ("/foo/bar", ["foo/bar", "foo/bar/x"], ["x/foo/bar", "foo"]),
    ("foo/bar/", ["foo/bar", "foo/bar/x"], ["foo"]),
    ("./a/../b", ["b", "b/c"], ["a"]),
    (".", [], ["a", "a/b"]),
    ("**", ["a", "a/b", ".x"], []),
    ("a/**", ["a/b", "a/b/c"], ["a", "b/a"]),
    ("**/a/**/z", ["a/z", "x/a/b/c/z"], ["z", "a"]),
    ("**.txt", ["a.txt", "b/a.txt", ".txt"], ["a.txts"]),
    ("[a-c].py", ["a.py", "c.py"], ["d.py", "a.pyc"]),
    ("[^a].py", ["b.py"], ["a.py"]),
    (r"\*", ["*"], ["a"]),
    ("a.b", ["a.b"], ["axb"]),
    ("a+b(c)$", ["a+b(c)$"], ["aab(c)"]),
    ("  spaced \t", ["spaced"], ["  spaced"]),
]


@pytest.mark.parametrize(("pattern", "out", "kept"), CASES)
def test_patterns(pattern: str, out: list[str], kept: list[str]) -> None:
    ignore = Ignore.from_text(pattern)
    assert [path for path in out if not ignore(path)] == []
    assert [path for path in kept if ignore(path)] == []


def test_exceptions() -> None:
    ignore = Ignore.from_text("\ufeff# a comment\n*.md\n\n!README*.md\nREADME-secret.md\n")
    assert [p for p in ["a.md", "README.md", "README-secret.md", "x/a.md"] if ignore(p)] == [
        "a.md",
        "README-secret.md",
    ]
    last = Ignore.from_text("*.md\nREADME-secret.md\n!README*.md")
    assert not last("README-secret.md"), "the last line that matches decides"
    inner = Ignore.from_text("build\n!build/keep")
    assert inner.keeps
    assert inner("build/other")
    assert not inner("build/keep/this")
    assert not Ignore.from_text(" #no comment")("no comment")
    assert Ignore.from_text("a", ["!a"])("b") is False
    assert Ignore.from_text("a", ["!a"])("a") is False


@pytest.mark.parametrize("pattern", ["!", "[", "[z-a]", "! "])
def test_broken(pattern: str) -> None:
    with pytest.raises(InvalidRequestError, match="no pattern"):
        Ignore.from_text(pattern)
