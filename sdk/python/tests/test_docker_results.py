"""What the Docker manager's methods return, and how they end."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import pickle
import threading
from typing import Any

import pytest

from contract import Contract, Process
from innerdock import (
    Client,
    DockerCommandError,
    DockerDone,
    DockerList,
    DockerLoginError,
    DockerNotFoundError,
    DockerText,
    InnerdockTimeoutError,
    InvalidRequestError,
    ProcessTimeoutError,
    Sandbox,
    SandboxDockerManager,
    SandboxInstance,
    aio,
)


@pytest.fixture
def docker(docker_instance: SandboxInstance) -> SandboxDockerManager:
    return docker_instance.docker


def says(out: bytes, err: bytes = b"", code: int = 0) -> Any:
    def script(process: Process) -> int:
        process.write(out)
        process.write(err, "stderr")
        return code

    return script


NO_CONTAINER = b"Error response from daemon: No such container: web\n"


def test_text_is_a_str_that_can_be_asked(contract: Contract, docker: SandboxDockerManager) -> None:
    contract.script = says(b"ID NAME\n1  web\n", b"said\n")
    table = docker.ps()
    assert isinstance(table, DockerText)
    assert isinstance(table, str)
    assert table == "ID NAME\n1  web"
    assert table.splitlines()[1].split() == ["1", "web"]
    assert table.wait() is True
    assert table.success is True
    assert table.exit_code == 0
    assert table.stdout.read() == "ID NAME\n1  web\n"
    assert table.stderr.read() == "said\n"
    assert table.output == "ID NAME\n1  web\nsaid\n"
    assert table.lines() == ["ID NAME", "1  web"]
    assert list(table.logs()) == []  # read above
    assert table.text() == "ID NAME\n1  web\n"
    assert table.check() is table
    assert table.error() is None
    assert pickle.loads(pickle.dumps(table)) == copy.deepcopy(table) == str(table)


def test_a_list_is_a_list_that_can_be_asked(
    contract: Contract, docker: SandboxDockerManager
) -> None:
    contract.script = says(b"a\nb\n")
    found = docker.images(quiet=True)
    assert isinstance(found, DockerList)
    assert found == ["a", "b"]
    assert json.dumps(found) == '["a", "b"]'
    assert found.wait() is True
    assert found.stdout.read() == "a\nb\n"
    assert pickle.loads(pickle.dumps(found)) == found
    contract.script = says(b"")
    assert docker.ps(quiet=True) == []


def test_done_is_like_a_bool_that_can_be_asked(
    contract: Contract, docker: SandboxDockerManager
) -> None:
    contract.script = says(b"web\n")
    done = docker.stop("web")
    assert isinstance(done, DockerDone)
    assert done == True  # noqa: E712 - as programs say
    assert (bool(done), int(done), str(done)) == (True, 1, "True")
    assert done.wait() is True
    assert done.stdout.read() == "web\n"
    assert done.check() is done
    assert {True: "yes"}[done] == "yes"
    contract.script = says(b"", NO_CONTAINER, 1)
    done = docker.stop("web")
    assert done == False  # noqa: E712
    assert not done
    assert done.wait() is False
    assert done.exit_code == 1
    assert done.stderr.read() == NO_CONTAINER.decode()
    assert isinstance(done.error(), DockerNotFoundError)
    with pytest.raises(DockerNotFoundError, match="No such container: web"):
        done.check()
    assert pickle.loads(pickle.dumps(done)) is False


def test_a_failure_is_looked_at_or_warned_of(
    contract: Contract, docker: SandboxDockerManager
) -> None:
    contract.script = says(b"", NO_CONTAINER, 1)
    with pytest.warns(RuntimeWarning, match="nobody looked at a failure: `docker stop web`"):
        docker.stop("web")
    for look in (bool, lambda d: d == 1, lambda d: d.wait(), lambda d: d.exit_code, str):
        look(docker.stop("web"))
    gc.collect()


@pytest.mark.parametrize(
    "call",
    [
        lambda d: d.ps(),
        lambda d: d.ps(quiet=True),
        lambda d: d.images(),
        lambda d: d.volume_ls(),
        lambda d: d.network_inspect("n"),
        lambda d: d.compose_ps(),
        lambda d: d.containers(),
        lambda d: d.inspect("web"),
        lambda d: d.list_images(),
        lambda d: d.info(),
        lambda d: d.stats(),
        lambda d: d.top("web"),
        lambda d: list(d.events()),
    ],
)
def test_what_cannot_say_that_it_failed_raises(
    contract: Contract, docker: SandboxDockerManager, call: Any
) -> None:
    contract.script = says(b"", b"Cannot connect to the Docker daemon\n", 1)
    with pytest.raises(DockerCommandError, match="Cannot connect"):
        call(docker)


def test_the_id_of_a_detached_container(contract: Contract, docker: SandboxDockerManager) -> None:
    contract.script = says(b"0123abcd\n", b"Unable to find image 'i' locally\n")
    assert docker.run("i", detach=True).output == "0123abcd"


def test_progress_as_it_comes(contract: Contract, docker: SandboxDockerManager) -> None:
    seen = threading.Event()

    def script(process: Process) -> int:
        process.write(b"pulling\n")
        assert seen.wait(10)
        process.write(b"warning\n", "stderr")
        return 1

    contract.script = script
    lines = []
    pull = docker.pull("i")
    assert pull.stream(lambda line: (lines.append(line), seen.set())) is pull
    assert lines == ["pulling\n", "warning\n"]
    assert pull.wait() is False
    seen.clear()
    got = []
    for line in docker.compose_up():
        got.append(line)
        seen.set()
    assert got == lines


def test_the_block_of_a_command_ends_it(contract: Contract, docker: SandboxDockerManager) -> None:
    contract.script = lambda process: 130 if process.killed() == "SIGINT" else 1
    with docker.build("t") as build, pytest.raises(ProcessTimeoutError):
        build.wait(timeout=0.05)
    assert build.exit_code == 130
    with docker.run("i", detach=True):
        pass
    contract.script = says(b"")
    with docker.pull("i") as pull:
        assert pull.wait()


def test_ctrl_c_while_waiting(
    contract: Contract, docker: SandboxDockerManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract.script = lambda process: 130 if process.killed() == "SIGINT" else 1
    build = docker.build("t")
    real = build.process._state.transport.json
    calls: list[str] = []

    def interrupted(method: str, path: str, **rest: Any) -> Any:
        calls.append(path)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return real(method, path, **rest)

    monkeypatch.setattr(build.process._state.transport, "json", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build.wait()
    assert build.exit_code == 130


def test_a_command_that_does_not_care(
    contract: Contract, docker: SandboxDockerManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("innerdock._sync.streams.INTERRUPT_GRACE", 0.1)
    signals: list[str] = []

    def script(process: Process) -> int:
        signals.append(process.killed())
        with process.changed:
            process.changed.wait_for(lambda: process.signal == "SIGKILL", 10)
            signals.append(process.signal)
        return 137

    contract.script = script
    with docker.pull("i") as pull:
        pass
    assert pull.process.wait(5) == 137
    assert signals == ["SIGINT", "SIGKILL"]


@pytest.mark.parametrize("how", ["wait", "iterate", "read"])
def test_cancellation(contract: Contract, host: str, how: str) -> None:
    contract.script = lambda process: 130 if process.killed() == "SIGINT" else 1

    async def main() -> None:
        async with aio.Client(host) as client:
            sandbox = await aio.Sandbox(docker_enabled=True, client=client).create()
            build = await sandbox.docker.build("t")

            async def use() -> None:
                if how == "wait":
                    await build.wait()
                elif how == "read":
                    await build.stdout.read()
                else:
                    async for _ in build:
                        pass

            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(use(), 0.2)
            assert build.exit_code == 130

    asyncio.run(main())


def test_other_processes_go_on(contract: Contract, host: str) -> None:
    contract.script = lambda process: 1 if process.killed(0.5) else 0

    async def main() -> None:
        async with aio.Client(host) as client:
            sandbox = await aio.Sandbox(client=client).create()
            process = await sandbox.process.exec("prog")
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(process.wait(), 0.1)
            assert await process.wait() == 0

    asyncio.run(main())


def test_waiting_for_a_container(contract: Contract, docker: SandboxDockerManager) -> None:
    contract.script = says(b"3\n")
    assert docker.wait("web") == 3
    contract.script = lambda process: 137 if process.killed() else 0
    with pytest.raises(InnerdockTimeoutError, match="web did not end within"):
        docker.wait("web", timeout=0.05)
    assert max(contract.processes.values(), key=lambda p: p.pid).signal == "SIGKILL"


def test_events(contract: Contract, docker: SandboxDockerManager) -> None:
    def line(action: str, nanos: int) -> bytes:
        actor = {"ID": "1", "Attributes": {"name": "web"}}
        event = {"Type": "container", "Action": action, "Actor": actor, "timeNano": nanos}
        return json.dumps(event).encode() + b"\n"

    start = 1793534400 * 10**9  # NOW of the contract

    def script(process: Process) -> int:
        process.write(line("create", start - 1) + line("start", start + 10**9))
        return 137 if process.killed() else 0

    contract.script = script
    events = docker.events({"type": "container"})
    event = next(iter(events))
    gc.collect()  # the loop is left
    assert (event.action, event.name, event.time.year) == ("start", "web", 2026)
    assert events.result.process.wait(5) == 137
    command = contract.commands()[-1]
    assert command[:6] == ["docker", "events", "--filter", "type=container", "--since", "30s"]
    with docker.events(since="1h", until="0s") as past:
        assert next(iter(past)).action == "create"
    assert contract.commands()[-1][2:6] == ["--since", "1h", "--until", "0s"]


def test_things_that_vanish_in_between(contract: Contract, docker: SandboxDockerManager) -> None:
    def script(process: Process) -> int:
        if process.spec["args"][1] == "ps":
            process.write(b"1\n2\n")
            return 0
        process.write(b'[{"Id": "1", "Name": "/web"}]\n')
        process.write(b"Error response from daemon: No such container: 2\n", "stderr")
        return 1

    contract.script = script
    assert [container.name for container in docker.containers()] == ["web"]
    with pytest.raises(DockerNotFoundError):
        docker.inspect("2")
    contract.script = says(b"")
    assert docker.containers() == docker.list_images() == docker.list_volumes() == []


def test_a_stack(contract: Contract, docker: SandboxDockerManager) -> None:
    contract.script = says(b"web\ndb\n")
    stack = docker.compose_up("c.yml", cwd="/w")
    assert stack.wait() is True
    assert stack.services == ["web", "db"]
    assert stack.ps() == "web\ndb"
    assert stack.logs("web", tail=1) == "web\ndb"
    with stack.logs(follow=True) as following:
        assert list(following) == ["web\n", "db\n"]
    assert stack.exec("web", "ls").check()
    assert stack.stop()
    assert stack.down(volumes=True)
    head = ["docker", "compose", "--ansi", "never", "--file", "c.yml"]
    assert contract.commands() == [
        [*head, "up", "--detach"],
        [*head, "config", "--services"],
        [*head, "ps"],
        [*head, "logs", "--no-color", "--tail", "1", "web"],
        [*head, "logs", "--no-color", "--follow"],
        [*head, "exec", "--no-TTY", "web", "ls"],
        [*head, "stop"],
        [*head, "down", "--volumes"],
    ]
    assert {body["cwd"] for body in contract.sent("POST", r".*/processes")[1:]} == {"/w"}
    contract.script = says(b"", b"yaml: line 3: no\n", 15)
    broken = docker.compose_up()
    with pytest.raises(DockerCommandError, match="yaml"):
        broken.ps()


# The login with the sandbox's environment.


def logins(contract: Contract) -> list[list[str]]:
    started = [body["args"] for body in contract.sent("POST", r".*/processes")]
    return [args for args in started if args[0] == "sh"]


def test_the_login_is_tried_once(contract: Contract, docker: SandboxDockerManager) -> None:
    docker.ps()
    docker.run("i").wait()
    assert len(logins(contract)) == 1
    assert logins(contract)[0][3:] == ["docker login", "", "once"]


def test_a_login_of_the_program_is_enough(contract: Contract, docker: SandboxDockerManager) -> None:
    assert docker.login("me", "secret")
    docker.ps()
    assert logins(contract) == []


def test_a_login_that_fails_is_told(contract: Contract, docker: SandboxDockerManager) -> None:
    contract.login = says(b"", b"unauthorized: wrong\n", 1)
    with pytest.warns(RuntimeWarning, match="DOCKER_USERNAME.*unauthorized: wrong"):
        docker.ps()
    docker.ps()
    assert len(logins(contract)) == 1


def test_a_login_that_hangs(contract: Contract, client: Client) -> None:
    contract.login = lambda process: 137 if process.killed() else 0
    docker = Sandbox(docker_enabled=True, daemon_timeout=0.3, client=client).create().docker
    with pytest.warns(RuntimeWarning, match=r"no answer within 0\.3 s"):
        assert docker.ps() == ""


def test_login_by_hand_with_the_environment(
    contract: Contract, docker: SandboxDockerManager
) -> None:
    with pytest.raises(InvalidRequestError, match="DOCKER_USERNAME"):
        docker.login()
    contract.login = says(b"Login Succeeded\n")
    assert docker.login(registry="r.example")
    assert logins(contract)[-1][3:] == ["docker login", "r.example"]
    contract.login = says(b"", b"Error response from daemon: unauthorized\n", 1)
    with pytest.raises(DockerLoginError):
        docker.login().check()
