"""The Docker manager's methods, one after the other, in a sandbox they share."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conftest import PATIENCE
from innerdock import (
    Client,
    DockerDone,
    DockerList,
    DockerResult,
    DockerText,
    Image,
    InnerdockTimeoutError,
    Sandbox,
    SandboxDockerManager,
    SandboxInstance,
    aio,
)


@pytest.fixture(scope="module")
def box(client: Client, docker_image: Image) -> Iterator[SandboxInstance]:
    sandbox = Sandbox(image=docker_image, docker_enabled=True, memory="2Gi", client=client)
    with sandbox.create() as instance:
        for image in ("busybox:latest", "nginx:latest"):
            instance.docker.pull(image).check()
        yield instance


@pytest.fixture
def docker(box: SandboxInstance) -> Iterator[SandboxDockerManager]:
    yield box.docker
    left = box.docker.ps(all=True, quiet=True)
    if left:
        box.docker.rm(left, force=True, volumes=True).check()


SLEEP = ["sleep", "600"]


def test_output_comes_while_it_runs_and_input_goes(docker: SandboxDockerManager) -> None:
    script = "echo one; read word; echo got $word; exit 3"
    result = docker.run("busybox", ["sh", "-c", script], stdin=True)
    lines = iter(result)
    assert next(lines) == "one\n"
    assert result.process.poll() is None
    result.stdin.write("this\n")
    assert next(lines) == "got this\n"
    assert result.wait() is False
    assert result.exit_code == 3
    assert docker.run("busybox", "cat", stdin=b"bytes\n", remove=True) == "bytes\n"


def test_run_options(docker: SandboxDockerManager) -> None:
    result = docker.run(
        "busybox",
        ["-c", "pwd; id -u; hostname; echo $A; test -t 1 && echo tty"],
        workdir="/tmp",
        user="1000",
        entrypoint="/bin/sh",
        hostname="there",
        env={"A": "b c"},
        labels={"who": "me"},
        tty=True,
    ).check()
    assert result.lines() == ["/tmp", "1000", "there", "b c", "tty"]
    assert [c.name for c in docker.containers(all=True, filters={"label": "who=me"})]
    started = docker.run("busybox", SLEEP, detach=True, restart="always")
    assert docker.inspect(started.output).running
    assert docker.inspect(started.output).raw["HostConfig"]["RestartPolicy"]["Name"] == "always"


def test_ps_and_images_serve_both_uses(docker: SandboxDockerManager) -> None:
    docker.run("busybox", SLEEP, name="both", detach=True).check()
    table = docker.ps()
    assert isinstance(table, str)
    assert table.startswith("CONTAINER ID")
    assert table.wait() is True
    assert table.stdout.read() == table + "\n"
    ids = docker.ps(quiet=True)
    assert isinstance(ids, list)
    assert [c.id[:12] for c in docker.containers()] == ids
    assert json.dumps(ids) == f'["{ids[0]}"]'
    assert ids.stdout.read() == f"{ids[0]}\n"
    images = docker.images()
    assert isinstance(images, DockerText)
    assert "busybox" in images
    assert isinstance(docker.images(quiet=True), DockerList)
    stopped = docker.stop("both", timeout=0)
    assert isinstance(stopped, DockerDone)
    assert stopped == True  # noqa: E712 - as a program of today may say
    assert stopped.wait() is True
    assert docker.ps(quiet=True) == []


def test_a_container_as_a_value(docker: SandboxDockerManager) -> None:
    docker.volume_create("values").check()
    docker.run(
        "nginx",
        name="value",
        detach=True,
        ports={8081: 80},
        volumes={"values": "/data:ro", "/workspace": "/srv"},
        labels={"a": "b"},
        extra_args=["--health-cmd", "true", "--health-interval", "1s"],
    ).check()
    with docker.events({"container": "value"}, since="1m") as events:
        assert any(event.action == "health_status: healthy" for event in events)
    found = docker.inspect("value")
    assert (found.name, found.image, found.state, found.health) == (
        "value",
        "nginx",
        "running",
        "healthy",
    )
    assert found.status == "running (healthy)"
    assert found.running
    assert found.exit_code is None
    assert found.oom_killed is False
    assert found.port(80) == 8081
    assert found.networks["bridge"].ip.startswith("172.")
    mounts = {mount.target: mount for mount in found.mounts}
    assert (mounts["/data"].name, mounts["/data"].read_only) == ("values", True)
    assert (mounts["/srv"].type, mounts["/srv"].source) == ("bind", "/workspace")
    assert found.labels["a"] == "b"
    assert found.created is not None
    assert found.started is not None
    assert found.created <= found.started
    assert found.raw["Id"] == found.id
    docker.kill("value").check()
    assert docker.wait("value", timeout=PATIENCE) == 137
    assert docker.inspect("value").status == "exited (137)"
    docker.rm("value").check()
    docker.volume_rm("values").check()


def test_the_life_of_a_container(docker: SandboxDockerManager) -> None:
    docker.run("busybox", SLEEP, name="life", detach=True).check()
    with pytest.raises(InnerdockTimeoutError, match=r"life did not end within 0\.2 s"):
        docker.wait("life", timeout=0.2)
    assert docker.restart("life", timeout=0)
    assert docker.stop("life", timeout=0)
    assert docker.start("life")
    assert docker.rename("life", "second-life")
    assert docker.inspect("second-life").running
    assert docker.rm(["second-life"], force=True)
    assert docker.containers(all=True) == []


def test_limits_of_a_container(docker: SandboxDockerManager) -> None:
    hog = ["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=2"]
    result = docker.run("busybox", hog, name="hog", memory="64m")
    assert (result.wait(), result.exit_code) == (False, 137)
    found = docker.inspect("hog")
    assert (found.oom_killed, found.status) == (True, "exited (137)")
    warned = docker.run("busybox", "true", cpus=0.5).check()
    assert "does not enforce --cpus" in warned.stderr


def test_exec(docker: SandboxDockerManager) -> None:
    docker.run("busybox", SLEEP, name="executor", detach=True).check()
    shown = docker.exec(
        "executor", ["sh", "-c", "pwd; id -u; echo $A"], {"A": "x"}, "/tmp", "1"
    ).check()
    assert shown.lines() == ["/tmp", "1", "x"]
    assert docker.exec("executor", "cat", stdin="in") == "in"
    assert docker.exec("executor", "tty", tty=True).check().startswith("/dev/pts/")
    assert docker.exec("executor", "false").wait() is False
    docker.exec("executor", ["sh", "-c", "echo later >/made"], detach=True).check()


def test_attach(docker: SandboxDockerManager) -> None:
    script = "read word; echo got $word; read word; echo got $word; echo end"
    docker.run("busybox", ["sh", "-c", script], name="at", detach=True, stdin=True).check()
    with docker.attach("at", stdin=True) as first:
        first.stdin.write("1\n")
        assert next(iter(first)) == "got 1\n"
    assert docker.inspect("at").running, "it goes on when who was attached is gone"
    with docker.attach("at", stdin=True) as second:
        second.stdin.write("2\n")
        assert list(second) == ["got 2\n", "end\n"]
    assert docker.wait("at", timeout=PATIENCE) == 0
    assert docker.logs("at", tail=2).check() == "got 2\nend\n"


def test_files_in_and_out(box: SandboxInstance, docker: SandboxDockerManager) -> None:
    docker.run("busybox", SLEEP, name="files", detach=True).check()
    box.fs.write_text("/workspace/in.txt", "inside")
    docker.cp("/workspace/in.txt", "files:/in.txt").check()
    docker.exec("files", "cp /in.txt /out.txt").check()
    docker.cp("files:/out.txt", "/workspace/out.txt").check()
    assert box.fs.read_text("/workspace/out.txt") == "inside"
    image = docker.commit("files", "committed:1", changes=['CMD ["cat", "/out.txt"]'])
    assert docker.inspect_image("committed:1").id == image
    docker.save(["committed:1"], "/workspace/image.tar").check()
    docker.rmi("committed:1").check()
    assert "committed:1" in docker.load("/workspace/image.tar").check()
    assert docker.run("committed:1", remove=True) == "inside"
    docker.tag("committed:1", "committed:2").check()
    tags = {tag for item in docker.list_images() for tag in item.tags}
    assert {"committed:1", "committed:2", "busybox:latest"} <= tags
    assert docker.inspect_image("committed:2").command == ("cat", "/out.txt")
    docker.rmi(["committed:1", "committed:2"]).check()


def test_volumes_and_networks(docker: SandboxDockerManager) -> None:
    docker.volume_create("vol", labels={"a": "b"}).check()
    docker.network_create("net", internal=True, labels={"c": "d"}).check()
    docker.run("busybox", SLEEP, name="member", detach=True).check()
    docker.network_connect("net", "member", aliases=["alias"]).check()
    volume = next(item for item in docker.list_volumes() if item.name == "vol")
    assert (volume.driver, volume.labels) == ("local", {"a": "b"})
    network = next(item for item in docker.list_networks() if item.name == "net")
    assert (network.driver, network.internal, network.labels) == ("bridge", True, {"c": "d"})
    assert network.containers == {"member": docker.inspect("member").networks["net"].ip}
    assert "alias" in docker.inspect("member").networks["net"].aliases
    assert json.loads(docker.volume_inspect("vol"))[0]["Name"] == "vol"
    assert json.loads(docker.network_inspect("net"))[0]["Internal"] is True
    assert "vol" in docker.volume_ls(quiet=True)
    assert network.id[:12] in docker.network_ls(quiet=True)
    docker.network_disconnect("net", "member").check()
    docker.network_rm("net").check()
    docker.volume_rm("vol").check()


def test_events_as_they_happen(docker: SandboxDockerManager) -> None:
    docker.run("busybox", "true", name="before").check()
    events = docker.events({"type": "container", "event": ["start", "die"]})
    docker.run("busybox", "sh -c 'exit 4'", name="seen").wait()
    seen = []
    for event in events:
        seen.append(event)
        if event.action == "die":
            break
    assert [(event.name, event.action) for event in seen] == [("seen", "start"), ("seen", "die")]
    assert seen[1].attributes["exitCode"] == "4"
    assert events.result.process.wait(timeout=PATIENCE) != 0, "leaving the loop ends it"
    # An age is cut to the second: -1s is the end of this one.
    past = docker.events({"container": "before", "event": "die"}, since="10m", until="-1s")
    assert [event.action for event in past] == ["die"]


def test_docker_as_a_whole(docker: SandboxDockerManager) -> None:
    docker.run("busybox", SLEEP, name="whole", detach=True).check()
    (stats,) = docker.stats("whole")
    assert (stats.name, stats.id) == ("whole", docker.ps(quiet=True)[0])
    assert stats.pids == 1
    info = docker.info()
    assert (info.storage_driver, info.running, info.cpus >= 1) == ("overlay2", 1, True)
    version = docker.version()
    assert version.server == docker.status().version == info.version
    assert "runc" in version.components
    usage = {item.type: item for item in docker.system_df()}
    assert usage["Images"].size > 1 << 20
    assert usage["Containers"].active == 1
    assert docker.stop("whole", timeout=0)
    assert "Total reclaimed space" in docker.prune()
    assert docker.containers(all=True) == []
    assert docker.cli("container", "ls", "--all", "--quiet") == ""


COMPOSE = """
services:
  web:
    image: nginx:latest
    ports: ["8082:80"]
    healthcheck: {test: ["CMD", "true"], interval: 1s}
  client:
    build: client
    depends_on: {web: {condition: service_healthy}}
    command: sh -c 'wget -q -O - http://web/ | grep -c nginx; sleep 600'
