from __future__ import annotations

import signal
import threading
from typing import Any

import pytest

from contract import Contract, Running
from innerdock import (
    BuiltImage,
    Client,
    ConflictError,
    Image,
    InnerdockTimeoutError,
    InvalidRequestError,
    NotFoundError,
    Sandbox,
    SandboxInstance,
    UnsupportedError,
    aio,
)


def test_the_request(contract: Contract, client: Client) -> None:
    Sandbox(
        image=Image().with_docker(),
        docker_enabled=True,
        cpu="1500m",
        memory=512,
        disk="20Gi",
        env={"A": 1},  # type: ignore[dict-item]
        name="box",
        allow_private=["10.1.0.0/16"],
        docker_profile="minimal",
        daemon_timeout=90,
        client=client,
    ).create()
    assert contract.sent("POST", "/v1/sandboxes") == [
        {
            "image": "sha256:abc",
            "cpu": 1.5,
            "memory": "512Mi",
            "disk": "20Gi",
            "env": {"A": "1"},
            "name": "box",
            "docker": {"enabled": True, "profile": "minimal", "ready_timeout": 90},
            "network": {"allow": ["10.1.0.0/16"]},
        }
    ]


def test_the_smallest_request(contract: Contract, client: Client) -> None:
    instance = Sandbox(client=client).create()
    assert contract.sent("POST", "/v1/sandboxes") == [
        {"image": "sha256:abc", "cpu": 1.0, "memory": "1Gi"}
    ]
    assert contract.sent("POST", "/v1/images") == [{"python_version": "python3.11"}]
    assert set(instance.timings) == {"image", "create"}


def test_life(contract: Contract, client: Client) -> None:
    instance = Sandbox(client=client, name="box").create()
    assert instance.id == instance.container_id == instance.sandbox_id()
    assert instance.name == "box"
    assert instance.status() == (-1, "running")
    assert instance.poll() is None
    assert instance.logs() == "created\nrunning\n"
    with pytest.raises(InnerdockTimeoutError, match="did not end"):
        instance.wait(timeout=0.05)
    assert instance.terminate() is True
    assert instance.terminate() is True, "twice is fine"
    assert instance.status() == (0, "terminated")
    assert (instance.poll(), instance.wait()) == (0, 0)


def test_a_failed_sandbox(contract: Contract, instance: SandboxInstance) -> None:
    contract.sandboxes[instance.id] |= {"state": "failed", "reason": "out of memory"}
    assert instance.status() == (1, "failed")
    assert instance.wait() == 1
    assert instance.info().reason == "out of memory"


def test_wait_ends_with_the_sandbox(contract: Contract, instance: SandboxInstance) -> None:
    timer = threading.Timer(0.1, instance.terminate)
    timer.start()
    assert instance.wait(timeout=10) == 0
    timer.join()


def test_context_manager(contract: Contract, client: Client) -> None:
    with Sandbox(client=client).create() as instance:
        assert instance.poll() is None
    assert instance.poll() == 0
    with pytest.raises(ZeroDivisionError), Sandbox(client=client).create() as second:
        _ = 1 / 0
    assert second.poll() == 0


