"""Processes, files and life of real sandboxes."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conftest import PATIENCE, SOURCES, Server
from innerdock import (
    Client,
    ConflictError,
    Image,
    InvalidRequestError,
    NotFoundError,
    ProcessTimeoutError,
    Sandbox,
    SandboxInstance,
    aio,
)


def test_exec(plain: SandboxInstance) -> None:
    process = plain.process.exec("sh", "-c", "echo out; echo err >&2; exit 3")
    assert process.wait() == 3
    assert process.stdout.read() == "out\n"
    assert process.stderr.read() == "err\n"
    assert process.status() == (3, "exited")
    assert process.cwd == "/workspace"
    assert plain.process.get_process(process.pid).exit_code == 3
    assert process.pid in plain.process.list_processes()


def test_cwd_and_env(plain: SandboxInstance) -> None:
    process = plain.process.exec("sh", "-c", "pwd; echo $A", cwd="/tmp", env={"A": "b c"})
    assert process.stdout == "/tmp\nb c\n"


def test_stdin(plain: SandboxInstance) -> None:
    data = os.urandom(200_000)
    process = plain.process.exec("sha256sum", stdin=data)
    assert process.wait() == 0
    cat = plain.process.exec("cat", stdin=True)
    cat.stdin.write("one\n")
    lines = iter(cat.stdout)
    assert next(lines) == "one\n"
    cat.stdin.write("two\n")
    assert next(lines) == "two\n"
    cat.stdin.close()
    assert list(lines) == []
    assert cat.wait() == 0
    assert plain.process.exec("cat").wait() == 0, "without stdin it is empty"


def test_lines_come_while_it_runs(plain: SandboxInstance) -> None:
    process = plain.process.exec("sh", "-c", "echo now; sleep 60")
    started = time.monotonic()
    for line in process.stdout:
        assert line == "now\n"
        break
    assert time.monotonic() - started < 50
    assert process.poll() is None
    with pytest.raises(ProcessTimeoutError):
        process.wait(timeout=0.1)
    process.kill()
    assert process.wait() == 137
    process.kill()


def test_signal(plain: SandboxInstance) -> None:
    process = plain.process.exec(
        "sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    )
    next(iter(process.stdout))
    process.kill("SIGTERM")
    assert process.wait(timeout=PATIENCE) == 9


def test_run_code(plain: SandboxInstance) -> None:
    result = plain.process.run_code("import sys; print(sys.version_info[:2]); sys.exit(4)")
    assert (result.result, result.exit_code) == ("(3, 11)\n", 4)
    assert plain.process.run_code("x = 1\n" * 30_000 + "print(x)").stdout == "1\n"


def test_binary_output(plain: SandboxInstance) -> None:
    data = bytes(range(256)) * 1000
    plain.fs.write_bytes("binary", data)
    process = plain.process.exec("cat", "binary")
    process.wait()
    assert process.stdout.read_bytes() == data
    assert process.stdout.text() == data.decode("utf-8", "replace")


def test_100_mb_of_output(plain: SandboxInstance) -> None:
    size = 100 << 20
    process = plain.process.exec("sh", "-c", f"yes 0123456 | head -c {size}")
    assert process.wait(timeout=PATIENCE) == 0
    text = process.stdout.read()
    assert text.startswith("\n[innerdock: ")
    assert process.stdout.dropped + len(text.split("dropped]\n")[1]) == size
    assert text.endswith("0123456\n")


def test_100_mb_of_lines(plain: SandboxInstance) -> None:
    size = 100 << 20
    process = plain.process.exec("sh", "-c", f"yes 0123456 | head -c {size}")
    read = marks = 0
    for line in process.stdout:
        if "innerdock" in line:
            marks += 1
        else:
            read += len(line)
    assert process.wait() == 0
    assert read >= 7 << 20
    # every marker comes after a newline of its own
    assert read - marks + process.stdout.dropped == size


def test_files(plain: SandboxInstance, tmp_path: Path) -> None:
    fs = plain.fs
    fs.write_text("d/täxt ?.txt", "grüße\n")
    assert fs.read_text("/workspace/d/täxt ?.txt") == "grüße\n"
    assert [file.name for file in fs.list_files("d")] == ["täxt ?.txt"]
    info = fs.stat_file("d")
    assert (info.is_dir, info.path) == (True, "/workspace/d")
    fs.create_directory("d/e/f", mode=0o700)
    assert fs.stat_file("d/e/f").permissions == 0o700
    fs.delete_file("d/täxt ?.txt")
    fs.delete_directory("d")
    local = tmp_path / "up.sh"
    local.write_bytes(b"#!/bin/sh\necho ran\n" + os.urandom(2 << 20))
    local.chmod(0o755)
    fs.upload_file(local, "up.sh")
    assert fs.stat_file("up.sh").permissions == 0o755
    fs.download_file("up.sh", tmp_path / "down.sh")
    assert (tmp_path / "down.sh").read_bytes() == local.read_bytes()


def test_environment_of_image_and_sandbox(client: Client) -> None:
    image = Image().with_envs({"A": "image", "B": "image"})
    with Sandbox(image=image, env={"B": "sandbox"}, client=client).create() as instance:
        shown = instance.process.exec("sh", "-c", "echo $A $B $C", env={"C": "process"}).stdout
        assert shown == "image sandbox process\n"


def test_life(client: Client) -> None:
    with Sandbox(name="py-life", client=client).create() as instance:
        assert instance.status() == (-1, "running")
        assert Sandbox.connect("py-life", client=client).id == instance.id
        assert instance.id in [box.id for box in client.sandboxes()]
        assert instance.logs()
    assert instance.status() == (0, "terminated")
    assert instance.wait(timeout=PATIENCE) == 0
    assert instance.id not in [box.id for box in client.sandboxes()]
    assert instance.id in [box.id for box in client.sandboxes(all=True)]


def test_wait_sees_the_end(client: Client) -> None:
    instance = Sandbox(client=client).create()
    timer = threading.Timer(0.3, instance.terminate)
    timer.start()
    assert instance.wait(timeout=PATIENCE) == 0
    timer.join()


def test_threads(plain: SandboxInstance) -> None:
    codes: dict[int, int] = {}

    def run(number: int) -> None:
        codes[number] = plain.process.exec("sh", "-c", f"exit {number}").wait()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == {number: number for number in range(20)}


def test_aio(host: str, docker_image: Image) -> None:
    async def main() -> None:
        async with aio.Client(host) as client:
            sandbox = aio.Sandbox(image=docker_image, docker_enabled=True, client=client)
            async with await sandbox.create() as instance:
                process = await instance.process.exec("sh", "-c", "echo a; echo b")
                assert [line async for line in process.stdout] == ["a\n", "b\n"]
                many = await asyncio.gather(
                    *(instance.process.run_code(f"print({number})") for number in range(5))
                )
                assert [result.stdout for result in many] == [f"{n}\n" for n in range(5)]
                result = await instance.docker.run("hello-world")
                assert await result.success
                assert "Hello from Docker!" in await result.stdout.text()

    asyncio.run(main())


def test_pause_and_resume(plain: SandboxInstance) -> None:
    counter = plain.process.exec("sh", "-c", "for i in 1 2 3 4 5; do echo $i; sleep 0.1; done")
    plain.pause()
    assert plain.status() == (-1, "paused")
    with pytest.raises(ConflictError, match="innerdock resume"):
        plain.fs.read_text("/etc/hostname")
    plain.resume()
    assert plain.status() == (-1, "running")
    assert counter.stdout.text() == "1\n2\n3\n4\n5\n"


def test_pause_to_the_disk(plain: SandboxInstance) -> None:
    echo = plain.process.exec("sh", "-c", "read line; echo $line", stdin=True)
    plain.pause(persist=True)
    assert plain.status() == (-1, "paused")
    info = plain.info()
    assert info.persisted
    assert not info.idle
    with pytest.raises(ConflictError, match="innerdock resume"):
        plain.process.exec("true")
    plain.resume()
    again = plain.process.get_process(echo.pid)
    again.stdin.write("said before and after\n")
    assert again.wait() == 0
    assert again.stdout.text() == "said before and after\n"


def test_snapshot_and_fork(client: Client, plain: SandboxInstance) -> None:
    plain.fs.write_text("/tmp/kept", "kept")
    snapshot = plain.snapshot()
    kept = {info.id: info for info in client.snapshots()}[snapshot]
    assert (kept.sandbox, kept.docker) == (plain.id, False)
    assert kept.size > 0
    try:
        plain.fs.write_text("/tmp/kept", "changed")
        with Sandbox.from_snapshot(snapshot, memory="2Gi", env={"A": "b"}, client=client) as copy:
            assert copy.id != plain.id
            assert copy.fs.read_text("/tmp/kept") == "kept"
            assert copy.process.exec("sh", "-c", "echo $A").stdout == "b\n"
        assert plain.fs.read_text("/tmp/kept") == "changed"
    finally:
        client.delete_snapshot(snapshot)
    copies = plain.fork(2)
    try:
        assert len({plain.id, *(copy.id for copy in copies)}) == 3
        assert [copy.fs.read_text("/tmp/kept") for copy in copies] == ["changed"] * 2
    finally:
        for copy in copies:
            copy.terminate()
    with pytest.raises(NotFoundError, match="no snapshot"):
        Sandbox.from_snapshot(snapshot, client=client)


def test_snapshot_of_a_followed_command(client: Client, plain: SandboxInstance) -> None:
    script = "i=0; until [ -e /tmp/stop ]; do i=$((i+1)); echo $i; sleep 0.01; done"
    process = plain.process.exec("sh", "-c", script)
    with ThreadPoolExecutor(1) as follower:
        text = follower.submit(process.stdout.text)
        snapshot = plain.snapshot(ttl=600, keep=1)
        plain.process.exec("touch", "/tmp/stop").wait()
        lines = text.result().split()
    assert lines == [str(number + 1) for number in range(len(lines))]
    (kept,) = client.snapshots()
    assert kept.id == snapshot
    assert kept.created_at is not None
    assert kept.expires_at is not None
    assert (kept.expires_at - kept.created_at).total_seconds() == 600
    client.delete_snapshot(snapshot)


def test_snapshot_to_a_file_and_back(
    client: Client, plain: SandboxInstance, tmp_path: Path
) -> None:
    plain.fs.write_text("/tmp/kept", "kept")
    snapshot = plain.snapshot()
    archive = tmp_path / "snapshot"
    client.export_snapshot(snapshot, archive, with_image=False)
    client.delete_snapshot(snapshot)
    again = client.import_snapshot(archive)
    try:
        with Sandbox.from_snapshot(again, client=client) as copy:
            assert copy.fs.read_text("/tmp/kept") == "kept"
    finally:
        client.delete_snapshot(again)
    archive.write_bytes(archive.read_bytes()[:-100_000])
    with pytest.raises(InvalidRequestError, match="archive"):
        client.import_snapshot(archive)


def test_snapshot_filesystem(client: Client, plain: SandboxInstance) -> None:
    plain.fs.write_text("/srv/kept", "kept")
    image = plain.create_image_from_filesystem()
    with Sandbox(image=Image.from_id(image), client=client).create() as copy:
        assert copy.fs.read_text("/srv/kept") == "kept"
    client.delete_image(image)


def test_snapshot_and_fork_aio(host: str) -> None:
    async def main() -> None:
        async with (
            aio.Client(host) as client,
            await aio.Sandbox(image=Image(), client=client).create() as instance,
        ):
            await instance.fs.write_text("/tmp/kept", "kept")
            snapshot = await instance.snapshot_memory()
            (fork,) = await instance.fork()
            again = await aio.Sandbox(client=client).create_from_memory_snapshot(snapshot)
            for copy in (again, fork):
                async with copy:
                    assert await copy.fs.read_text("/tmp/kept") == "kept"
            await client.delete_snapshot(snapshot)

    asyncio.run(main())


def test_templates_and_pools(client: Client, docker_image: Image) -> None:
    image = docker_image.build(client=client).id
    made = client.create_template(image, memory="8Gi")
    assert (made.image, made.memory, made.id) == (image, 8 << 30, client.templates()[-1].id)
    spec = {"image": docker_image, "docker_enabled": True, "memory": "8Gi", "client": client}
    with Sandbox(**spec).create() as instance:
        assert instance.info().start == "warm"
    pool = client.create_pool(image, 1, memory="8Gi")
    try:
        deadline = time.monotonic() + PATIENCE
        while client.pools()[-1].ready < 1:  # nothing tells of it
            assert time.monotonic() < deadline, client.pools()
            time.sleep(0.1)
        with Sandbox(**spec).create() as instance:
            assert instance.info().start == "pool"
    finally:
        client.delete_pool(pool.id)
    client.delete_template(made.id)
    assert made.id not in {template.id for template in client.templates()}


INTERRUPTED = """
import sys
from innerdock import Image, Sandbox
print("creating", flush=True)
with Sandbox(image=Image(), name="py-interrupted").create() as instance:
    process = instance.process.exec("sleep", "600")
    print("waiting", flush=True)
    process.wait()
