from __future__ import annotations

import gc
import pickle
import re
from dataclasses import replace
from pathlib import Path

import pytest

import innerdock
from contract import Contract, Failure
from innerdock import (
    AuthenticationError,
    Client,
    ConnectionLostError,
    DockerCommandError,
    DockerDaemonNotReadyError,
    ImageBuildError,
    InnerdockError,
    InnerdockTimeoutError,
    ServerNotRunningError,
    UnavailableError,
)
from innerdock import _errors as errors

CODES = [
    ("invalid", "InvalidRequestError"),
    ("unauthorized", "AuthenticationError"),
    ("forbidden", "PermissionDeniedError"),
    ("not_found", "NotFoundError"),
    ("conflict", "ConflictError"),
    ("too_large", "InvalidRequestError"),
    ("exhausted", "ResourceExhaustedError"),
    ("unsupported", "UnsupportedError"),
    ("timeout", "InnerdockTimeoutError"),
    ("unavailable", "UnavailableError"),
    ("internal", "ServerError"),
    ("image_not_found", "ImageNotFoundError"),
    ("image_build_failed", "ImageBuildError"),
    ("sandbox_terminated", "SandboxTerminatedError"),
    ("command_not_found", "CommandNotFoundError"),
    ("docker_disabled", "DockerDisabledError"),
    ("docker_not_installed", "DockerNotInstalledError"),
    ("docker_failed", "DockerDaemonFailedError"),
    ("docker_timeout", "DockerDaemonNotReadyError"),
]


@pytest.mark.parametrize(("code", "name"), CODES)
def test_every_code_has_its_class(code: str, name: str) -> None:
    body = {"code": code, "message": "what and what next", "request_id": "r1"}
    error = errors.error_from(body, 418)
    assert type(error) is getattr(innerdock, name)
    assert str(error) == error.message == "what and what next"
    assert (error.code, error.request_id, error.status) == (code, "r1", 418)


def test_codes_are_those_of_the_server() -> None:
    source = Path(__file__).parents[3] / "error.go"
    known = set(re.findall(r'Code = "(\w+)"', source.read_text()))
    assert known == {code for code, _ in CODES}


@pytest.mark.parametrize(
    ("status", "name"),
    [(401, "AuthenticationError"), (404, "NotFoundError"), (500, "ServerError"), (418, "")],
)
def test_a_new_code_is_classed_by_its_status(status: int, name: str) -> None:
    error = errors.error_from({"code": "brand_new", "message": "m"}, status)
    assert type(error).__name__ == (name or "InnerdockError")
    assert error.code == "brand_new"


def test_the_docstring_draws_every_class() -> None:
    drawn = set(re.findall(r"\b[A-Z]\w+(?:Error|Exception)\b", errors.__doc__ or ""))
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, InnerdockError)
    }
    assert defined <= drawn
    assert defined <= set(innerdock.__all__)


@pytest.mark.parametrize(
    "error",
    [
        InnerdockError("m", code="c", request_id="r", status=1),
        ServerNotRunningError("m"),
        ImageBuildError("m", step="s", log=["l"]),
        DockerDaemonNotReadyError(30),
        DockerCommandError(["docker", "run"], 125, "no such image"),
    ],
)
def test_errors_travel_between_processes(error: InnerdockError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert vars(copy) == vars(error)
    assert str(copy) == str(error)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # httpcore's socket, until it is collected
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_server_not_running(tmp_path: Path) -> None:
    client = Client(f"unix://{tmp_path}/none")
    with client, pytest.raises(ServerNotRunningError) as caught:
        client.version()
    assert "`innerdock server`" in str(caught.value)
    assert "`make up`" in str(caught.value)
    assert f"unix://{tmp_path}/none" in str(caught.value)
    assert caught.value.code == "server_not_running"
    del caught
    gc.collect()


def test_nothing_listens() -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(ServerNotRunningError):
        client.version()


def test_a_key_that_is_not_known(contract: Contract, host: str) -> None:
    contract.keys.add("right")
    with Client(host, api_key="right") as client:
        assert client.version().version == "9"
    with Client(host, api_key="wrong") as client, pytest.raises(AuthenticationError) as caught:
        client.version()
    assert caught.value.status == 401


def test_reading_is_repeated(contract: Contract, client: Client) -> None:
    contract.faults = ["drop", Failure(503, "unavailable", "starting"), "drop"]
    assert client.version().api == "v1"
    assert len(contract.requests) == 4


def test_starting_is_not_repeated(contract: Contract, instance: innerdock.SandboxInstance) -> None:
    contract.faults = ["drop"]
    with pytest.raises(ConnectionLostError):
        instance.process.exec("prog")
    contract.faults = [Failure(503, "unavailable", "starting")]
    with pytest.raises(UnavailableError):
        instance.process.exec("prog")
    assert contract.processes == {}


def test_repetition_ends(
    contract: Contract, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("innerdock._sync.transport.RETRY_DELAYS", (0, 0, 0))
    contract.faults = [Failure(503, "unavailable", "starting")] * 20
    with pytest.raises(UnavailableError, match="starting"):
        client.version()
    assert len(contract.requests) == 4


def test_an_answer_that_does_not_come(contract: Contract, host: str) -> None:
    with Client(host, timeout=0.2) as client:
        box = innerdock.Sandbox(client=client, docker_enabled=True).create()
        contract.script = lambda process: (process.killed() and 0) or 1
        process = box.process.exec("sleep")
        with pytest.raises(InnerdockTimeoutError, match=r"0\.2 s"):
            client.transport.request("GET", process._state.path, params={"wait": "2"})
        process.kill()


def test_an_answer_that_is_no_json(contract: Contract, client: Client) -> None:
    class Html(Failure):
        def body(self):  # type: ignore[override]
            return b"<html>bad gateway</html>"

    contract.faults = [Html(502, "", "")]
    with pytest.raises(innerdock.ServerError, match="bad gateway"):
        client.version()


def test_answers_that_make_no_sense(
    contract: Contract, instance: innerdock.SandboxInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nonsense(body: bytes) -> None:
        monkeypatch.setattr("contract.ROUTES", [("GET", ".*", lambda h, *rest: h.reply(200, body))])

    process = instance.process.exec("prog")
    nonsense(b"{")
    with pytest.raises(innerdock.ServerError, match="cannot be read"):
        instance.info()
    for events in (b"data: [1]\n\n", b"data: {\n\n", b"data: " + b"x" * (5 << 20)):
        nonsense(events)
        process._state.info = replace(process._state.info, state="running")
        with pytest.raises(innerdock.ServerError, match="cannot be read"):
            list(process.stdout)
    nonsense(b"x" * (17 << 20))
    with pytest.raises(innerdock.ServerError, match="larger than"):
        process.stdout.read()