def test_nothing_is_left_of_a_creation_that_is_interrupted(
    contract: Contract, client: Client, instance: SandboxInstance
) -> None:
    """The server has made it; that it is not told of it, the server cannot know."""
    contract.withheld = threading.Event()
    threading.Thread(target=interrupt_at, args=[contract.withheld], daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        Sandbox(client=client).create()
    assert [box["state"] for box in contract.sandboxes.values()] == ["running", "terminated"]


def interrupt_at(event: threading.Event) -> None:
    event.wait(10)
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def test_nothing_is_left_of_a_creation_that_takes_too_long(
    contract: Contract, client: Client, instance: SandboxInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract.withheld = threading.Event()
    monkeypatch.setattr("innerdock._sync.sandbox.CREATE_TIMEOUT", 0.2)
    with pytest.raises(InnerdockTimeoutError):
        Sandbox(client=client).create()
    assert [box["state"] for box in contract.sandboxes.values()] == ["running", "terminated"]


def test_connect(contract: Contract, client: Client) -> None:
    instance = Sandbox(client=client, name="box").create()
    assert Sandbox.connect("box", client=client).id == instance.id
    assert Sandbox.connect(instance.id, client=client).name == "box"
    with pytest.raises(NotFoundError):
        Sandbox.connect("other", client=client)


def test_the_server_refuses(contract: Contract, client: Client) -> None:
    with pytest.raises(UnsupportedError, match="this server offers no GPU"):
        Sandbox(client=client, gpu="A100").create()
    Sandbox(client=client, name="box").create()
    with pytest.raises(ConflictError, match="taken"):
        Sandbox(client=client, name="box").create()


@pytest.mark.parametrize("cpu", [0, -1, float("nan"), float("inf"), "lots", True, None])
def test_bad_cpu(cpu: Any) -> None:
    with pytest.raises(InvalidRequestError, match="cpu="):
        Sandbox(cpu=cpu)


@pytest.mark.parametrize("memory", [0, -5, 1.5, True, None])
def test_bad_memory(memory: Any) -> None:
    with pytest.raises(InvalidRequestError, match="memory="):
        Sandbox(memory=memory)


def test_memory_is_judged_by_the_server(contract: Contract, client: Client) -> None:
    Sandbox(memory="4GB!", client=client).create()
    assert contract.sent("POST", "/v1/sandboxes")[0]["memory"] == "4GB!"


@pytest.mark.parametrize(
    "extra",
    [
        {"gpu_count": 1},
        {"allow_list": ["10.1.0.0/16"]},
        {"keep_warm_seconds": 600},
        {"authorized": True},
        {"volumes": ["v"]},
        {"secrets": ["s"]},
        {"sync_local_dir": True},
        {"ports": [80]},
        {"pool": "p"},
    ],
)
def test_parameters_of_beta9_are_not_dropped_silently(extra: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError, match=next(iter(extra))):
        Sandbox(**extra)


def test_parameters_that_ask_for_nothing(contract: Contract, client: Client) -> None:
    Sandbox(client=client, gpu_count=0, keep_warm_seconds=-1, volumes=[], secrets=None).create()


def test_a_blocked_network_opens_nothing() -> None:
    with pytest.raises(InvalidRequestError, match="block_network"):
        Sandbox(block_network=True, allow_private=["10.0.0.0/8"])


def test_unknown_parameters() -> None:
    with pytest.raises(TypeError, match="colour"):
        Sandbox(colour="red")


def test_what_an_image_may_be(contract: Contract, client: Client) -> None:
    Sandbox("debian:trixie", client=client).create()
    Sandbox("sha256:abc", client=client).create()
    Sandbox(BuiltImage(id="sha256:abc"), client=client).create()
    Sandbox(aio.Image("python3.13"), client=client).create()
    assert contract.sent("POST", "/v1/images") == [
        {"base_image": "debian:trixie"},
        {"python_version": "python3.13"},
    ]
    with pytest.raises(InvalidRequestError, match="is no Image"):
        Sandbox(42)  # type: ignore[arg-type]


def test_an_image_that_the_server_lost(contract: Contract, client: Client) -> None:
    image = Image()
    image.build(client=client)
    contract.images = {"sha256:new"}
    contract.image_events = [("image", {"image": {"id": "sha256:new"}})]
    assert Sandbox(image, client=client).create().info().image == "sha256:new"
    assert len(contract.sent("POST", "/v1/images")) == 2


def test_client(contract: Contract, client: Client) -> None:
    instance = Sandbox(client=client).create()
    assert [box.id for box in client.sandboxes()] == [instance.id]
    instance.terminate()
    assert client.sandboxes() == []
    assert [box.state for box in client.sandboxes(all=True)] == ["terminated"]
    assert [image.id for image in client.images()] == ["sha256:abc"]
    assert client.image("sha256:abc").id == "sha256:abc"
    client.delete_image("sha256:abc")
    assert client.version().runsc == "release-1"
    info = instance.info()
    assert info.created_at is not None
    assert info.created_at.isoformat() == "2026-11-01T12:00:00.123456+00:00"
    assert info.timings == {"network": 0.01}


def test_the_environment(contract: Contract, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    contract.keys.add("k")
    monkeypatch.setenv("INNERDOCK_HOST", host)
    monkeypatch.setenv("INNERDOCK_API_KEY", "k")
    first, second = Sandbox().create(), Sandbox().create()
    assert first.client is second.client, "connections are shared"
    assert first.client.host == host
    first.client.close()


def test_tcp(contract: Contract) -> None:
    running = Running(contract)
    contract.keys.add("k")
    with Client(running.host, api_key="k") as client:
        assert client.version().api == "v1"
    running.stop()


@pytest.mark.parametrize(
    "host", ["", "localhost:80", "unix://relative", "unix:///", "ftp://x", "http://", "tcp://h:1"]
)
def test_bad_hosts(host: str) -> None:
    if host in ("", "unix:///"):
        return
    with pytest.raises(InvalidRequestError, match="INNERDOCK_HOST"):
        Client(host)


def test_a_key_is_not_sent_in_clear() -> None:
    with pytest.raises(InvalidRequestError, match="https"):
        Client("http://sandboxes.example.com", api_key="secret")
    Client("http://127.0.0.1:8080", api_key="secret").close()
    Client("https://sandboxes.example.com", api_key="secret").close()
