"""What is read out of Docker's output. The texts are those of real Dockers."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from innerdock import (
    Container,
    ContainerStats,
    DiskUsage,
    DockerBuildError,
    DockerCommandError,
    DockerComposeFileError,
    DockerConflictError,
    DockerImage,
    DockerImageNotFoundError,
    DockerLoginError,
    DockerNetwork,
    DockerNotFoundError,
    DockerPortInUseError,
    DockerRateLimitError,
    DockerRegistryError,
)
from innerdock._dockererrors import failure
from innerdock._dockermodels import parse_size

DAEMON = "Error response from daemon: "
COMPOSE = "docker compose --ansi never --file c.yml "

CASES: list[tuple[str, int, str, type[DockerCommandError]]] = [
    ("docker pull i", 1, f"{DAEMON}unauthorized\n", DockerLoginError),
    (
        "docker push r/i",
        1,
        "denied: requested access to the resource is denied\n",
        DockerLoginError,
    ),
    ("docker pull i", 1, f"{DAEMON}manifest unknown\n", DockerImageNotFoundError),
    (
        "docker pull i",
        1,
        f"{DAEMON}pull access denied for i, repository does not exist or may require "
        "'docker login': denied: requested access to the resource is denied\n",
        DockerImageNotFoundError,
    ),
    (
        "docker pull i",
        1,
        f"{DAEMON}toomanyrequests: You have reached your pull rate limit.\n",
        DockerRateLimitError,
    ),
    (
        "docker pull i",
        1,
        f"{DAEMON}received unexpected HTTP status: 500 Internal Server Error\n",
        DockerRegistryError,
    ),
    (
        "docker run i",
        125,
        "Unable to find image 'i:latest' locally\ndocker: " + DAEMON + 'Get "https://r/v2/": dial '
        "tcp: lookup r on 10.0.0.1:53: no such host.\nSee 'docker run --help'.\n",
        DockerRegistryError,
    ),
    (
        "docker run -p 80:80 i",
        125,
        f"docker: {DAEMON}driver failed programming external connectivity on endpoint x: Bind for "
        "0.0.0.0:80 failed: port is already allocated.\n",
        DockerPortInUseError,
    ),
    (
        "docker run --name web i",
        125,
        f'docker: {DAEMON}Conflict. The container name "/web" is already in use by container "1".'
        " You have to remove (or rename) that container to be able to reuse that name.\n",
        DockerConflictError,
    ),
    (
        "docker rm web",
        1,
        f"{DAEMON}cannot remove a running container 1: stop\n",
        DockerConflictError,
    ),
    ("docker volume rm v", 1, f"{DAEMON}get v: no such volume\n", DockerNotFoundError),
    ("docker network rm n", 1, f"{DAEMON}network n not found\n", DockerNotFoundError),
    ("docker inspect x", 1, "Error: No such object: x\n", DockerNotFoundError),
    ("docker logs x", 1, f"{DAEMON}No such container: x\n", DockerNotFoundError),
    # What a program in a container prints is no failure of Docker.
    ("docker run i", 1, "unauthorized: no such host\n", DockerCommandError),
    ("docker exec web curl x", 6, "curl: (6) no such host\n", DockerCommandError),
    ("docker logs web", 1, "port is already allocated\n", DockerCommandError),
    (COMPOSE + "up", 15, "yaml: line 3: did not find expected node\n", DockerComposeFileError),
    (
        COMPOSE + "ps",
        15,
        "validating /c.yml: services.a Additional property imge is not allowed\n",
        DockerComposeFileError,
    ),
    (COMPOSE + "up", 14, "open /c.yml: no such file or directory\n", DockerComposeFileError),
    (
        COMPOSE + "up",
        1,
        f" a Pulling \n{DAEMON}manifest for a:1 not found: manifest unknown\n",
        DockerImageNotFoundError,
    ),
    ("docker pause web", 1, f"{DAEMON}unsupported\n", DockerCommandError),
]


@pytest.mark.parametrize(("command", "code", "stderr", "kind"), CASES, ids=range(len(CASES)))
def test_causes(command: str, code: int, stderr: str, kind: type[DockerCommandError]) -> None:
    error = failure(command.split(), code, "", stderr)
    assert type(error) is kind
    assert error.code == kind.default_code
    assert (error.command, error.exit_code, error.stderr) == (command.split(), code, stderr)
    assert stderr.strip() in str(error)
    assert bool(error.hint) == (kind is not DockerCommandError)
    assert str(error).endswith(error.hint)


BUILDKIT = """#5 [2/3] RUN echo one
#5 0.179 one
#6 [3/3] RUN echo before; exit 7
#6 0.169 before
#5 0.170 late
#6 0.170 after
#6 ERROR: process "/bin/sh -c echo before; exit 7" did not complete successfully: exit code: 7
------
 > [3/3] RUN echo before; exit 7:
