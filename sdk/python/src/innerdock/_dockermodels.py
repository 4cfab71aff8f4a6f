"""What Docker tells about its things, as immutable values; ``raw`` is all it told."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from ._models import parse_time

Json = Mapping[str, Any]

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
_UNITS.update({"ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40})


def parse_size(text: str) -> int:
    """Returns the bytes of a size as Docker shows it: ``1.5MiB``, ``20kB``, ``0B``."""
    match = re.match(r"\s*([\d.]+)\s*([a-zA-Z]*)", text or "")
    if match is None:
        return 0
    unit = match.group(2).lower().removesuffix("b")
    return round(float(match.group(1)) * _UNITS.get(unit, 1))


def _time(text: str | None) -> datetime | None:
    return None if not text or text.startswith("0001-") else parse_time(text)


def _percent(text: str) -> float:
    match = re.match(r"[\d.]+", text or "")
    return float(match.group()) if match else 0.0


def _pair(text: str) -> tuple[int, int]:
    first, _, second = (text or "").partition("/")
    return parse_size(first), parse_size(second)


@dataclass(frozen=True)
class PublishedPort:
    """A port of a container, and where the sandbox has it."""

    port: int
    protocol: str
    """tcp, udp or sctp."""
    host_ip: str = ""
    host_port: int | None = None
    """The sandbox's port; None if it is exposed and not published."""


@dataclass(frozen=True)
class Endpoint:
    """A container's place in a network."""

    ip: str
    gateway: str = ""
    mac: str = ""
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mount:
    """Something that is mounted in a container."""

    type: str
    """bind, volume or tmpfs."""
    source: str
    target: str
    name: str = ""
    """The volume's name."""
    read_only: bool = False


@dataclass(frozen=True)
class Container:
    """A container, as ``docker inspect`` describes it."""

    id: str
    name: str
    image: str
    """As it was named when the container was made."""
    image_id: str
    state: str
    """created, running, paused, restarting, removing, exited or dead."""
    health: str
    """starting, healthy or unhealthy; empty without a health check."""
    exit_code: int | None
    """None until it has ended."""
    oom_killed: bool
    error: str
    """Why it could not be started."""
    command: tuple[str, ...]
    created: datetime | None
    started: datetime | None
    finished: datetime | None
    restart_count: int
    ports: tuple[PublishedPort, ...]
    networks: Mapping[str, Endpoint]
    mounts: tuple[Mount, ...]
    labels: Mapping[str, str]
    raw: Json = field(repr=False, compare=False)

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.state == "running"

    @property
    def status(self) -> str:
        """The state for people: ``running (healthy)``, ``exited (3)``."""
        if self.exit_code is not None:
            return f"{self.state} ({self.exit_code})"
        return f"{self.state} ({self.health})" if self.health else self.state

    @property
    def service(self) -> str:
        """The service of a Compose file that it belongs to, or an empty string."""
        return self.labels.get("com.docker.compose.service", "")

    def port(self, port: int, protocol: str = "tcp") -> int | None:
        """Returns the sandbox's port that leads to a port of the container, if any."""
        for item in self.ports:
            if (item.port, item.protocol) == (port, protocol) and item.host_port:
                return item.host_port
        return None

    @classmethod
    def from_json(cls, data: Json) -> Container:
        """Reads an element of ``docker container inspect``."""
        state, config = data.get("State") or {}, data.get("Config") or {}
        settings = data.get("NetworkSettings") or {}
        name = state.get("Status", "")
        ended = name in ("exited", "dead") or (name == "removing" and not state.get("Running"))
        health = (state.get("Health") or {}).get("Status", "")
        return cls(
            id=data.get("Id", ""),
            name=data.get("Name", "").lstrip("/"),
            image=config.get("Image", ""),
            image_id=data.get("Image", ""),
            state=name,
            health="" if health == "none" else health,
            exit_code=int(state.get("ExitCode") or 0) if ended else None,
            oom_killed=bool(state.get("OOMKilled")),
            error=state.get("Error", ""),
            command=(*([data["Path"]] if data.get("Path") else []), *(data.get("Args") or ())),
            created=_time(data.get("Created")),
            started=_time(state.get("StartedAt")),
            finished=_time(state.get("FinishedAt")),
            restart_count=int(data.get("RestartCount") or 0),
            ports=tuple(_ports(settings.get("Ports") or {})),
            networks={
                key: Endpoint(
                    ip=item.get("IPAddress", ""),
                    gateway=item.get("Gateway", ""),
                    mac=item.get("MacAddress", ""),
                    aliases=tuple(item.get("Aliases") or ()),
                )
                for key, item in (settings.get("Networks") or {}).items()
            },
            mounts=tuple(
                Mount(
                    type=item.get("Type", ""),
                    source=item.get("Source", ""),
                    target=item.get("Destination", ""),
                    name=item.get("Name", ""),
                    read_only=not item.get("RW", True),
                )
                for item in data.get("Mounts") or ()
            ),
            labels=dict(config.get("Labels") or {}),
            raw=data,
        )


