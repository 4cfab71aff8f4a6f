from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from contract import Contract, Failure, Process
from innerdock import (
    Client,
    DockerCommandError,
    DockerDaemonFailedError,
    DockerDaemonNotReadyError,
    DockerDisabledError,
    DockerException,
    DockerNotInstalledError,
    DockerResult,
    Image,
    InvalidRequestError,
    Sandbox,
    SandboxDockerManager,
    SandboxInstance,
)

Call = Callable[[SandboxDockerManager], DockerResult]

CALLS: list[tuple[Call, str]] = [
    (lambda d: d.run("hello-world"), "run hello-world"),
    (
        lambda d: d.run(
            "nginx:latest",
            "nginx -g 'daemon off;'",
            name="web",
            detach=True,
            remove=True,
            volumes={"/workspace": "/srv", "cache": {"bind": "/c", "mode": "ro"}},
            env={"A": "1 2"},
            ports={8080: 80, "8443": "443/tcp"},
            network="front",
            extra_args=["--init"],
        ),
        "run --detach --rm --name web --network front -v /workspace:/srv -v cache:/c:ro "
        "--env|A=1 2 -p 8080:80 -p 8443:443/tcp --init nginx:latest nginx -g|daemon off;",
    ),
    (lambda d: d.run("i", ["a b", "c"]), "run|i|a b|c"),
    (lambda d: d.run("i", volumes=["a:/b:ro"], ports=["80:80"]), "run -v a:/b:ro -p 80:80 i"),
    (lambda d: d.pull("nginx:latest"), "pull nginx:latest"),
    (lambda d: d.pull("nginx:latest", quiet=True), "pull --quiet nginx:latest"),
    (lambda d: d.push("r/i:1"), "push r/i:1"),
    (lambda d: d.build("t:1"), "build --tag t:1 ."),
    (
        lambda d: d.build(
            "t:1",
            context="/workspace",
            dockerfile="D",
            build_args={"V": "1"},
            no_cache=True,
            quiet=True,
        ),
        "build --tag t:1 --file D --build-arg V=1 --no-cache --quiet /workspace",
    ),
    (lambda d: d.ps(), "ps"),
    (lambda d: d.ps(all=True, quiet=True), "ps --all --quiet"),
    (lambda d: d.images(quiet=True), "images --quiet"),
    (
        lambda d: d.exec("web", "ls -l", user="root", workdir="/"),
        "exec --workdir / --user root web ls -l",
    ),
    (lambda d: d.logs("web", follow=True, tail=5), "logs --follow --tail 5 web"),
    (lambda d: d.start("web"), "start web"),
    (lambda d: d.stop(["a", "b"], timeout=1), "stop --time 1 a b"),
    (lambda d: d.restart("web"), "restart web"),
    (lambda d: d.rm("web", force=True, volumes=True), "rm --force --volumes web"),
    (lambda d: d.rmi("i", force=True), "rmi --force i"),
    (lambda d: d.tag("a", "b"), "tag a b"),
    (lambda d: d.volume_create("v"), "volume create v"),
    (lambda d: d.volume_ls(quiet=True), "volume ls --quiet"),
    (lambda d: d.volume_inspect("v"), "volume inspect v"),
    (lambda d: d.volume_rm("v", force=True), "volume rm --force v"),
    (lambda d: d.network_create("n", internal=True), "network create --internal n"),
    (lambda d: d.network_ls(), "network ls"),
    (lambda d: d.network_inspect("n"), "network inspect n"),
    (lambda d: d.network_connect("n", "web"), "network connect n web"),
    (lambda d: d.network_disconnect("n", "web", force=True), "network disconnect --force n web"),
    (lambda d: d.network_rm("n"), "network rm n"),
    (lambda d: d.compose_up(), "compose --ansi never --file docker-compose.yml up --detach"),
    (
        lambda d: d.compose_up("c.yml", detach=False, build=True, wait=True, services=["web"]),
        "compose --ansi never --file c.yml up --build --wait web",
    ),
    (
        lambda d: d.compose_down(volumes=True),
        "compose --ansi never --file docker-compose.yml down --volumes",
    ),
    (
        lambda d: d.run(
            "i",
            stdin=True,
            workdir="/w",
            user="u",
            entrypoint="e",
            hostname="h",
            labels={"a": "b"},
            restart="always",
            memory="64m",
            cpus=0.5,
            pull="never",
        ),
        "run --interactive --workdir /w --user u --entrypoint e --hostname h --label a=b "
        "--restart always --memory 64m --cpus 0.5 --pull never i",
    ),
    (lambda d: d.run("i", tty=True), "run --tty i"),
    (lambda d: d.run("i", stdin="in", extra_args=["-i"]), "run -i i"),
    (lambda d: d.pull("i", platform="linux/arm64"), "pull --platform linux/arm64 i"),
    (
        lambda d: d.build("t", target="first", pull=True, network="none", labels={"a": 1}),
        "build --tag t --network none --target first --pull --label a=1 .",
    ),
    (
        lambda d: d.ps(filters={"status": "exited", "label": ["a", "b=1"]}),
        "ps --filter status=exited --filter label=a --filter label=b=1",
    ),
    (lambda d: d.images(all=True), "images --all"),
    (
        lambda d: d.exec("web", "sh", stdin=True, privileged=True, env={"A": 1}),
        "exec --env A=1 --privileged --interactive web sh",
    ),
    (lambda d: d.exec("web", "sh", tty=True, detach=True), "exec --detach --tty web sh"),
    (lambda d: d.attach("web"), "attach --sig-proxy=false --no-stdin web"),
    (lambda d: d.attach("web", stdin=True), "attach --sig-proxy=false web"),
    (lambda d: d.logs("web", timestamps=True, since="1m"), "logs --timestamps --since 1m web"),
    (lambda d: d.kill("web", "SIGHUP"), "kill --signal SIGHUP web"),
    (lambda d: d.rename("a", "b"), "rename a b"),
    (lambda d: d.cp("web:/a b", "/c"), "cp|web:/a b|/c"),
    (
        lambda d: d.commit("web", "i:1", message="m", changes=["CMD x"]),
        "commit|--message|m|--change|CMD x|web|i:1",
    ),
    (lambda d: d.save(["a", "b"], "/x.tar"), "save --output /x.tar a b"),
    (lambda d: d.load("/x.tar"), "load --input /x.tar"),
    (lambda d: d.logout("r:5000"), "logout r:5000"),
    (lambda d: d.volume_create("v", "d", {"a": "b"}), "volume create --driver d --label a=b v"),
    (
        lambda d: d.network_connect("n", "web", aliases="db"),
        "network connect --alias db n web",
    ),
    (lambda d: d.prune(all=True, volumes=True), "system prune --force --all --volumes"),
    (
        lambda d: d.compose_up(["a.yml", "b.yml"], scale={"w": 2}, profiles=["p"]),
        "compose --ansi never --file a.yml --file b.yml --profile p up --detach --scale w=2",
    ),
    (
        lambda d: d.compose_run("web", "ls -l", env={"A": "b"}),
        "compose --ansi never --file docker-compose.yml run --no-TTY --interactive=false --rm "
        "--env A=b web ls -l",
    ),
    (
        lambda d: d.compose_exec("web", "ls", user="u", workdir="/"),
        "compose --ansi never --file docker-compose.yml exec --no-TTY --workdir / --user u web ls",
    ),
    (
        lambda d: d.compose_pull(services="web"),
        "compose --ansi never --file docker-compose.yml pull web",
    ),
    (lambda d: d.compose_start("c"), "compose --ansi never --file c start"),
    (lambda d: d.compose_stop("c", timeout=1), "compose --ansi never --file c stop --timeout 1"),
    (lambda d: d.compose_restart("c"), "compose --ansi never --file c restart"),
    (lambda d: d.compose_config("c"), "compose --ansi never --file c config"),
    (lambda d: d.compose_ps(all=True), "compose --ansi never --file docker-compose.yml ps --all"),
    (
        lambda d: d.compose_logs(follow=True, tail=3),
        "compose --ansi never --file docker-compose.yml logs --no-color --follow --tail 3",
    ),
    (
        lambda d: d.compose_build(no_cache=True, pull=True),
        "compose --ansi never --file docker-compose.yml build --no-cache --pull",
    ),
    (lambda d: d.cli("inspect", "web"), "inspect web"),
]


