from __future__ import annotations

import os
import socket
import tarfile
from pathlib import Path

import pytest

from innerdock import InvalidRequestError, _context
from innerdock._context import Source, pack


def make(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def names(*sources: tuple[str, Source]) -> list[str]:
    packed = pack(sources)
    with packed.file, tarfile.open(packed.path) as archive:
        return archive.getnames()


def test_directory(tmp_path: Path) -> None:
    make(
        tmp_path,
        {
            ".dockerignore": "**/*.log\nnode_modules\n!node_modules/keep.js\nempty.d\n",
            "app.py": "print(1)",
            "b/x.log": "",
            "b/y": "y",
            "node_modules/keep.js": "",
            "node_modules/other.js": "",
            "empty.d/z": "",
        },
    )
    packed = pack([("0", Source(tmp_path))])
    with packed.file, tarfile.open(packed.path) as archive:
        assert archive.getnames() == [
            "0", "0/.dockerignore", "0/app.py", "0/b", "0/b/y", "0/node_modules/keep.js",
        ]  # fmt: skip
        member = archive.getmember("0/app.py")
        assert (member.mtime, member.uid, member.uname, member.size) == (0, 0, "", 8)
        assert packed.size == packed.path.stat().st_size
    assert not packed.path.exists(), "closed is gone"
    assert names(("", Source(tmp_path, ignore=("*", "!app.py")))) == ["app.py"]


def test_the_same_files_are_the_same_archive(tmp_path: Path) -> None:
    digests = []
    for at, order in ((1, ["a", "b"]), (2, ["b", "a"])):
        root = tmp_path / str(at)
        make(root, {name: name for name in order})
        os.utime(root / "a", (at, at))
        with (packed := pack([("", Source(root))])).file:
            digests.append(packed.digest)
    assert digests[0] == digests[1]
    (tmp_path / "2/a").chmod(0o755)
    with (packed := pack([("", Source(tmp_path / "2"))])).file:
        assert packed.digest != digests[0], "a mode is content"


def test_its_own_ignore_file_comes_first(tmp_path: Path) -> None:
    make(tmp_path, {".dockerignore": "a", "App.dockerignore": "b", "a": "", "b": ""})
    found = names(("", Source(tmp_path, ignore_file="App.dockerignore")))
    assert found == ["App.dockerignore", "a"]


def test_rules_from_above(tmp_path: Path) -> None:
    make(tmp_path, {".dockerignore": "src/a\n**/*.log", "src/a": "", "src/b": "", "src/c.log": ""})
    src = Source(tmp_path / "src", ignore=("d",), above=tmp_path)
    make(tmp_path, {"src/d": ""})
    assert names(("0", src)) == ["0", "0/b"]
    make(tmp_path, {"src/.dockerignore": "b"})
    assert names(("0", src)) == ["0", "0/.dockerignore", "0/a", "0/c.log"]


def test_patterns(tmp_path: Path) -> None:
    make(
        tmp_path, {"src/a.py": "", "src/b.txt": "", "c/d": "", ".env": "", ".dockerignore": ".env"}
    )
    assert names(("0", Source(tmp_path, "src/*.py"))) == ["0", "0/src/a.py"]
    everything = ["0", "0/.dockerignore", "0/c", "0/c/d", "0/src", "0/src/a.py", "0/src/b.txt"]
    assert names(("0", Source(tmp_path, "*"))) == everything
    assert names(("0", Source(tmp_path, "**/*"))) == everything, "each of them once"
    with pytest.raises(InvalidRequestError, match="no such file"):
        names(("0", Source(tmp_path, "*.rs")))


def test_special_files(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    make(tmp_path, {"outside/secret": "s", "in/file": "f"})
    root = tmp_path / "in"
    (root / "link").symlink_to(outside)
    (root / "broken").symlink_to("nowhere")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(root)  # names of sockets are short
        try:
            server.bind("socket")
        finally:
            os.chdir(here)
        packed = pack([("", Source(root)), ("1", Source(root / "link/secret"))])
    with packed.file, tarfile.open(packed.path) as archive:
        assert archive.getnames() == ["broken", "file", "link", "1"]
        assert archive.getmember("link").issym(), "never what it points to"
    root.joinpath("setuid").write_text("")
    root.joinpath("setuid").chmod(0o4755)
    with (packed := pack([("", Source(root))])).file, tarfile.open(packed.path) as archive:
        assert archive.getmember("setuid").mode == 0o755


def test_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        names(("0", Source(tmp_path / "absent")))
    make(tmp_path, {"a": "x" * 10, "b": "x" * 10})
    monkeypatch.setattr(_context, "MAX_SIZE", 15)
    with pytest.raises(InvalidRequestError, match=r"\.dockerignore"):
        names(("0", Source(tmp_path)))
    monkeypatch.setattr(_context, "MAX_SIZE", 100)
    monkeypatch.setattr(_context, "MAX_FILES", 1)
    with pytest.raises(InvalidRequestError, match="more than 1 files"):
        names(("0", Source(tmp_path)))
    monkeypatch.undo()
    (tmp_path / os.fsdecode(b"\xff")).write_text("")
    with pytest.raises(InvalidRequestError, match="not UTF-8"):
        names(("0", Source(tmp_path)))