def _ports(ports: Json) -> Iterable[PublishedPort]:
    for key, places in ports.items():
        port, _, protocol = key.partition("/")
        protocol = protocol or "tcp"
        if not places:
            yield PublishedPort(int(port), protocol)
        for place in places or ():
            yield PublishedPort(
                int(port), protocol, place.get("HostIp", ""), int(place.get("HostPort") or 0)
            )


@dataclass(frozen=True)
class DockerImage:
    """An image of the sandbox's Docker, as ``docker image inspect`` describes it."""

    id: str
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    size: int
    """Bytes."""
    created: datetime | None
    architecture: str
    os: str
    command: tuple[str, ...]
    entrypoint: tuple[str, ...]
    env: Mapping[str, str]
    working_dir: str
    user: str
    labels: Mapping[str, str]
    layers: int
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, data: Json) -> DockerImage:
        """Reads an element of ``docker image inspect``."""
        config = data.get("Config") or {}
        pairs = (item.partition("=") for item in config.get("Env") or ())
        return cls(
            id=data.get("Id", ""),
            tags=tuple(data.get("RepoTags") or ()),
            digests=tuple(data.get("RepoDigests") or ()),
            size=int(data.get("Size") or 0),
            created=_time(data.get("Created")),
            architecture=data.get("Architecture", ""),
            os=data.get("Os", ""),
            command=tuple(config.get("Cmd") or ()),
            entrypoint=tuple(config.get("Entrypoint") or ()),
            env={name: value for name, _, value in pairs},
            working_dir=config.get("WorkingDir", ""),
            user=config.get("User", ""),
            labels=dict(config.get("Labels") or {}),
            layers=len((data.get("RootFS") or {}).get("Layers") or ()),
            raw=data,
        )


@dataclass(frozen=True)
class DockerVolume:
    """A volume."""

    name: str
    driver: str
    mountpoint: str
    labels: Mapping[str, str]
    created: datetime | None
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, data: Json) -> DockerVolume:
        """Reads an element of ``docker volume inspect``."""
        return cls(
            name=data.get("Name", ""),
            driver=data.get("Driver", ""),
            mountpoint=data.get("Mountpoint", ""),
            labels=dict(data.get("Labels") or {}),
            created=_time(data.get("CreatedAt")),
            raw=data,
        )


@dataclass(frozen=True)
class DockerNetwork:
    """A network."""

    id: str
    name: str
    driver: str
    subnets: tuple[str, ...]
    internal: bool
    containers: Mapping[str, str]
    """The addresses of the containers in it, by their names."""
    labels: Mapping[str, str]
    created: datetime | None
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, data: Json) -> DockerNetwork:
        """Reads an element of ``docker network inspect``."""
        ranges = (data.get("IPAM") or {}).get("Config") or ()
        return cls(
            id=data.get("Id", ""),
            name=data.get("Name", ""),
            driver=data.get("Driver", ""),
            subnets=tuple(item["Subnet"] for item in ranges if item.get("Subnet")),
            internal=bool(data.get("Internal")),
            containers={
                item.get("Name", key): item.get("IPv4Address", "").partition("/")[0]
                for key, item in (data.get("Containers") or {}).items()
            },
            labels=dict(data.get("Labels") or {}),
            created=_time(data.get("Created")),
            raw=data,
        )