@pytest.mark.parametrize(("call", "want"), CALLS, ids=[want.split("|")[0] for _, want in CALLS])
def test_commands(
    contract: Contract, docker_instance: SandboxInstance, call: Call, want: str
) -> None:
    result = call(docker_instance.docker)
    assert result.wait() is True
    words = [w for part in want.split("|") for w in ([part] if "|" in want else part.split())]
    if "|" in want:  # spaces between bars belong to a word; elsewhere they part words
        assert "\0".join(contract.commands()[-1][1:]).replace("\0", " ") == want.replace("|", " ")
    else:
        assert contract.commands()[-1] == ["docker", *words]


def test_docker_is_roots(contract: Contract, docker_instance: SandboxInstance) -> None:
    docker_instance.docker.ps()
    users = {body.get("user") for body in contract.sent("POST", ".*/processes")}
    assert users == {"root"}, "whoever the image's user is"


def test_words_of_commands(contract: Contract, docker_instance: SandboxInstance) -> None:
    docker_instance.docker.run("i", "sh -c 'echo a  b'").wait()
    docker_instance.docker.run("i", ["sh", "-c", "echo a  b"]).wait()
    assert contract.commands()[0] == contract.commands()[1]
    assert contract.commands()[0] == ["docker", "run", "i", "sh", "-c", "echo a  b"]


