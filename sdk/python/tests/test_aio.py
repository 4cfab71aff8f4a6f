from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from contract import Contract, Process
from innerdock import DockerCommandError, ProcessTimeoutError, ServerNotRunningError
from innerdock.aio import Client, Image, Sandbox


def test_everything_once(contract: Contract, host: str, tmp_path: Path) -> None:
    def script(process: Process) -> int:
        if process.spec["args"][0] == "cat":
            process.write(process.read_stdin())
            return 0
        process.write(b"one\ntwo\n")
        process.write(b"err\n", "stderr")
        return 1 if "fail" in process.spec["args"] else 0

    contract.script = script

    async def main() -> None:
        async with Client(host) as client:
            image = Image().with_docker()
            sandbox = Sandbox(image=image, docker_enabled=True, client=client)
            async with await sandbox.create() as instance:
                process = await instance.process.exec("prog")
                assert [line async for line in process.stdout] == ["one\n", "two\n"]
                assert await process.stderr.read() == "err\n"
                assert await process.wait() == 0
                assert await process.stdout.text() == "one\ntwo\n"
                cat = await instance.process.exec("cat", stdin="in")
                assert await cat.wait() == 0
                assert await cat.stdout.read() == "in"

                result = await instance.docker.run("hello-world")
                assert await result.success
                assert await result.output == "one\ntwo\nerr\n"
                assert await (await instance.docker.ps(quiet=True)).lines() == ["one", "two"]
                with pytest.raises(DockerCommandError):
                    await (await instance.docker.cli("fail")).check()

                (tmp_path / "up").write_bytes(b"x" * (2 << 20))
                await instance.fs.upload_file(tmp_path / "up", "f")
                await instance.fs.download_file("f", tmp_path / "down")
                assert (tmp_path / "down").read_bytes() == b"x" * (2 << 20)
                assert (await instance.process.run_code("1")).exit_code == 0
            assert await instance.poll() == 0
            assert await instance.terminate()

    asyncio.run(main())


def test_at_the_same_time(contract: Contract, host: str) -> None:
    contract.script = lambda process: int(process.spec["args"][1])

    async def main() -> None:
        async with Client(host) as client:
            instance = await Sandbox(client=client).create()

            async def run(number: int) -> int:
                return await (await instance.process.exec("prog", str(number))).wait()

            codes = await asyncio.gather(*(run(number) for number in range(40)))
            assert list(codes) == list(range(40))

    asyncio.run(main())


def test_a_line_is_enough(contract: Contract, host: str) -> None:
    def script(process: Process) -> int:
        process.write(b"line\n" * 10)
        process.killed()
        return 137

    contract.script = script

    async def main() -> None:
        async with Client(host) as client:
            instance = await Sandbox(client=client).create()
            process = await instance.process.exec("prog")
            async for line in process.stdout:
                assert line == "line\n"
                break
            with pytest.raises(ProcessTimeoutError):
                await process.wait(timeout=0.05)
            await process.kill()
            assert await process.wait() == 137

    asyncio.run(main())


def test_nothing_is_left_of_a_creation_that_is_cancelled(contract: Contract, host: str) -> None:
    async def main() -> None:
        async with Client(host) as client:
            await Sandbox(client=client).create()
            contract.withheld = threading.Event()
            creation = asyncio.create_task(Sandbox(client=client).create())
            assert await asyncio.to_thread(contract.withheld.wait, 10)
            creation.cancel()
            with pytest.raises(asyncio.CancelledError):
                await creation

    asyncio.run(main())
    assert [box["state"] for box in contract.sandboxes.values()] == ["running", "terminated"]


def test_no_server(tmp_path: Path) -> None:
    async def main() -> None:
        async with Client(f"unix://{tmp_path}/none") as client:
            with pytest.raises(ServerNotRunningError):
                await Sandbox(client=client).create()

    asyncio.run(main())


def test_files_of_an_image(contract: Contract, host: str, tmp_path: Path) -> None:
    (tmp_path / "up").write_bytes(b"x" * (2 << 20))

    async def main() -> None:
        async with Client(host) as client:
            image = Image().add_local_file(tmp_path / "up", "/up")
            assert not await image.exists(client=client)
            assert (await image.build(client=client)).id == "sha256:abc"
            assert await image.exists(client=client)

    asyncio.run(main())
    [(definition, archive)] = contract.contexts
    assert definition["steps"] == [{"copy": {"source": "0", "target": "/up"}}]
    assert len(archive) > 2 << 20