@dataclass(frozen=True)
class DockerEvent:
    """Something that happened in a sandbox's Docker."""

    time: datetime
    type: str
    """container, image, volume, network, builder …"""
    action: str
    """create, start, die, oom, health_status: healthy …"""
    id: str
    name: str
    """Of the container, image, volume or network."""
    attributes: Mapping[str, str]
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, data: Json) -> DockerEvent:
        """Reads a line of ``docker events``."""
        actor = data.get("Actor") or {}
        attributes = dict(actor.get("Attributes") or {})
        micros = int(data.get("timeNano") or int(data.get("time") or 0) * 10**9) // 1000
        when = datetime.fromtimestamp(micros // 10**6, timezone.utc)
        return cls(
            time=when.replace(microsecond=micros % 10**6),
            type=data.get("Type", ""),
            action=data.get("Action", ""),
            id=actor.get("ID", ""),
            name=attributes.get("name", "") or actor.get("ID", ""),
            attributes=attributes,
            raw=data,
        )


@dataclass(frozen=True)
class ContainerStats:
    """What a container uses; sizes in bytes."""

    id: str
    name: str
    cpu_percent: float
    memory: int
    memory_limit: int
    memory_percent: float
    network_in: int
    network_out: int
    disk_read: int
    disk_written: int
    pids: int
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, data: Json) -> ContainerStats:
        """Reads a line of ``docker stats``."""
        memory, limit = _pair(data.get("MemUsage", ""))
        received, sent = _pair(data.get("NetIO", ""))
        read, written = _pair(data.get("BlockIO", ""))
        pids = data.get("PIDs", "")
        return cls(
            id=data.get("ID", ""),
            name=data.get("Name", ""),
            cpu_percent=_percent(data.get("CPUPerc", "")),
            memory=memory,
            memory_limit=limit,
            memory_percent=_percent(data.get("MemPerc", "")),
            network_in=received,
            network_out=sent,
            disk_read=read,
            disk_written=written,
            pids=int(pids) if pids.isdigit() else 0,
            raw=data,
        )


@dataclass(frozen=True)
class DiskUsage:
    """What one kind of Docker's data takes; sizes in bytes."""

    type: str
    """Images, Containers, Local Volumes or Build Cache."""
    total: int
    active: int
    size: int
    reclaimable: int
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, data: Json) -> DiskUsage:
        """Reads a line of ``docker system df``."""
        return cls(
            type=data.get("Type", ""),
            total=int(data.get("TotalCount") or 0),
            active=int(data.get("Active") or 0),
            size=parse_size(data.get("Size", "")),
            reclaimable=parse_size(data.get("Reclaimable", "")),
            raw=data,
        )


@dataclass(frozen=True)
class DockerInfo:
    """A sandbox's Docker, as ``docker info`` describes it."""

    version: str
    storage_driver: str
    containers: int
    running: int
    images: int
    cpus: int
    memory: int
    """Bytes."""
    kernel: str
    os: str
    architecture: str
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, data: Json) -> DockerInfo:
        """Reads ``docker info``."""
        return cls(
            version=data.get("ServerVersion", ""),
            storage_driver=data.get("Driver", ""),
            containers=int(data.get("Containers") or 0),
            running=int(data.get("ContainersRunning") or 0),
            images=int(data.get("Images") or 0),
            cpus=int(data.get("NCPU") or 0),
            memory=int(data.get("MemTotal") or 0),
            kernel=data.get("KernelVersion", ""),
            os=data.get("OperatingSystem", ""),
            architecture=data.get("Architecture", ""),
            raw=data,
        )


@dataclass(frozen=True)
class DockerVersion:
    """The versions of a sandbox's Docker."""

    client: str
    server: str
    api: str
    components: Mapping[str, str]
    """Such as containerd and runc."""
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, data: Json) -> DockerVersion:
        """Reads ``docker version``."""
        server = data.get("Server") or {}
        return cls(
            client=(data.get("Client") or {}).get("Version", ""),
            server=server.get("Version", ""),
            api=server.get("ApiVersion", ""),
            components={
                item.get("Name", ""): item.get("Version", "")
                for item in server.get("Components") or ()
            },
            raw=data,
        )
