"""Files in a sandbox."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .._errors import InvalidRequestError
from .._local import CHUNK, AsyncReader, AsyncWriter
from .._models import FileInfo
from .transport import Transport


class SandboxFileSystem:
    """Reads and writes the files of a sandbox. Relative paths are under /workspace."""

    def __init__(self, transport: Transport, base: str) -> None:
        self._transport = transport
        self._base = f"{base}/files"

    async def upload_file(self, local_path: str | os.PathLike[str], sandbox_path: str) -> FileInfo:
        """Copies a file of this machine, with its permissions, into the sandbox."""
        path = Path(local_path)
        stat = path.stat()  # noqa: ASYNC240 - no longer than a lookup
        data = await self._transport.json(
            "PUT",
            f"{self._base}/content",
            params={"path": sandbox_path, "mode": _mode(stat.st_mode & 0o777)},
            content=AsyncReader(path),
            headers=_binary(stat.st_size),
        )
        return FileInfo.from_json(data)

    async def download_file(self, sandbox_path: str, local_path: str | os.PathLike[str]) -> None:
        """Copies a file of the sandbox to this machine; complete, or not at all."""
        async with (
            self._transport.stream(
                "GET", f"{self._base}/content", params={"path": sandbox_path}
            ) as response,
            AsyncWriter(Path(local_path)) as file,
        ):
            async for chunk in response.aiter_bytes(CHUNK):
                await file.write(chunk)

    async def read_bytes(self, sandbox_path: str) -> bytes:
        """Returns the content of a file."""
        response = await self._transport.request(
            "GET", f"{self._base}/content", params={"path": sandbox_path}, limit=None
        )
        return response.content

    async def read_text(self, sandbox_path: str, encoding: str = "utf-8") -> str:
        """Returns the content of a file as text."""
        return (await self.read_bytes(sandbox_path)).decode(encoding)

    async def write_bytes(self, sandbox_path: str, data: bytes, mode: int = 0o644) -> FileInfo:
        """Writes a file, replacing what was there; missing directories are made."""
        info = await self._transport.json(
            "PUT",
            f"{self._base}/content",
            params={"path": sandbox_path, "mode": _mode(mode)},
            content=bytes(data),
            headers=_binary(len(data)),
        )
        return FileInfo.from_json(info)

    async def write_text(
        self, sandbox_path: str, text: str, encoding: str = "utf-8", mode: int = 0o644
    ) -> FileInfo:
        """Writes a file of text, replacing what was there."""
        return await self.write_bytes(sandbox_path, text.encode(encoding), mode)

    async def list_files(self, sandbox_path: str = ".") -> list[FileInfo]:
        """Returns what is in a directory."""
        data = await self._ask("GET", "list", sandbox_path)
        return [FileInfo.from_json(item) for item in data["files"] or ()]

    async def stat_file(self, sandbox_path: str) -> FileInfo:
        """Returns what is known about a file or a directory."""
        return FileInfo.from_json(await self._ask("GET", "info", sandbox_path))

    async def create_directory(self, sandbox_path: str, mode: int = 0o755) -> FileInfo:
        """Makes a directory and those above it."""
        return FileInfo.from_json(
            await self._ask("POST", "directory", sandbox_path, mode=_mode(mode))
        )

    async def delete_file(self, sandbox_path: str) -> None:
        """Deletes a file."""
        await self._transport.request("DELETE", self._base, params={"path": sandbox_path})

    async def delete_directory(self, sandbox_path: str) -> None:
        """Deletes a directory with everything in it."""
        await self._transport.request(
            "DELETE", self._base, params={"path": sandbox_path, "recursive": "true"}
        )

    async def _ask(self, method: str, what: str, path: str, **params: str) -> Any:
        return await self._transport.json(
            method, f"{self._base}/{what}", params={"path": path, **params}
        )


def _mode(mode: int) -> str:
    if not 0 <= mode <= 0o777:
        raise InvalidRequestError(f"mode={mode} is no set of permissions; write it like 0o644")
    return f"{mode:04o}"


def _binary(size: int) -> dict[str, str]:
    return {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
