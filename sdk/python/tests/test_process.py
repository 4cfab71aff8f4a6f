from __future__ import annotations

import threading
import time

import pytest

from contract import Contract, Process
from innerdock import (
    CommandNotFoundError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    ProcessTimeoutError,
    SandboxInstance,
    SandboxTerminatedError,
    Status,
)


def says(out: bytes = b"", err: bytes = b"", code: int = 0):
    def script(process: Process) -> int:
        process.write(out)
        process.write(err, "stderr")
        return code

    return script


def test_exec_wait_read(contract: Contract, instance: SandboxInstance) -> None:
    contract.script = says(b"one\ntwo\n", b"oops\n", 3)
    process = instance.process.exec("prog", "-x", cwd="/tmp", env={"A": "1"})
    assert process.wait() == 3
    assert process.exit_code == 3
    assert process.stdout.read() == "one\ntwo\n"
    assert process.stdout.read() == ""
    assert process.stderr.read() == "oops\n"
    assert process.args == ["prog", "-x"]
    assert process.cwd == "/tmp"
    assert process.env == {"A": "1"}
    assert contract.sent("POST", ".*/processes") == [
        {"args": ["prog", "-x"], "cwd": "/tmp", "env": {"A": "1"}}
    ]


def test_exec_as_a_user(contract: Contract, instance: SandboxInstance) -> None:
    instance.process.exec("true", user="app").wait()
    instance.process.exec("true").wait()
    assert contract.sent("POST", ".*/processes") == [
        {"args": ["true"], "user": "app"},
        {"args": ["true"]},  # the image's
    ]


def test_output_is_also_a_string(contract: Contract, instance: SandboxInstance) -> None:
    contract.script = says(b"hello\nworld\n")
    out = instance.process.exec("prog").stdout
    assert "world" in out
    assert out == "hello\nworld\n"
    assert str(out) == "hello\nworld\n"
    assert f"{out:>13}" == " hello\nworld\n"
    assert out.strip().split() == ["hello", "world"]
    assert out.splitlines() == ["hello", "world"]
    assert out.startswith("hello")
    assert out.endswith("\n")
    assert len(out) == 12
    assert "x" + out + "y" == "xhello\nworld\ny"
    assert out
    assert out != "something else"
    assert out.read() == "hello\nworld\n", "a string consumes nothing"


def test_read_returns_what_is_there(contract: Contract, instance: SandboxInstance) -> None:
    more = threading.Event()

    def script(process: Process) -> int:
        process.write("tiny ü"[:-1].encode() + "ü".encode()[:1])
        more.wait(10)
        process.write("ü".encode()[1:] + b"!")
        return 0

    contract.script = script
    process = instance.process.exec("prog")
    text = ""
    while not text:
        text = process.stdout.read()
    assert text == "tiny ", "half a character waits for its other half"
    assert process.poll() is None
    assert process.status() == Status(-1, "running")
    more.set()
    assert process.wait() == 0
    assert process.stdout.read() == "ü!"
    assert process.status() == (0, "exited")


def test_lines_as_they_come(contract: Contract, instance: SandboxInstance) -> None:
    first_was_read = threading.Event()

    def script(process: Process) -> int:
        process.write(b"first\nsec")
        process.write(b"noise\n", "stderr")
        assert first_was_read.wait(10)
        process.write(b"ond\nlast")
        return 7

    contract.script = script
    process = instance.process.exec("prog")
    lines = []
    for line in process.stdout:
        lines.append(line)
        first_was_read.set()
    assert lines == ["first\n", "second\n", "last"]
    assert process.exit_code == 7, "the end of the lines is the end of the process"
    assert process.stderr.read() == "noise\n"
    assert list(process.stdout) == []


def test_lines_survive_a_broken_connection(contract: Contract, instance: SandboxInstance) -> None:
    def script(process: Process) -> int:
        for number in range(50):
            process.write(b"line %d\n" % number)
            time.sleep(0.002)
        return 0

    contract.script = script
    contract.cut_output_after = 3
    process = instance.process.exec("prog")
    assert list(process.stdout) == [f"line {number}\n" for number in range(50)]


def test_both_outputs(contract: Contract, instance: SandboxInstance) -> None:
    contract.script = says(b"out\n", b"err\n")
    assert sorted(instance.process.exec("prog").logs) == ["err\n", "out\n"]
    process = instance.process.exec("prog")
    process.wait()
    assert process.logs.read() == "out\nerr\n"


def test_dropped_bytes_are_visible(contract: Contract, instance: SandboxInstance) -> None:
    contract.limit = 10
    contract.script = says(b"x" * 100 + b"0123456789")
    process = instance.process.exec("prog")
    process.wait()
    want = "\n[innerdock: 100 bytes dropped]\n0123456789"
    assert str(process.stdout) == want
    assert process.stdout.dropped == 0
    assert process.stdout.read() == want
    assert process.stdout.dropped == 100
    binary = instance.process.exec("prog")
    binary.wait()
    assert binary.stdout.read_bytes() == b"0123456789"
    assert binary.stdout.dropped == 100