@pytest.mark.parametrize(
    "call",
    [
        lambda d: d.run("--privileged"),
        lambda d: d.run(""),
        lambda d: d.stop("-a"),
        lambda d: d.exec("web", ""),
        lambda d: d.build("t", context="-"),
        lambda d: d.run("i", ports={"80/tcp": 8080}),
        lambda d: d.run("i", ports=80),
        lambda d: d.run("i", volumes="a:b"),
        lambda d: d.cli(),
        lambda d: d.compose_exec("web", ""),
        lambda d: d.run("i", stdin=True, tty=True),
        lambda d: d.run("i", env={"A=B": "c"}),
        lambda d: d.cp("a", "b"),
        lambda d: d.cp("a:b", "c:d"),
        lambda d: d.cp("-", "c:d"),
        lambda d: d.rm([]),
        lambda d: d.compose_up([]),
        lambda d: d.login("me"),
        lambda d: d.login("me", "two\nlines"),
    ],
)
def test_bad_arguments(docker_instance: SandboxInstance, call: Call) -> None:
    with pytest.raises(InvalidRequestError):
        call(docker_instance.docker)


@pytest.mark.parametrize(
    ("method", "name", "said"),
    [
        ("run", "comand", "did you mean command"),
        ("run", "environment", r"did you mean env\?"),
        ("run", "rm", r"did you mean remove\?"),
        ("run", "privileged", r'extra_args=\["--privileged"\]'),
        ("run", "cap_add", r'extra_args=\["--cap-add"\]'),
        ("build", "path", r"did you mean context\?"),
        ("compose_up", "detatch", r"did you mean detach\?"),
        ("tag", "nonsense", "it has source, target"),
    ],
)
def test_unknown_arguments(
    contract: Contract, docker_instance: SandboxInstance, method: str, name: str, said: str
) -> None:
    with pytest.raises(TypeError, match=said) as caught:
        getattr(docker_instance.docker, method)("i", **{name: True})
    assert f"{method}() got an unexpected keyword argument '{name}'" in str(caught.value)
    assert contract.commands() == []


def says(out: bytes, err: bytes = b"", code: int = 0) -> Callable[[Process], int]:
    def script(process: Process) -> int:
        process.write(out)
        process.write(err, "stderr")
        return code

    return script


