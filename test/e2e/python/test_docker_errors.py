"""What goes wrong with Docker, and what the Docker manager says about it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import PATIENCE, SOURCES, Server
from innerdock import (
    Client,
    DockerBuildError,
    DockerCommandError,
    DockerComposeFileError,
    DockerConflictError,
    DockerImageNotFoundError,
    DockerLoginError,
    DockerNotFoundError,
    DockerPortInUseError,
    DockerRateLimitError,
    DockerRegistryError,
    DockerResult,
    Image,
    InvalidRequestError,
    ProcessTimeoutError,
    Sandbox,
    SandboxDockerManager,
    SandboxInstance,
    aio,
)

REGISTRY = "127.0.0.1:5000"
CANARY = "canary-7f3a9c"
SLEEP = ["sleep", "600"]
Call = Callable[[SandboxDockerManager], Any]


def start_registry(instance: SandboxInstance, password: str = "") -> None:
    """Starts faulty_registry.py in a sandbox."""
    instance.fs.upload_file(Path(__file__).parent / "faulty_registry.py", "/opt/registry.py")
    process = instance.process.exec("python3", "/opt/registry.py", password)
    assert next(iter(process.stdout)) == "listening\n"


def stop_registry(instance: SandboxInstance) -> None:
    """Ends faulty_registry.py in a sandbox."""
    for process in instance.process.list_processes().values():
        if "/opt/registry.py" in process.args and process.exit_code is None:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def box(client: Client, docker_image: Image) -> Iterator[SandboxInstance]:
    sandbox = Sandbox(image=docker_image, docker_enabled=True, memory="2Gi", client=client)
    with sandbox.create() as instance:
        start_registry(instance)
        instance.docker.pull("busybox:latest").check()
        instance.docker.run("busybox", SLEEP, name="taken", detach=True, ports={8090: 80}).check()
        yield instance


@pytest.fixture
def docker(box: SandboxInstance) -> SandboxDockerManager:
    return box.docker


FAILURES: list[tuple[str, type[DockerCommandError], Call]] = [
    ("No such container", DockerNotFoundError, lambda d: d.stop("nobody").check()),
    ("No such container", DockerNotFoundError, lambda d: d.inspect("nobody")),
    ("No such container", DockerNotFoundError, lambda d: d.exec("nobody", "ls").check()),
    ("No such container", DockerNotFoundError, lambda d: d.logs("nobody").check()),
    ("no such volume", DockerNotFoundError, lambda d: d.volume_rm("nothing").check()),
    ("nothing", DockerNotFoundError, lambda d: d.network_inspect("nothing")),
    ("No such image", DockerImageNotFoundError, lambda d: d.tag("none", "other").check()),
    ("Could not find", DockerNotFoundError, lambda d: d.cp("taken:/none", "/tmp/").check()),
    ("taken", DockerConflictError, lambda d: d.run("busybox", name="taken").check()),
    ("busybox", DockerConflictError, lambda d: d.rmi("busybox").check()),
    ("force", DockerConflictError, lambda d: d.rm("taken").check()),
    (
        "port is already allocated",
        DockerPortInUseError,
        lambda d: d.run("busybox", SLEEP, detach=True, remove=True, ports={8090: 80}).check(),
    ),
    ("executable file not found", DockerCommandError, lambda d: d.run("busybox", "none").check()),
    ("must be lowercase", DockerCommandError, lambda d: d.run("UPPER").check()),
    ("not found", DockerBuildError, lambda d: d.build("t", "no/such/directory").check()),
]


@pytest.mark.parametrize(("said", "kind", "call"), FAILURES, ids=range(len(FAILURES)))
def test_failures_are_typed(
    docker: SandboxDockerManager, said: str, kind: type[DockerCommandError], call: Call
) -> None:
    with pytest.raises(DockerCommandError, match=said) as caught:
        call(docker)
    assert type(caught.value) is kind
    assert caught.value.command[0] == "docker"
    assert caught.value.exit_code > 0
    assert said in caught.value.stderr
    assert caught.value.hint in str(caught.value)
    assert caught.value.hint or kind is DockerCommandError


def test_a_failure_that_nobody_looks_at(docker: SandboxDockerManager) -> None:
    with pytest.warns(RuntimeWarning, match="`docker stop nobody` failed with exit code 1"):
        docker.stop("nobody")


PULLS: list[tuple[str, type[DockerCommandError], str]] = [
    ("unauthorized", DockerLoginError, "docker.login"),
    ("missing", DockerImageNotFoundError, "name and tag"),
    ("limited", DockerRateLimitError, "Wait"),
    ("broken", DockerRegistryError, "try again"),
]


@pytest.mark.parametrize(("habit", "kind", "hint"), PULLS)
def test_a_registry_that_refuses(
    docker: SandboxDockerManager, habit: str, kind: type[DockerCommandError], hint: str
) -> None:
    with pytest.raises(DockerCommandError) as caught:
        docker.pull(f"{REGISTRY}/{habit}/image:1").check()
    assert type(caught.value) is kind
    assert hint in caught.value.hint
    with pytest.raises(DockerCommandError) as caught:
        docker.run(f"{REGISTRY}/{habit}/image:1").check()
    assert type(caught.value) is kind


def test_a_registry_that_is_not_there(docker: SandboxDockerManager) -> None:
    with pytest.raises(DockerRegistryError, match="connection refused"):
        docker.pull("127.0.0.1:5999/image").check()


@pytest.mark.parametrize("habit", ["slow", "truncated"])
def test_a_registry_that_does_not_finish(docker: SandboxDockerManager, habit: str) -> None:
    """Docker waits, or tries again; who has no time left says so, and it is over."""
    with docker.pull(f"{REGISTRY}/{habit}/image:1") as pull:
        if habit == "truncated":
            assert any("Retrying" in line for line in pull)
        with pytest.raises(ProcessTimeoutError):
            pull.wait(timeout=1)
    assert pull.process.wait(timeout=PATIENCE) != 0
    assert docker.list_images(filters={"reference": f"{REGISTRY}/*/*"}) == []


def test_a_registry_that_tells_lies(docker: SandboxDockerManager) -> None:
    with pytest.raises(DockerRegistryError, match="verification failed"):
        docker.pull(f"{REGISTRY}/corrupt/image:1").check()


BUILD = """FROM busybox:latest
RUN echo first
RUN echo before; echo why >&2; exit 7
RUN echo never
"""


@pytest.mark.parametrize("builder", ["1", "0"])
def test_a_build_that_fails_in_the_middle(
    box: SandboxInstance, docker: SandboxDockerManager, builder: str
) -> None:
    box.fs.write_text("mid/Dockerfile", BUILD)
    build = docker.build("mid", "mid") if builder == "1" else legacy_build(box)
    with pytest.raises(DockerBuildError) as caught:
        build.check()
    error = caught.value
    assert error.step == "RUN echo before; echo why >&2; exit 7"
    assert error.step_exit_code == 7
    assert sorted(error.log) == ["before", "why"]  # no builder keeps order between two streams
    assert error.exit_code != 0
    assert "before" in error.stderr or builder == "0"
    assert error.code == "docker_build_failed"


def legacy_build(box: SandboxInstance) -> DockerResult:
    env = {"DOCKER_BUILDKIT": "0"}
    return DockerResult(box.process.exec("docker", "build", "--tag", "mid", "mid", env=env))


def test_builds_that_do_not_begin(box: SandboxInstance, docker: SandboxDockerManager) -> None:
    box.fs.write_text("bad/Dockerfile", "FROM busybox\nRUNN x\n")
    with pytest.raises(DockerBuildError, match="unknown instruction: RUNN") as caught:
        docker.build("bad", "bad").check()
    assert caught.value.step == ""
    box.fs.write_text("bad/Dockerfile", f"FROM {REGISTRY}/missing/image:1\n")
    with pytest.raises(DockerBuildError) as caught:
        docker.build("bad", "bad").check()
    assert "missing/image" in caught.value.step
    assert caught.value.step_exit_code is None
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("services:\n  a:\n    image: [\n", "yaml"),
        ("services:\n  a:\n    imge: busybox\n", "imge"),
        ("services:\n  a: {}\n", "neither an image nor a build"),
        ("services:\n  a: {image: busybox, networks: [gone]}\n", "undefined network"),
    ],
)
def test_compose_files_that_are_wrong(
    box: SandboxInstance, docker: SandboxDockerManager, text: str, said: str
) -> None:
    box.fs.write_text("wrong/docker-compose.yml", text)
    for call in (
        lambda: docker.compose_up(cwd="wrong").check(),
        lambda: docker.compose_ps(cwd="wrong"),
        lambda: docker.compose_config(cwd="wrong"),
        lambda: docker.compose_down(cwd="wrong").check(),
    ):
        with pytest.raises(DockerComposeFileError, match=said):
            call()
    with pytest.raises(DockerComposeFileError, match="no such file"):
        docker.compose_up("missing.yml", cwd="wrong").check()


def test_compose_services_that_cannot_start(
    box: SandboxInstance, docker: SandboxDockerManager
) -> None:
    file = "cannot/docker-compose.yml"
    box.fs.write_text(file, f"services:\n  a: {{image: '{REGISTRY}/missing/image:1'}}\n")
    with pytest.raises(DockerImageNotFoundError):
        docker.compose_up(cwd="cannot").check()
    box.fs.write_text(
        file, "services:\n  a: {image: busybox, command: sleep 9, ports: ['8090:80']}\n"
    )
    stack = docker.compose_up(cwd="cannot")
    with pytest.raises(DockerPortInUseError):
        stack.ps()
    assert stack.down()
    box.fs.write_text(file, "services:\n  a:\n    build: .\n")
    box.fs.write_text("cannot/Dockerfile", BUILD)
    with pytest.raises(DockerBuildError) as caught:
        docker.compose_build(cwd="cannot").check()
    assert caught.value.step_exit_code == 7


NO_NAMES = ["--privileged", "-v", "", " ", "a\nb", "a b", "a\0b", "a\x1bb"]
POSITIONS: list[Callable[[SandboxDockerManager, str], Any]] = [
    lambda d, name: d.run(name),
    lambda d, name: d.run("busybox", name=name),
    lambda d, name: d.run("busybox", network=name),
    lambda d, name: d.exec(name, "ls"),
    lambda d, name: d.attach(name),
    lambda d, name: d.logs(name),
    lambda d, name: d.inspect(name),
    lambda d, name: d.start(name),
    lambda d, name: d.stop(name),
    lambda d, name: d.restart([name]),
    lambda d, name: d.kill(name),
    lambda d, name: d.wait(name),
    lambda d, name: d.rename("taken", name),
    lambda d, name: d.rm(name),
    lambda d, name: d.top(name),
    lambda d, name: d.commit("taken", name),
    lambda d, name: d.pull(name),
    lambda d, name: d.push(name),
    lambda d, name: d.build(name),
    lambda d, name: d.inspect_image(name),
    lambda d, name: d.tag("busybox", name),
    lambda d, name: d.rmi(name),
    lambda d, name: d.save(name, "/tmp/x"),
    lambda d, name: d.login("me", "secret", name),
    lambda d, name: d.logout(name),
    lambda d, name: d.volume_create(name),
    lambda d, name: d.volume_rm(name),
    lambda d, name: d.volume_inspect(name),
    lambda d, name: d.network_create(name),
    lambda d, name: d.network_rm(name),
    lambda d, name: d.network_inspect(name),
    lambda d, name: d.network_connect(name, "taken"),
    lambda d, name: d.network_disconnect("bridge", name),
    lambda d, name: d.compose_up(services=[name]),
    lambda d, name: d.compose_exec(name, "ls"),
    lambda d, name: d.compose_run(name),
    lambda d, name: d.stats([name]),
]


def test_a_name_is_never_an_option(docker: SandboxDockerManager, box: SandboxInstance) -> None:
    before = set(box.process.list_processes())
    for call in POSITIONS:
        for name in NO_NAMES:
            with pytest.raises(InvalidRequestError):
                call(docker, name)
    assert set(box.process.list_processes()) == before, "nothing of it was started"


# Ctrl-C and cancellation.

INTERRUPTED = """
import sys
from innerdock import Sandbox
docker = Sandbox.connect(sys.argv[1]).docker
result = docker.build("endless", "endless") if sys.argv[2] == "build" else docker.pull(sys.argv[3])
print("started", flush=True)
if sys.argv[2] == "build":
    for line in result:
        print(line, end="", flush=True)