def test_dropped_bytes_in_lines(contract: Contract, instance: SandboxInstance) -> None:
    contract.limit = 4
    step = threading.Event()

    def script(process: Process) -> int:
        process.write(b"a\n")
        assert step.wait(10)
        with process.changed:
            process.stdout.write(b"lost" * 10)
            process.stdout.write(b"end\n")
            process.changed.notify_all()
        return 0

    contract.script = script
    lines = []
    stdout = instance.process.exec("prog").stdout
    for line in stdout:
        lines.append(line)
        step.set()
    assert lines == ["a\n", "\n", "[innerdock: 40 bytes dropped]\n", "end\n"]
    assert stdout.dropped == 40


def test_binary(contract: Contract, instance: SandboxInstance) -> None:
    data = bytes(range(256)) * 10
    contract.script = says(data)
    process = instance.process.exec("prog")
    process.wait()
    assert process.stdout.read_bytes() == data
    assert process.stdout.text() == data.decode("utf-8", "replace")


def test_stdin(contract: Contract, instance: SandboxInstance) -> None:
    def echo(process: Process) -> int:
        process.write(process.read_stdin())
        return 0

    contract.script = echo
    assert instance.process.exec("cat", stdin="täxt").stdout == "täxt"
    assert instance.process.exec("cat", stdin=b"\x00\x01").stdout == "\x00\x01"
    process = instance.process.exec("cat", stdin=True)
    process.stdin.write("a")
    process.stdin.write(b"b")
    process.stdin.close()
    assert process.stdout == "ab"


def test_no_stdin(contract: Contract, instance: SandboxInstance) -> None:
    process = instance.process.exec("cat")
    with pytest.raises(ConflictError, match="without stdin"):
        process.stdin.write("a")


def test_kill(contract: Contract, instance: SandboxInstance) -> None:
    contract.script = lambda process: 137 if process.killed() == "SIGKILL" else 143
    process = instance.process.exec("sleep")
    with pytest.raises(ProcessTimeoutError, match="goes on") as caught:
        process.wait(timeout=0.05)
    assert isinstance(caught.value, TimeoutError)
    process.kill()
    assert process.wait(timeout=5) == 137
    process.kill()
    other = instance.process.exec("sleep")
    other.kill(15)
    assert other.wait() == 143


def test_wait_with_no_time(contract: Contract, instance: SandboxInstance) -> None:
    contract.script = says(code=4)
    process = instance.process.exec("prog")
    process.wait()
    assert process.wait(timeout=0) == 4
    again = instance.process.get_process(process.pid)
    assert again.wait(timeout=0) == 4


def test_run_code(contract: Contract, instance: SandboxInstance) -> None:
    contract.script = says(b"42\n", b"warn\n", 1)
    result = instance.process.run_code("print(42)")
    assert (result.stdout, result.stderr, result.exit_code) == ("42\n", "warn\n", 1)
    assert result.result == str(result) == "42\nwarn\n"
    assert contract.commands()[-1] == ["python3", "-c", "print(42)"]
    assert instance.process.run_code("pass", blocking=False).wait() == 1


def test_run_long_code(contract: Contract, instance: SandboxInstance) -> None:
    contract.script = lambda process: len(process.read_stdin()) % 256
    assert instance.process.run_code("#" * 200_000).exit_code == 200_000 % 256
    assert contract.commands()[-1] == ["python3", "-"]


def test_list_and_get(contract: Contract, instance: SandboxInstance) -> None:
    process = instance.process.exec("prog")
    assert list(instance.process.list_processes()) == [process.pid]
    assert instance.process.get_process(process.pid).args == ["prog"]
    with pytest.raises(NotFoundError):
        instance.process.get_process(1)


def test_bad_commands(contract: Contract, instance: SandboxInstance) -> None:
    with pytest.raises(CommandNotFoundError, match="no-such-command") as caught:
        instance.process.exec("no-such-command")
    assert caught.value.code == "command_not_found"
    assert caught.value.request_id == "req-1"
    with pytest.raises(InvalidRequestError):
        instance.process.exec()
    with pytest.raises(InvalidRequestError):
        instance.process.exec(["ls"])  # type: ignore[arg-type]


def test_exec_after_the_end(contract: Contract, instance: SandboxInstance) -> None:
    instance.terminate()
    with pytest.raises(SandboxTerminatedError):
        instance.process.exec("prog")


def test_threads_share_an_instance(contract: Contract, instance: SandboxInstance) -> None:
    contract.script = lambda process: int(process.spec["args"][1])
    codes = {}

    def run(number: int) -> None:
        codes[number] = instance.process.exec("prog", str(number)).wait()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == {number: number for number in range(40)}
