"""What the API returns, as immutable values. Fields that are not known are ignored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

Json = Mapping[str, Any]


def parse_time(text: str | None) -> datetime | None:
    """Parses an RFC 3339 time; nanoseconds are cut to microseconds."""
    if not text:
        return None
    text = text.replace("Z", "+00:00")
    head, dot, tail = text.partition(".")
    if dot:
        digits = len(tail) - len(tail.lstrip("0123456789"))
        text = f"{head}.{tail[:digits][:6].ljust(6, '0')}{tail[digits:]}"
    return datetime.fromisoformat(text)


class Status(NamedTuple):
    """The state of a sandbox or a process: (-1, "running") while it lives."""

    exit_code: int
    state: str


@dataclass(frozen=True)
class BuiltImage:
    """An image in the server's store, ready to be a sandbox's root."""

    id: str
    digest: str = ""
    base: str = ""
    source: str = ""
    size: int = 0
    env: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    created_at: datetime | None = None
    cached: bool = False

    @classmethod
    def from_json(cls, data: Json) -> BuiltImage:
        """Reads an Image of the API."""
        return cls(
            id=data["id"],
            digest=data.get("digest", ""),
            base=data.get("base", ""),
            source=data.get("source", ""),
            size=data.get("size", 0),
            env=dict(data.get("env") or {}),
            entrypoint=tuple(data.get("entrypoint") or ()),
            cmd=tuple(data.get("cmd") or ()),
            working_dir=data.get("working_dir", ""),
            created_at=parse_time(data.get("created_at")),
            cached=bool(data.get("cached")),
        )


@dataclass(frozen=True)
class BuildEvent:
    """What an image build reports: kind is progress, log, image or error."""

    kind: str
    step: str = ""
    message: str = ""


@dataclass(frozen=True)
class DockerStatus:
    """The state of Docker in a sandbox."""

    state: str
    """disabled, starting, ready, restarting or failed."""
    code: str = ""
    reason: str = ""
    profile: str = ""
    version: str = ""
    seconds: float = 0.0
    """From the start of the sandbox to ready."""
    restarts: int = 0
    """How often dockerd or containerd died and was started again."""

    @classmethod
    def from_json(cls, data: Json) -> DockerStatus:
        """Reads a DockerStatus of the API."""
        return cls(
            state=data.get("state", "disabled"),
            code=data.get("code", ""),
            reason=data.get("reason", ""),
            profile=data.get("profile", ""),
            version=data.get("version", ""),
            seconds=float(data.get("seconds") or 0),
            restarts=int(data.get("restarts") or 0),
        )


@dataclass(frozen=True)
class PoolInfo:
    """Sandboxes that wait for a request that they fit."""

    id: str
    image: str
    """Empty while that of a declared pool is being built."""
    size: int
    """How many are to be ready."""
    ready: int
    """How many are."""
    memory: int
    """Bytes of each."""
    disk: int
    """Bytes of each."""
    docker: bool
    """Docker runs in them."""
    reason: str
    """Why fewer are ready, when it is not for the moment only."""
    declared: bool
    """The server's configuration asks for it; it cannot be deleted."""
    created_at: datetime | None

    @classmethod
    def from_json(cls, data: Json) -> PoolInfo:
        """Reads a Pool of the API."""
        return cls(
            id=data["id"],
            image=data["image"],
            size=int(data["size"]),
            ready=int(data["ready"]),
            memory=int(data["memory"]),
            disk=int(data["disk"]),
            docker=bool(data["docker"]),
            reason=data.get("reason", ""),
            declared=bool(data.get("declared")),
            created_at=parse_time(data.get("created_at")),
        )


@dataclass(frozen=True)
class TemplateInfo:
    """What sandboxes of one kind, with Docker, are restored from."""

    id: str
    image: str
    memory: int
    """Bytes. It serves sandboxes with this and up to twice as much."""
    disk: int
    """Bytes."""
    size: int
    """Bytes on the server's disk."""
    created_at: datetime | None
    used_at: datetime | None

    @classmethod
    def from_json(cls, data: Json) -> TemplateInfo:
        """Reads a Template of the API."""
        return cls(
            id=data["id"],
            image=data["image"],
            memory=int(data["memory"]),
            disk=int(data["disk"]),
            size=int(data["size"]),
            created_at=parse_time(data.get("created_at")),
            used_at=parse_time(data.get("used_at")),
        )