def test_result(contract: Contract, docker_instance: SandboxInstance) -> None:
    contract.script = says(b"Hello from Docker!\n", b"pulling\n")
    result = docker_instance.docker.run("hello-world")
    assert result.wait() is True
    assert result.exit_code == 0
    assert result.stdout.read() == "Hello from Docker!\n"
    assert result.stderr.read() == "pulling\n"
    assert result.success is True
    assert result.output == "Hello from Docker!\npulling\n"
    assert "Hello" in result
    assert "Hello" in result.stdout
    assert str(result) == "Hello from Docker!\n"
    assert result == "Hello from Docker!\n"
    assert result.check() is result


def test_results_are_truth_and_lines(contract: Contract, docker_instance: SandboxInstance) -> None:
    contract.script = says(b"id1\nid2\n")
    assert list(docker_instance.docker.ps(quiet=True)) == ["id1", "id2"]
    assert docker_instance.docker.ps(quiet=True).lines() == ["id1", "id2"]
    assert docker_instance.docker.volume_ls(quiet=True) == ["id1", "id2"]
    contract.script = says(b"", b"Error response from daemon: No such container: web\n", 1)
    assert not docker_instance.docker.stop("web")
    with pytest.raises(DockerCommandError):
        docker_instance.docker.ps(quiet=True)


def test_a_failed_command(contract: Contract, docker_instance: SandboxInstance) -> None:
    contract.script = says(b"", b"Unable to find image\n", 125)
    result = docker_instance.docker.run("none")
    assert result.wait() is False
    assert result.success is False
    with pytest.raises(DockerCommandError, match="Unable to find image") as caught:
        result.check()
    assert caught.value.command == ["docker", "run", "none"]
    assert caught.value.exit_code == 125
    assert caught.value.stderr == "Unable to find image\n"
    assert isinstance(caught.value, DockerException)


def test_logs_as_they_come(contract: Contract, docker_instance: SandboxInstance) -> None:
    seen = threading.Event()

    def script(process: Process) -> int:
        process.write(b"step 1\n", "stderr")
        assert seen.wait(10)
        process.write(b"step 2\n")
        return 0

    contract.script = script
    lines = []
    for line in docker_instance.docker.build("t").logs():
        lines.append(line)
        seen.set()
    assert lines == ["step 1\n", "step 2\n"]


def test_reading_waits_for_the_command(
    contract: Contract, docker_instance: SandboxInstance
) -> None:
    go = threading.Event()

    def script(process: Process) -> int:
        process.write(b"some")
        go.wait(10)
        process.write(b"thing\xc3")
        return 0

    contract.script = script
    result = docker_instance.docker.run("i")
    timer = threading.Timer(0.1, go.set)
    timer.start()
    assert result.stdout.read() == "something\ufffd"
    assert result.exit_code == 0
    assert result.stdout.read() == ""
    timer.join()


def test_quick_commands_have_ended(contract: Contract, docker_instance: SandboxInstance) -> None:
    assert docker_instance.docker.rm("web").exit_code == 0
    assert docker_instance.docker.ps().exit_code == 0
    contract.script = lambda process: 9 if process.killed() else 0
    running = docker_instance.docker.run("i")
    assert running.exit_code is None
    running.kill()
    assert running.wait() is False


def test_the_password_is_no_argument(contract: Contract, docker_instance: SandboxInstance) -> None:
    got: list[bytes] = []

    def script(process: Process) -> int:
        got.append(process.read_stdin())
        return 0

    contract.script = script
    assert docker_instance.docker.login("me", "s3cret", "registry.example.com").success
    assert got == [b"s3cret"]
    command = ["docker", "login", "--username", "me", "--password-stdin", "registry.example.com"]
    assert contract.commands() == [command]


def test_profile_minimal(contract: Contract, client: Client) -> None:
    docker = Sandbox(docker_enabled=True, docker_profile="minimal", client=client).create().docker
    docker.run("i").wait()
    docker.build("t").wait()
    docker.run("i", network="none").wait()
    docker.run("i", extra_args=["--net=none"]).wait()
    assert contract.commands() == [
        ["docker", "run", "--network", "host", "i"],
        ["docker", "build", "--tag", "t", "--network", "host", "."],
        ["docker", "run", "--network", "none", "i"],
        ["docker", "run", "--net=none", "i"],
    ]


