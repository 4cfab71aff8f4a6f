"""Files of this machine that an image is made with: packed into one archive."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, cast

from ._errors import InvalidRequestError
from ._ignore import Ignore

MAX_FILES = 200_000
MAX_SIZE = 4 << 30
"""How many files, and bytes of them, go with an image at most."""

IGNORE_FILE = ".dockerignore"


@dataclass(frozen=True)
class Source:
    """A file, a directory, or what a pattern finds below one."""

    path: Path  # absolute
    pattern: str = ""
    ignore: tuple[str, ...] = ()
    ignore_file: str = IGNORE_FILE
    above: Path | None = None  # the directory whose rules hold if it has none of its own

    def entries(self) -> Iterator[tuple[str, Path]]:
        """Yields what belongs to it: the name relative to it ("" for a file), and the path."""
        if not self.path.is_dir():
            yield "", self.path
            return
        ignore = self._ignore()
        if not self.pattern:
            yield from _walk(self.path, "", ignore)
            return
        seen: set[str] = set()
        for found in sorted(self.path.glob(self.pattern)):
            name = found.relative_to(self.path).as_posix()
            if ignore(name):
                continue
            below = _walk(found, name + "/", ignore) if _is_directory(found) else ()
            for entry, path in [(name, found), *below]:
                if entry not in seen:
                    seen.add(entry)
                    yield entry, path
        if not seen:
            raise InvalidRequestError(f"add_local_path({self.pattern!r}): there is no such file")

    def _ignore(self) -> _Rules:
        for name in (self.ignore_file, IGNORE_FILE):
            text = _read(self.path / name)
            if text is not None:
                other = () if name == IGNORE_FILE else (IGNORE_FILE,)  # BuildKit minds it as well
                return _Rules(Ignore.from_text(text, (*self.ignore, *other)))
        text = _read(self.above / IGNORE_FILE) if self.above is not None else None
        if self.above is None or text is None:
            return _Rules(Ignore(self.ignore))
        at = self.path.relative_to(self.above).as_posix() + "/"
        return _Rules(Ignore(self.ignore), Ignore.from_text(text), at)


@dataclass(frozen=True)
class _Rules:
    """What is left out: by a directory's own rules, and by those of one above it."""

    own: Ignore
    above: Ignore = field(default_factory=Ignore)
    at: str = ""

    def __call__(self, name: str) -> bool:
        return self.own(name) or self.above(self.at + name)

    @property
    def keeps(self) -> bool:
        return self.own.keeps or self.above.keeps


def _read(path: Path) -> str | None:
    """Returns what an ignore file says, if it is there."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as cause:
        raise InvalidRequestError(f"{path} cannot be read: {cause}") from cause


@dataclass(frozen=True)
class Packed:
    """An archive in a temporary file, which its user closes."""

    file: IO[bytes]
    digest: str
    size: int

    @property
    def path(self) -> Path:
        """Where it is until it is closed."""
        return Path(self.file.name)


def pack(sources: Sequence[tuple[str, Source]]) -> Packed:
    """Packs sources under their names ("" for the archive's root).

    The same files give the same archive: names are sorted, and there are no times
    and no owners in it. Symlinks stay what they are; pipes, sockets and devices are
    left out.
    """
    file = cast("IO[bytes]", tempfile.NamedTemporaryFile(prefix="innerdock-"))  # noqa: SIM115
    try:
        writer = _Hashing(file)
        with tarfile.open(fileobj=writer, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            _add(archive, sources)
        file.flush()
    except BaseException:
        file.close()
        raise
    return Packed(file, "sha256:" + writer.hash.hexdigest(), writer.size)


class _Hashing(io.RawIOBase):
    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self.file, self.hash, self.size = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.hash.update(data)
        self.size += len(data)
        return self.file.write(data)


def _add(archive: tarfile.TarFile, sources: Sequence[tuple[str, Source]]) -> None:
    files = size = 0
    for prefix, source in sources:
        if prefix and source.path.is_dir():
            _add_entry(archive, prefix, source.path)
        for name, path in source.entries():
            full = str(PurePosixPath(prefix, name))
            size += _add_entry(archive, full, path, follow=not name)
            files += 1
            if files > MAX_FILES or size > MAX_SIZE:
                raise InvalidRequestError(
                    f"{source.path} has more than {MAX_FILES} files or {MAX_SIZE >> 30} GiB: "
                    f"name what the image does not need in {source.path / IGNORE_FILE}"
                )


def _add_entry(archive: tarfile.TarFile, name: str, path: Path, follow: bool = False) -> int:
    try:
        name.encode()
    except UnicodeEncodeError as cause:
        raise InvalidRequestError(f"the name of {path!r} is not UTF-8: rename it") from cause
    info = tarfile.TarInfo(name)
    try:
        about = path.lstat()
        info.mode = stat.S_IMODE(about.st_mode) & 0o777
        if stat.S_ISLNK(about.st_mode) and not follow:
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
            archive.addfile(info)
        elif _is_directory(path):
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
        elif path.is_file():
            return _add_file(archive, info, path)
    except OSError as cause:
        raise InvalidRequestError(f"{path} cannot be read: {cause.strerror or cause}") from cause
    return 0


def _add_file(archive: tarfile.TarFile, info: tarfile.TarInfo, path: Path) -> int:
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    with open(os.open(path, flags), "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            return 0
        info.size, info.mode = about.st_size, stat.S_IMODE(about.st_mode) & 0o777
        archive.addfile(info, file)
    return info.size


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _walk(directory: Path, prefix: str, ignore: _Rules) -> Iterator[tuple[str, Path]]:
    """Yields what is below a directory, sorted, without what is ignored."""
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError as cause:
        raise InvalidRequestError(f"{directory} cannot be read: {cause.strerror}") from cause
    for entry in entries:
        name = prefix + entry.name
        left_out = ignore(name)
        if not left_out:
            yield name, Path(entry.path)
        if entry.is_dir(follow_symlinks=False) and (not left_out or ignore.keeps):
            yield from _walk(Path(entry.path), name + "/", ignore)