result.wait()
"""


def docker_commands(box: SandboxInstance) -> list[str]:
    """Returns the build and pull commands and the endless steps that run in the sandbox."""
    script = (
        "import glob\n"
        "for p in glob.glob('/proc/[0-9]*/cmdline'):\n"
        "    try: print(open(p).read().replace(chr(0), ' '))\n"
        "    except OSError: pass\n"
    )
    shown = box.process.run_code(script).stdout.splitlines()
    words = ("docker build", "docker pull", "docker-buildx", "sleep 987654")
    return [line for line in shown if any(word in line for word in words)]


def gone(box: SandboxInstance) -> bool:
    end = time.monotonic() + PATIENCE
    while docker_commands(box):
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


@pytest.mark.parametrize("what", ["build", "pull"])
def test_ctrl_c_ends_what_runs(box: SandboxInstance, host: str, what: str) -> None:
    box.fs.write_text("endless/Dockerfile", "FROM busybox\nRUN echo begun; sleep 987654\n")
    path = os.pathsep.join(str(source) for source in SOURCES)
    program = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, box.id, what, f"{REGISTRY}/slow/image:1"],
        env={**os.environ, "PYTHONPATH": path, "INNERDOCK_HOST": host},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    sign = {"build": " begun\n", "pull": "started\n"}[what]
    assert any(line.endswith(sign) for line in program.stdout)
    assert docker_commands(box)
    program.send_signal(signal.SIGINT)
    _, said = program.communicate(timeout=PATIENCE)
    assert program.returncode == -signal.SIGINT, said
    assert "KeyboardInterrupt" in said
    assert gone(box), docker_commands(box)
    assert box.docker.ps(), "the daemon goes on"


@pytest.mark.parametrize("what", ["build", "pull"])
def test_cancellation_ends_what_runs(box: SandboxInstance, host: str, what: str) -> None:
    box.fs.write_text("endless/Dockerfile", "FROM busybox\nRUN echo begun; sleep 987654\n")

    async def main() -> None:
        async with aio.Client(host) as client:
            docker = (await aio.Sandbox.connect(box.id, client=client)).docker
            if what == "build":
                result = await docker.build("endless", "endless")
            else:
                result = await docker.pull(f"{REGISTRY}/slow/image:1")
            task = asyncio.ensure_future(result.wait())
            if what == "build":
                async for line in result:
                    if line.endswith(" begun\n"):
                        break
            assert await result.process.poll() is None
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await result.process.poll() is not None

    asyncio.run(main())
    assert gone(box), docker_commands(box)


# Secrets.

SCAN = """
import glob
found = []
for path in glob.glob('/proc/[0-9]*/cmdline') + glob.glob('/proc/[0-9]*/environ'):
    try: text = open(path, 'rb').read()
    except OSError: continue
    if CANARY in text: found.append(path)