# The daemon.


def test_every_method_waits_for_the_daemon(
    contract: Contract, docker_instance: SandboxInstance
) -> None:
    contract.docker = [{"state": "starting"}, {"state": "restarting"}, {"state": "ready"}]
    assert docker_instance.docker.ps().wait()
    waits = [q for m, p, q, _ in contract.requests if p.endswith("/docker")]
    assert len(waits) == 3
    assert all(0 < float(query["wait"]) <= 30 for query in waits)
    assert set(docker_instance.timings) == {"image", "create", "docker_ready"}
    docker_instance.docker.run("i").wait()
    assert set(docker_instance.timings) == {"image", "create", "docker_ready", "docker_run"}


def test_daemon_timeout(contract: Contract, client: Client) -> None:
    contract.docker = [{"state": "starting", "reason": "waiting for its socket"}]
    instance = Sandbox(docker_enabled=True, daemon_timeout=0.3, client=client).create()
    assert contract.sent("POST", "/v1/sandboxes")[0]["docker"]["ready_timeout"] == 60
    with pytest.raises(DockerDaemonNotReadyError) as caught:
        instance.docker.run("i")
    assert caught.value.timeout == 0.3
    assert caught.value.code == "docker_timeout"
    assert "0.3 s (waiting for its socket)" in str(caught.value)
    assert "instance.docker.daemon_timeout = 60" in str(caught.value)
    assert contract.commands() == []
    timer = threading.Timer(0.4, setattr, (contract, "docker", [{"state": "ready"}]))
    timer.start()
    instance.docker.daemon_timeout = 60
    assert instance.docker.run("i").wait()
    timer.join()
    assert DockerDaemonNotReadyError(30).timeout == 30


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("docker_not_installed", DockerNotInstalledError),
        ("docker_failed", DockerDaemonFailedError),
        ("docker_timeout", DockerDaemonNotReadyError),
        ("", DockerDaemonFailedError),
    ],
)
def test_failures_of_the_daemon(
    contract: Contract, docker_instance: SandboxInstance, code: str, kind: Any
) -> None:
    contract.docker = [{"state": "failed", "code": code, "reason": "exactly this message"}]
    with pytest.raises(kind) as caught:
        docker_instance.docker.run("i")
    assert str(caught.value) == "exactly this message"
    assert docker_instance.docker.is_daemon_ready() is False
    assert docker_instance.docker.status().reason == "exactly this message"


def test_docker_is_disabled(instance: SandboxInstance) -> None:
    with pytest.raises(DockerDisabledError, match="docker_enabled=True"):
        instance.docker.run("i")


def test_no_docker_command(contract: Contract, docker_instance: SandboxInstance) -> None:
    docker_instance.docker.wait_for_daemon()
    contract.requests.clear()
    original = contract.execute

    def execute(spec: dict[str, Any]) -> Process:
        raise Failure(422, "command_not_found", '"docker" was not found')

    contract.execute = execute  # type: ignore[method-assign]
    with pytest.raises(DockerNotInstalledError, match=r"Image\(\)\.with_docker\(\)"):
        docker_instance.docker.ps()
    contract.execute = original  # type: ignore[method-assign]
    assert docker_instance.docker.logs_of_daemon() == "dockerd says"


def test_the_tests_of_old(contract: Contract, client: Client) -> None:
    """What code written for the Docker manager does with results."""
    contract.script = says(b"CONTAINER ID\n")
    image = Image(python_version="python3.11").with_docker()
    instance = Sandbox(image=image, docker_enabled=True, client=client).create()
    instance.docker.build("test:latest", context="/workspace").wait()
    instance.docker.run("test:latest", detach=True, name="test-container").wait()
    ps_result = instance.docker.ps()
    ps_result.wait()
    assert ps_result.stdout.read() == "CONTAINER ID\n"
    assert instance.terminate()