0.169 before
0.170 after
------
Dockerfile:3
--------------------
   3 | >>> RUN echo before; exit 7
--------------------
ERROR: failed to solve: process "/bin/sh -c echo before; exit 7" did not complete successfully: \
exit code: 7
"""
LEGACY = """Sending build context to Docker daemon  2.048kB
Step 1/2 : FROM busybox
 ---> 42d9d2cf50e9
Step 2/2 : RUN echo before; exit 7
 ---> Running in ab5393846611
before
"""


@pytest.mark.parametrize("command", ["docker build .", COMPOSE + "build", COMPOSE + "up --build"])
def test_a_step_of_buildkit(command: str) -> None:
    progress, final = BUILDKIT.rsplit("\nERROR: ", 1)
    error = failure(command.split(), 1, progress, final)  # as Compose does
    other = failure(command.split(), 1, "", BUILDKIT)
    assert isinstance(other, DockerBuildError)
    assert isinstance(error, DockerBuildError)
    assert error.step == "RUN echo before; exit 7"
    assert error.step_exit_code == 7
    assert error.log == ["before", "after"]
    assert (other.step, other.step_exit_code, other.log) == (error.step, 7, error.log)


def test_a_step_of_the_legacy_builder() -> None:
    said = "The command '/bin/sh -c echo before; exit 7' returned a non-zero code: 7\n"
    error = failure(["docker", "build", "."], 7, LEGACY, said)
    assert isinstance(error, DockerBuildError)
    assert (error.step, error.step_exit_code) == ("RUN echo before; exit 7", 7)
    assert error.log == ["before"]


@pytest.mark.parametrize(
    ("told", "log"),
    [
        ("before\n\x1b[91mwhy\n\x1b[0m", ["before", "why"]),
        ("\x1b[91mwhy\n\x1b[0mbefore\n", ["why", "before"]),  # it keeps no order
    ],
)
def test_the_legacy_builder_paints(told: str, log: list[str]) -> None:
    said = "The command '/bin/sh -c echo before; exit 7' returned a non-zero code: 7\n"
    error = failure(["docker", "build", "."], 7, LEGACY.removesuffix("before\n") + told, said)
    assert isinstance(error, DockerBuildError)
    assert error.log == log


def test_a_build_without_a_step() -> None:
    said = "ERROR: failed to solve: dockerfile parse error on line 2: unknown instruction: RUNN\n"
    error = failure(["docker", "build", "."], 1, "", said)
    assert isinstance(error, DockerBuildError)
    assert (error.step, error.step_exit_code, error.log) == ("", None, [said.strip()])


def test_sizes() -> None:
    texts = ["0B", "1.5KiB", "2.027MB", "1GiB", "29B", "", "--", "3kB (50%)"]
    assert [parse_size(text) for text in texts] == [0, 1536, 2027000, 1 << 30, 29, 0, 0, 3000]


def test_a_container_that_has_ended() -> None:
    data = {
        "Id": "abc",
        "Name": "/web",
        "Created": "2026-11-24T18:46:04.061077623Z",
        "Path": "sleep",
        "Args": ["9"],
        "State": {
            "Status": "exited",
            "OOMKilled": True,
            "ExitCode": 137,
            "StartedAt": "2026-11-24T18:46:04.3Z",
            "FinishedAt": "0001-01-01T00:00:00Z",
            "Health": {"Status": "unhealthy"},
        },
        "Config": {"Image": "i", "Labels": {"com.docker.compose.service": "s"}},
        "NetworkSettings": {
            "Ports": {"80/tcp": None, "53/udp": [{"HostIp": "::", "HostPort": "5353"}]}
        },
    }
    container = Container.from_json(data)
    assert (container.name, container.state, container.status) == ("web", "exited", "exited (137)")
    assert (container.exit_code, container.oom_killed) == (137, True)
    assert (container.health, container.service) == ("unhealthy", "s")
    assert container.command == ("sleep", "9")
    assert container.created == datetime(2026, 11, 24, 18, 46, 4, 61077, tzinfo=timezone.utc)
    assert container.finished is None
    assert [(port.port, port.host_port) for port in container.ports] == [(80, None), (53, 5353)]
    assert container.port(53, "udp") == 5353
    assert container.port(80) is None
    assert "raw" not in repr(container)
    assert container.raw is data


@pytest.mark.parametrize("kind", [Container, ContainerStats, DiskUsage, DockerImage, DockerNetwork])
def test_nothing_is_needed(kind: type) -> None:
    assert kind.from_json({}).raw == {}  # type: ignore[attr-defined]