@dataclass(frozen=True)
class SnapshotInfo:
    """A sandbox that was kept as it was at one moment."""

    id: str
    sandbox: str
    """ID of the sandbox that it was taken of."""
    image: str
    cpu: float
    memory: int
    """Bytes that the sandbox had."""
    disk: int
    """Bytes that the sandbox had, and each new one has."""
    docker: bool
    """Docker runs in it."""
    size: int
    """Bytes on the server's disk."""
    created_at: datetime | None
    expires_at: datetime | None
    """When the server removes it; None: never."""

    @classmethod
    def from_json(cls, data: Json) -> SnapshotInfo:
        """Reads a Snapshot of the API."""
        return cls(
            id=data["id"],
            sandbox=data["sandbox"],
            image=data["image"],
            cpu=float(data["cpu"]),
            memory=int(data["memory"]),
            disk=int(data["disk"]),
            docker=bool(data["docker"]),
            size=int(data["size"]),
            created_at=parse_time(data.get("created_at")),
            expires_at=parse_time(data.get("expires_at")),
        )


@dataclass(frozen=True)
class SandboxInfo:
    """A sandbox as the server sees it."""

    id: str
    name: str
    state: str
    """creating, running, paused, terminating, terminated or failed."""
    idle: bool
    """It is paused by auto_pause: the next request resumes it."""
    persisted: bool
    """It is paused with its memory on the server's disk."""
    reason: str
    """Why it failed or ended, and the next step."""
    image: str
    cpu: float
    memory: int
    """Bytes."""
    disk: int
    """Bytes."""
    address: str
    start: str
    """pool: it was ready; warm: restored from a template; snapshot: it goes on from one;
    cold: started from its image."""
    docker: DockerStatus
    request_id: str
    """The request that made it, as named in the server's log."""
    created_at: datetime | None
    ended_at: datetime | None
    timings: Mapping[str, float]
    """Seconds that each phase of the start took."""

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.state in ("terminated", "failed")

    @classmethod
    def from_json(cls, data: Json) -> SandboxInfo:
        """Reads a Sandbox of the API."""
        return cls(
            id=data["id"],
            name=data.get("name", ""),
            state=data["state"],
            idle=bool(data.get("idle")),
            persisted=bool(data.get("persisted")),
            reason=data.get("reason", ""),
            image=data.get("image", ""),
            cpu=float(data.get("cpu") or 0),
            memory=int(data.get("memory") or 0),
            disk=int(data.get("disk") or 0),
            address=data.get("address", ""),
            start=data.get("start", ""),
            docker=DockerStatus.from_json(data.get("docker") or {}),
            request_id=data.get("request_id", ""),
            created_at=parse_time(data.get("created_at")),
            ended_at=parse_time(data.get("ended_at")),
            timings=dict(data.get("timings") or {}),
        )


@dataclass(frozen=True)
class ProcessInfo:
    """A process as the sandbox's agent sees it."""

    pid: int
    args: tuple[str, ...]
    cwd: str
    state: str
    """running or exited."""
    exit_code: int | None
    """Once exited; 128 + the signal's number after a signal."""
    signal: str
    """The signal that ended it, such as SIGKILL."""
    started_at: datetime | None
    exited_at: datetime | None

    @classmethod
    def from_json(cls, data: Json) -> ProcessInfo:
        """Reads a Process of the API."""
        code = data.get("exit_code")
        return cls(
            pid=int(data["pid"]),
            args=tuple(data.get("args") or ()),
            cwd=data.get("cwd", ""),
            state=data.get("state", "running"),
            exit_code=None if code is None else int(code),
            signal=data.get("signal", ""),
            started_at=parse_time(data.get("started_at")),
            exited_at=parse_time(data.get("exited_at")),
        )


@dataclass(frozen=True)
class CodeResult:
    """What run_code() returns: result is what the code printed, both streams."""

    pid: int
    exit_code: int
    stdout: str
    stderr: str

    @property
    def result(self) -> str:
        """Standard output followed by standard error."""
        return self.stdout + self.stderr

    def __str__(self) -> str:
        return self.result


@dataclass(frozen=True)
class FileInfo:
    """A file in a sandbox."""

    name: str
    path: str
    size: int
    """Bytes."""
    mode: str
    """Permission bits in octal, such as 0644."""
    type: str
    """file, directory, symlink or other."""
    target: str
    """Where a symlink points."""
    uid: int
    gid: int
    modified: datetime | None

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return self.type == "directory"

    @property
    def permissions(self) -> int:
        """The permission bits as a number, such as 0o644."""
        return int(self.mode or "0", 8)

    @classmethod
    def from_json(cls, data: Json) -> FileInfo:
        """Reads a FileInfo of the API."""
        return cls(
            name=data.get("name", ""),
            path=data.get("path", ""),
            size=int(data.get("size") or 0),
            mode=data.get("mode", ""),
            type=data.get("type", "other"),
            target=data.get("target", ""),
            uid=int(data.get("uid") or 0),
            gid=int(data.get("gid") or 0),
            modified=parse_time(data.get("modified")),
        )


@dataclass(frozen=True)
class ServerVersion:
    """The versions of a server."""

    version: str
    runsc: str
    api: str

    @classmethod
    def from_json(cls, data: Json) -> ServerVersion:
        """Reads the answer of GET /v1/version."""
        return cls(data.get("version", ""), data.get("runsc", ""), data.get("api", ""))
