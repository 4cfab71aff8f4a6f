from __future__ import annotations

import os
from pathlib import Path

import pytest

from contract import Contract
from innerdock import InvalidRequestError, NotFoundError, SandboxInstance


def test_bytes_and_text(contract: Contract, instance: SandboxInstance) -> None:
    info = instance.fs.write_bytes("a b/ü?.bin", b"\x00\xff", mode=0o600)
    assert (info.path, info.size, info.permissions, info.is_dir) == ("a b/ü?.bin", 2, 0o600, False)
    assert instance.fs.read_bytes("a b/ü?.bin") == b"\x00\xff"
    instance.fs.write_text("t", "täxt")
    assert instance.fs.read_text("t") == "täxt"
    assert contract.files["t"] == "täxt".encode()
    instance.fs.write_text("t", "é", encoding="latin-1")
    assert instance.fs.read_text("t", encoding="latin-1") == "é"
    instance.fs.write_bytes("empty", b"")
    assert instance.fs.read_bytes("empty") == b""


def test_list_stat_delete(contract: Contract, instance: SandboxInstance) -> None:
    assert instance.fs.list_files() == []
    instance.fs.write_text("d/f", "12345")
    assert [file.name for file in instance.fs.list_files("d")] == ["f"]
    assert instance.fs.stat_file("d/f").size == 5
    assert instance.fs.create_directory("e", mode=0o700).is_dir
    instance.fs.delete_file("d/f")
    with pytest.raises(NotFoundError, match="d/f"):
        instance.fs.delete_file("d/f")
    instance.fs.write_text("d/f", "")
    instance.fs.delete_directory("d")
    assert contract.files == {}


def test_upload_and_download(contract: Contract, instance: SandboxInstance, tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    local = tmp_path / "up"
    local.write_bytes(data)
    local.chmod(0o750)
    info = instance.fs.upload_file(local, "/srv/file")
    assert (info.size, info.mode) == (len(data), "0750")
    assert contract.files["/srv/file"] == data
    instance.fs.download_file("/srv/file", str(tmp_path / "down"))
    assert (tmp_path / "down").read_bytes() == data


def test_a_download_is_complete_or_not_there(
    contract: Contract, instance: SandboxInstance, tmp_path: Path
) -> None:
    target = tmp_path / "down"
    target.write_text("before")
    with pytest.raises(NotFoundError):
        instance.fs.download_file("/none", target)
    assert target.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir() if path.name != "s"] == ["down"]


def test_upload_of_no_file(instance: SandboxInstance, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        instance.fs.upload_file(tmp_path / "none", "x")


def test_a_decimal_mode_is_a_mistake(instance: SandboxInstance) -> None:
    with pytest.raises(InvalidRequestError, match="0o644"):
        instance.fs.write_text("f", "", mode=644)