print(found)
""".replace("CANARY", "bytes.fromhex(" + repr(CANARY.encode().hex()) + ")")


def test_a_login_is_seen_by_nobody(
    box: SandboxInstance, docker: SandboxDockerManager, server: Server | None, client: Client
) -> None:
    stop_registry(box)
    start_registry(box, CANARY)
    seen: list[str] = []
    good = docker.login("someone", CANARY, REGISTRY)
    assert good
    bad = docker.login("someone", f"{CANARY}-wrong", REGISTRY)
    assert not bad
    with pytest.raises(DockerLoginError) as caught:
        bad.check()
    with pytest.raises(InvalidRequestError) as refused:
        docker.login("someone", f"{CANARY}\n{CANARY}", REGISTRY)
    error = caught.value
    seen += [repr(good), repr(bad), repr(docker), repr(error), str(error), repr(vars(error))]
    seen += [repr(refused.value), good.output, bad.output, repr(good.process), repr(client)]
    commands = box.process.list_processes().values()
    seen += [repr(process) for process in commands if process.args[0] == "docker"]
    seen += [box.logs(), docker.logs_of_daemon()]
    if server is not None:
        seen += [server.log.read_text(), server.cli("logs", box.id)]
    assert [text for text in seen if CANARY in text] == []
    stop_registry(box)  # which has the password as an argument
    assert box.process.run_code(SCAN).stdout == "[]\n"
    docker.logout(REGISTRY).check()
    start_registry(box)


def test_nobody_is_watching_while_it_logs_in(box: SandboxInstance) -> None:
    """Looks at every process again and again while a login is under way."""
    watch = box.process.exec(
        "python3",
        "-c",
        "import sys\nprint('watching', flush=True)\nhits = set()\n"
        "import glob, select\n"
        f"needle = bytes.fromhex('{('login-' + CANARY).encode().hex()}')\n"
        "seen = 0\n"
        "while not select.select([sys.stdin], [], [], 0)[0]:\n"
        "    for path in glob.glob('/proc/[0-9]*/cmdline') + glob.glob('/proc/[0-9]*/environ'):\n"
        "        try: text = open(path, 'rb').read()\n"
        "        except OSError: continue\n"
        "        seen += b'--password-stdin' in text\n"
        "        if needle in text: hits.add(path)\n"
        "print(seen > 0, sorted(hits))\n",
        stdin=True,
    )
    lines = iter(watch.stdout)
    assert next(lines) == "watching\n"
    for _ in range(3):
        assert box.docker.login("someone", f"login-{CANARY}", REGISTRY)
    watch.stdin.close()
    assert next(lines) == "True []\n"
    box.docker.logout(REGISTRY).check()


def test_the_login_of_the_sandbox_environment(client: Client, docker_image: Image) -> None:
    env = {
        "DOCKER_USERNAME": "someone",
        "DOCKER_PASSWORD": CANARY,
        "DOCKER_REGISTRY": REGISTRY,
    }
    sandbox = Sandbox(image=docker_image, docker_enabled=True, env=env, client=client)
    with sandbox.create() as instance:
        start_registry(instance, CANARY)
        instance.docker.version()
        config = instance.fs.read_text("/root/.docker/config.json")
        assert REGISTRY in config
        arguments = [process.args for process in instance.process.list_processes().values()]
        login = [words for words in arguments if "docker login" in words]
        assert len(login) == 1, "once"
        assert CANARY not in str(login)
        again = Sandbox.connect(instance.id, client=client).docker
        again.version()
        assert again.login(registry=REGISTRY)
        instance.process.exec("rm", "/root/.docker/config.json").wait()
        stop_registry(instance)
        with pytest.warns(RuntimeWarning, match="login with DOCKER_USERNAME") as warned:
            assert Sandbox.connect(instance.id, client=client).docker.ps()
        assert CANARY not in str(warned[0].message)


def test_login_without_credentials(docker: SandboxDockerManager) -> None:
    with pytest.raises(InvalidRequestError, match="DOCKER_USERNAME"):
        docker.login()
    with pytest.raises(InvalidRequestError, match="password is empty"):
        docker.login("me", "")