"""


def test_compose(box: SandboxInstance, docker: SandboxDockerManager) -> None:
    box.fs.write_text("shop/docker-compose.yml", COMPOSE)
    box.fs.write_text("shop/client/Dockerfile", "FROM busybox:latest\nENV WHO=client\n")
    cwd = "/workspace/shop"
    assert "condition: service_healthy" in docker.compose_config(cwd=cwd)
    assert any("web" in line for line in docker.compose_pull(cwd=cwd, services="web"))
    docker.compose_build(cwd=cwd).check()
    stack = docker.compose_up(cwd=cwd)
    assert any("web" in line and "Started" in line for line in stack)
    assert stack.wait() is True
    assert sorted(stack.services) == ["client", "web"]
    found = {item.service: item for item in stack.containers()}
    assert found["web"].health == "healthy"
    assert found["web"].port(80) == 8082
    assert found["client"].running
    assert "client" in stack.ps()
    assert len(docker.compose_ps(cwd=cwd, quiet=True)) == 2
    with stack.logs("client", follow=True) as following:
        assert "client" in next(iter(following))
    assert stack.exec("client", "sh -c 'echo $WHO'") == "client\n"
    assert docker.compose_exec("web", "cat", cwd=cwd, stdin="in", user="root") == "in"
    ran = docker.compose_run("client", "sh -c 'echo $A; exit 5'", cwd=cwd, env={"A": "b"})
    assert (ran.wait(), ran.exit_code, ran.stdout) == (False, 5, "b\n")
    assert docker.compose_restart(cwd=cwd, services="web", timeout=0)
    assert docker.compose_stop(cwd=cwd, services=["client"], timeout=0)
    assert {c.service for c in docker.compose_containers(cwd=cwd, all=False)} == {"web"}
    assert docker.compose_start(cwd=cwd, services=["client"])
    assert stack.stop(timeout=0)
    assert stack.down(volumes=True)
    assert docker.compose_containers(cwd=cwd) == []


def test_compose_scale_and_attached(box: SandboxInstance, docker: SandboxDockerManager) -> None:
    box.fs.write_text(
        "scaled/compose.yaml",
        "services:\n  one:\n    image: busybox:latest\n    command: echo said\n"
        "  off:\n    image: busybox:latest\n    profiles: [extra]\n",
    )
    attached = docker.compose_up("compose.yaml", detach=False, cwd="scaled", scale={"one": 2})
    said = [line for line in attached if "said" in line]
    assert len(said) == 2
    assert attached.wait()
    assert docker.compose_down("compose.yaml", cwd="scaled")


def test_top(box: SandboxInstance, docker: SandboxDockerManager) -> None:
    docker.run("busybox", SLEEP, name="top", detach=True).check()
    (process,) = docker.top("top")
    assert process["CMD"] == "sleep 600"


def test_build_progress_comes_while_it_builds(
    box: SandboxInstance, docker: SandboxDockerManager
) -> None:
    box.fs.write_text(
        "slow/Dockerfile",
        "FROM busybox:latest AS first\nARG WORD\nRUN echo said-$WORD; sleep 1\n"
        "FROM first\nRUN echo second\n",
    )
    running = []

    def see(line: str) -> None:
        if line.endswith(" said-this\n"):
            running.append(build.process.poll())

    build = docker.build("slow", "slow", build_args={"WORD": "this"}, target="first", no_cache=True)
    build.stream(see).check()
    assert running[0] is None
    assert "second" not in build.stderr
    assert docker.list_images(filters={"reference": "slow"})[0].tags == ("slow:latest",)


def test_aio(box: SandboxInstance, host: str) -> None:
    async def main() -> None:
        async with aio.Client(host) as client:
            docker = (await aio.Sandbox.connect(box.id, client=client)).docker
            result = await docker.run("busybox", "sh -c 'echo a; echo b'", name="aio")
            assert [line async for line in result] == ["a\n", "b\n"]
            table = await docker.ps(all=True)
            assert isinstance(table, str)
            assert await table.wait()
            assert await table.stdout.read() == table + "\n"
            (found,) = await docker.containers(all=True, filters={"name": "aio"})
            assert found.exit_code == 0
            async with await docker.events({"event": "destroy"}) as events:
                assert await docker.rm("aio")
                async for event in events:
                    assert event.name == "aio"
                    break
            both = await asyncio.gather(
                *(docker.run("busybox", ["echo", str(n)], remove=True) for n in range(2))
            )
            assert [await item.text() for item in both] == ["0\n", "1\n"]

    asyncio.run(main())


BOTH: list[Callable[[SandboxDockerManager], Any]] = [
    lambda d: d.run("busybox", "true", remove=True),
    lambda d: d.logs("nobody"),
    lambda d: d.ps(),
    lambda d: d.volume_ls(quiet=True),
    lambda d: d.tag("busybox", "busybox:tagged"),
]


@pytest.mark.parametrize("call", BOTH)
def test_every_result_can_be_waited_for_and_read(
    docker: SandboxDockerManager, call: Callable[[SandboxDockerManager], Any]
) -> None:
    """What programs of the seed's time do with every result alike."""
    result = call(docker)
    assert isinstance(result, (DockerResult, DockerText, DockerList, DockerDone))
    assert result.wait() is (result.exit_code == 0)
    assert isinstance(result.stdout.read(), str)
    assert isinstance(result.stderr.read(), str)