"""


@pytest.mark.parametrize(
    ("seen", "delay"), [("creating", 0.0), ("creating", 0.1), ("waiting", 0.0), ("waiting", 0.2)]
)
def test_ctrl_c(host: str, client: Client, seen: str, delay: float) -> None:
    Image().build(client=client)
    path = os.pathsep.join(str(source) for source in SOURCES)
    program = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        env={**os.environ, "PYTHONPATH": path, "INNERDOCK_HOST": host},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    while seen not in program.stdout.readline():
        pass
    time.sleep(delay)
    program.send_signal(signal.SIGINT)
    _, said = program.communicate(timeout=PATIENCE)
    assert program.returncode == -signal.SIGINT, said
    assert "KeyboardInterrupt" in said
    end = time.monotonic() + PATIENCE
    while any(box.name == "py-interrupted" for box in client.sandboxes()):
        assert time.monotonic() < end, "the sandbox lives on"
        time.sleep(0.1)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # httpcore's socket, until it is collected
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_server_that_is_killed(server: Server | None, client: Client) -> None:
    if server is None:
        pytest.skip("INNERDOCK_HOST names a server that is not ours to kill")
    with Sandbox(client=client).create() as instance:
        process = instance.process.exec(
            "sh", "-c", "for i in 1 2 3 4 5 6; do echo $i; sleep 0.5; done"
        )
        lines = []
        for line in process.stdout:
            lines.append(line)
            if len(lines) == 2:
                server.kill()
                server.start()
        assert lines == [f"{number}\n" for number in range(1, 7)]
        assert process.wait() == 0
        assert instance.status() == (-1, "running")
    gc.collect()


def test_exec_round_trip(plain: SandboxInstance, record_property) -> None:
    times = []
    for _ in range(30):
        started = time.perf_counter()
        plain.process.exec("true").wait()
        times.append(time.perf_counter() - started)
    median = sorted(times)[len(times) // 2]
    record_property("exec_median_ms", round(median * 1000, 1))
    print(f"exec and wait: median {median * 1000:.1f} ms")
    assert median < 1
