"""A small real HTTP server that speaks innerdock's API from memory.

Processes are Python functions (see Contract.script); everything else answers
as the contract says. It listens on a Unix socket or on TCP.
"""

from __future__ import annotations

import base64
import json
import re
import socketserver
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

NOW = "2026-11-01T12:00:00.123456789Z"


@dataclass
class Failure(Exception):
    """An error answer."""

    status: int
    code: str
    message: str

    def body(self) -> dict[str, str]:
        return {"code": self.code, "message": self.message, "request_id": "req-1"}


@dataclass
class Output:
    """A stream that keeps its last `limit` bytes."""

    limit: int
    data: bytes = b""
    end: int = 0

    def write(self, data: bytes) -> None:
        self.end += len(data)
        self.data = (self.data + data)[-self.limit :]

    def since(self, offset: int) -> tuple[int, bytes]:
        first = max(offset, self.end - len(self.data))
        return first, self.data[len(self.data) - max(0, self.end - first) :] if (
            first < self.end
        ) else b""


@dataclass
class Process:
    """A process; its script writes to it and sets exit_code by returning."""

    pid: int
    spec: dict[str, Any]
    limit: int
    changed: threading.Condition
    stdout: Output = field(init=False)
    stderr: Output = field(init=False)
    stdin: bytes = b""
    stdin_closed: bool = False
    exit_code: int | None = None
    signal: str = ""

    def __post_init__(self) -> None:
        self.stdout, self.stderr = Output(self.limit), Output(self.limit)

    def write(self, data: bytes, stream: str = "stdout") -> None:
        with self.changed:
            getattr(self, stream).write(data)
            self.changed.notify_all()

    def read_stdin(self) -> bytes:
        with self.changed:
            self.changed.wait_for(lambda: self.stdin_closed, 10)
            return self.stdin

    def killed(self, timeout: float = 10) -> str:
        with self.changed:
            self.changed.wait_for(lambda: self.signal, timeout)
            return self.signal

    def json(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "pid": self.pid,
            "args": self.spec["args"],
            "cwd": self.spec.get("cwd", "/workspace"),
            "state": "running" if self.exit_code is None else "exited",
            "started_at": NOW,
            "stdout_bytes": self.stdout.end,
            "stderr_bytes": self.stderr.end,
        }
        if self.exit_code is not None:
            body |= {"exit_code": self.exit_code, "exited_at": NOW, "signal": self.signal}
        return body


Script = Callable[[Process], int]


def is_login(args: list[str]) -> bool:
    """Whether a process is the login with the sandbox's environment."""
    return args[0] == "sh" and "DOCKER_PASSWORD" in args[2]


class Contract:
    """The state of the server, and what a test may set."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        self.keys: set[str] = set()
        self.contexts: list[tuple[dict[str, Any], bytes]] = []
        self.image_events: list[tuple[str, dict[str, Any]]] = []
        self.images: set[str] = {"sha256:abc"}
        self.sandboxes: dict[str, dict[str, Any]] = {}
        self.docker: list[dict[str, Any]] = [{"state": "ready", "version": "28.0"}]
        self.processes: dict[int, Process] = {}
        self.files: dict[str, bytes] = {}
        self.limit = 8 << 20
        self.script: Script = lambda process: 0
        self.login: Script = lambda process: 64  # as in a sandbox without DOCKER_USERNAME
        self.faults: list[Failure | str] = []  # of the next requests; "drop" cuts the connection
        self.withheld: threading.Event | None = None  # set when a creation is done and not told
        self.cut_output_after: int = 0  # events after which an output stream breaks, once

    # What a test asks.

    def sent(self, method: str, path: str) -> list[Any]:
        """Returns the bodies of the requests that match."""
        return [r[3] for r in self.requests if r[0] == method and re.fullmatch(path, r[1])]

    def commands(self) -> list[list[str]]:
        """Returns the arguments of every process that was started, but for the login."""
        started = [body["args"] for body in self.sent("POST", r".*/processes")]
        return [args for args in started if not is_login(args)]

    # What the API does.

    def sandbox(self, key: str) -> dict[str, Any]:
        for box in self.sandboxes.values():
            live = box["state"] == "running"
            if box["id"] == key or (live and box.get("name") == key):
                return box
        raise Failure(404, "not_found", f"no sandbox {key}")

    def create(self, spec: dict[str, Any]) -> dict[str, Any]:
        if spec.get("gpu"):
            raise Failure(422, "unsupported", "gpu: this server offers no GPU; leave gpu out")
        if spec["image"] not in self.images:
            raise Failure(404, "image_not_found", f"no image {spec['image']}")
        name = spec.get("name", "")
        if name and any(
            box["name"] == name and box["state"] == "running" for box in self.sandboxes.values()
        ):
            raise Failure(409, "conflict", f"the name {name} is taken")
        docker = spec.get("docker") or {}
        box = {
            "id": f"test{len(self.sandboxes):08d}",
            "name": name,
            "state": "running",
            "image": spec["image"],
            "cpu": spec["cpu"],
            "memory": 1 << 30,
            "disk": 10 << 30,
            "docker": {"state": "starting", "profile": docker.get("profile", "")}
            if docker
            else {"state": "disabled"},
            "created_at": NOW,
            "timings": {"network": 0.01},
            "future_field": True,
        }
        self.sandboxes[box["id"]] = box
        return box

    def execute(self, spec: dict[str, Any]) -> Process:
        if spec["args"][0] == "no-such-command":
            raise Failure(422, "command_not_found", '"no-such-command" was not found')
        process = Process(len(self.processes) + 100, spec, self.limit, self.changed)
        self.processes[process.pid] = process

        script = self.login if is_login(spec["args"]) else self.script

        def run() -> None:
            code = script(process)
            with self.changed:
                process.exit_code = code
                self.changed.notify_all()

        threading.Thread(target=run, daemon=True).start()
        return process


class Handler(BaseHTTPRequestHandler):
    """Routes requests to the Contract of its server."""

    protocol_version = "HTTP/1.1"
    server: Any

    def address_string(self) -> str:
        return "client"

    def log_message(self, *args: Any) -> None:
        pass

    def setup(self) -> None:
        super().setup()
        self.contract: Contract = self.server.contract

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def do(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        path = unquote(url.path)
        raw = self._body()
        kind = self.headers.get("Content-Type", "")
        body = json.loads(raw) if raw and kind.startswith("application/json") else raw
        contract = self.contract
        contract.requests.append((self.command, path, query, body))
        try:
            if contract.faults:
                fault = contract.faults.pop(0)
                if isinstance(fault, Failure):
                    raise fault
                self.close_connection = True
                self.connection.close()
                return
            if contract.keys:
                key = self.headers.get("Authorization", "").removeprefix("Bearer ")
                if key not in contract.keys:
                    raise Failure(401, "unauthorized", "this key is not known")
            for method, pattern, handler in ROUTES:
                match = re.fullmatch(pattern, path)
                if method == self.command and match:
                    handler(self, contract, query, body, *match.groups())
                    return
            raise Failure(404, "not_found", f"no route {self.command} {path}")
        except Failure as failure:
            self.reply(failure.status, failure.body())

    do_GET = do_POST = do_PUT = do_DELETE = do

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def reply(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        if status == 204:
            data = b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def begin_events(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    def event(self, name: str, data: Any) -> None:
        self.wfile.write(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode())
        self.wfile.flush()


def _build(h: Handler, c: Contract, q: dict[str, str], body: Any) -> None:
    if body.get("base_image") == "no/such:image":
        raise Failure(404, "image_not_found", "no registry has no/such:image")
    h.begin_events()
    h.wfile.write(b": heartbeat\n\n")
    for name, data in c.image_events:
        h.event(name, data)
    if not c.image_events:
        image = {"id": "sha256:abc", "size": 5 << 20, "source": "debian", "created_at": NOW}
        h.event("image", {"image": image})


def _build_from(h: Handler, c: Contract, q: dict[str, str], body: Any) -> None:
    form = b"Content-Type: " + h.headers["Content-Type"].encode() + b"\r\n\r\n" + body
    definition, archive = message_from_bytes(form).get_payload()
    c.contexts.append((json.loads(definition.get_payload()), archive.get_payload(decode=True)))
    _build(h, c, q, {})


def _find(h: Handler, c: Contract, q: dict[str, str], body: Any) -> None:
    if not c.sent("POST", "/v1/images(/build)?"):
        raise Failure(404, "image_not_found", "there is no image of this definition yet")
    h.reply(200, {"id": "sha256:abc", "created_at": NOW})


def _render(h: Handler, c: Contract, q: dict[str, str], body: Any) -> None:
    text = body["dockerfile"]["text"] if "dockerfile" in body else f"FROM {body['base_image']}\n"
    h.reply(200, {"dockerfile": text})


def _create(h: Handler, c: Contract, q: dict[str, str], body: Any) -> None:
    box = c.create(body)
    box["request_id"] = h.headers.get("Innerdock-Request-Id") or "its-own"
    if c.withheld is None:
        h.reply(201, box)
        return
    c.withheld.set()
    h.rfile.read(1)  # until the client leaves
    h.close_connection = True


def _list(h: Handler, c: Contract, q: dict[str, str], body: Any) -> None:
    boxes = [b for b in c.sandboxes.values() if b["state"] == "running" or "all" in q]
    h.reply(200, {"sandboxes": boxes})


def _get(h: Handler, c: Contract, q: dict[str, str], body: Any, key: str) -> None:
    h.reply(200, c.sandbox(key))


def _terminate(h: Handler, c: Contract, q: dict[str, str], body: Any, key: str) -> None:
    box = c.sandbox(key)
    with c.changed:
        box["state"] = "terminated"
        c.changed.notify_all()
    h.reply(200, box)


def _wait(h: Handler, c: Contract, q: dict[str, str], body: Any, key: str) -> None:
    box = c.sandbox(key)
    with c.changed:
        c.changed.wait_for(lambda: box["state"] != "running", float(q["timeout"]))
    h.reply(200, box)


def _docker(h: Handler, c: Contract, q: dict[str, str], body: Any, key: str) -> None:
    box = c.sandbox(key)
    if box["docker"]["state"] == "disabled":
        h.reply(200, box["docker"])
        return
    status = c.docker[0]
    if status["state"] == "starting":
        time.sleep(min(float(q.get("wait", 0)), 0.2))
    if len(c.docker) > 1:
        c.docker.pop(0)
    h.reply(200, status)


def _live(c: Contract, key: str) -> None:
    if c.sandbox(key)["state"] != "running":
        raise Failure(410, "sandbox_terminated", f"sandbox {key} has ended")


def _exec(h: Handler, c: Contract, q: dict[str, str], body: Any, key: str) -> None:
    _live(c, key)
    h.reply(201, c.execute(body).json())


def _processes(h: Handler, c: Contract, q: dict[str, str], body: Any, key: str) -> None:
    h.reply(200, {"processes": [process.json() for process in c.processes.values()]})


def _process(c: Contract, pid: str) -> Process:
    if int(pid) not in c.processes:
        raise Failure(404, "not_found", f"no process {pid}")
    return c.processes[int(pid)]


def _poll(h: Handler, c: Contract, q: dict[str, str], body: Any, key: str, pid: str) -> None:
    process = _process(c, pid)
    with c.changed:
        c.changed.wait_for(lambda: process.exit_code is not None, float(q.get("wait", 0)))
    h.reply(200, process.json())


def _raw(h: Handler, c: Contract, q: dict[str, str], b: Any, key: str, pid: str, s: str) -> None:
    _live(c, key)
    first, data = getattr(_process(c, pid), s).since(int(q["offset"]))
    h.reply(200, data, {"Innerdock-Offset": str(first)})


def _output(h: Handler, c: Contract, q: dict[str, str], body: Any, key: str, pid: str) -> None:
    process = _process(c, pid)
    offsets = {name: int(q[f"{name}_offset"]) for name in ("stdout", "stderr")}
    h.begin_events()
    count = 0
    while True:
        with c.changed:
            c.changed.wait_for(
                lambda: (
                    process.exit_code is not None
                    or any(getattr(process, n).end > o for n, o in offsets.items())
                ),
                10,
            )
            ended = process.exit_code is not None
            pieces = {n: getattr(process, n).since(o) for n, o in offsets.items()}
        for name, (first, data) in pieces.items():
            lost = first - offsets[name]
            if lost:
                h.event("dropped", {"stream": name, "offset": offsets[name], "dropped": lost})
            if data:
                h.event(name, {"offset": first, "data": base64.b64encode(data).decode()})
                offsets[name] = first + len(data)
                count += 1
                if c.cut_output_after and count >= c.cut_output_after:
                    c.cut_output_after = 0
                    return
        if ended:
            h.event("exit", {"process": process.json()})
            return


def _signal(h: Handler, c: Contract, q: dict[str, str], body: Any, key: str, pid: str) -> None:
    process = _process(c, pid)
    if process.exit_code is not None:
        raise Failure(409, "conflict", f"process {pid} has exited")
    with c.changed:
        process.signal = body["signal"]
        c.changed.notify_all()
    h.reply(204, b"")


def _stdin(h: Handler, c: Contract, q: dict[str, str], body: Any, key: str, pid: str) -> None:
    process = _process(c, pid)
    if not process.spec.get("stdin"):
        raise Failure(409, "conflict", f"process {pid} was started without stdin")
    with c.changed:
        process.stdin += body or b""
        process.stdin_closed = q.get("close") == "true"
        c.changed.notify_all()
    h.reply(204, b"")


def _info(path: str, size: int, kind: str = "file", mode: str = "0644") -> dict[str, Any]:
    name = path.rsplit("/", 1)[-1]
    return {"name": name, "path": path, "size": size, "mode": mode, "type": kind, "modified": NOW}


def _content(c: Contract, path: str) -> bytes:
    if path not in c.files:
        raise Failure(404, "not_found", f"{path} does not exist in the sandbox")
    return c.files[path]


def _read(h: Handler, c: Contract, q: dict[str, str], body: Any, key: str) -> None:
    h.reply(200, _content(c, q["path"]))


def _write(h: Handler, c: Contract, q: dict[str, str], body: Any, key: str) -> None:
    c.files[q["path"]] = body
    h.reply(201, _info(q["path"], len(body), mode=q["mode"]))


def _stat(h: Handler, c: Contract, q: dict[str, str], body: Any, key: str) -> None:
    h.reply(200, _info(q["path"], len(_content(c, q["path"]))))


def _files(h: Handler, c: Contract, q: dict[str, str], body: Any, key: str) -> None:
    h.reply(200, {"files": [_info(path, len(data)) for path, data in c.files.items()]})


def _mkdir(h: Handler, c: Contract, q: dict[str, str], body: Any, key: str) -> None:
    h.reply(201, _info(q["path"], 0, "directory", q["mode"]))


def _delete(h: Handler, c: Contract, q: dict[str, str], body: Any, key: str) -> None:
    if "recursive" not in q:
        _content(c, q["path"])
    c.files = {p: d for p, d in c.files.items() if not p.startswith(q["path"])}
    h.reply(204, b"")


def _constant(body: Any) -> Callable[..., None]:
    return lambda h, c, q, b, *rest: h.reply(200, body)


BOX = r"/v1/sandboxes/([^/]+)"
PROCESS = BOX + r"/processes/(\d+)"
ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("GET", "/v1/version", _constant({"version": "9", "runsc": "release-1", "api": "v1"})),
    ("POST", "/v1/images", _build),
    ("POST", "/v1/images/build", _build_from),
    ("POST", "/v1/images/find", _find),
    ("POST", "/v1/images/dockerfile", _render),
    ("GET", "/v1/images", _constant({"images": [{"id": "sha256:abc"}]})),
    ("GET", "/v1/images/([^/]+)", _constant({"id": "sha256:abc", "created_at": NOW})),
    ("DELETE", "/v1/images/([^/]+)", lambda h, c, q, b, i: h.reply(204, b"")),
    ("POST", "/v1/sandboxes", _create),
    ("GET", "/v1/sandboxes", _list),
    ("GET", BOX, _get),
    ("DELETE", BOX, _terminate),
    ("GET", BOX + "/wait", _wait),
    ("GET", BOX + "/logs", _constant(b"created\nrunning\n")),
    ("GET", BOX + "/docker", _docker),
    ("GET", BOX + "/docker/logs", _constant(b"dockerd says")),
    ("POST", BOX + "/processes", _exec),
    ("GET", BOX + "/processes", _processes),
    ("GET", PROCESS, _poll),
    ("GET", PROCESS + "/(stdout|stderr)", _raw),
    ("GET", PROCESS + "/output", _output),
    ("POST", PROCESS + "/signal", _signal),
    ("POST", PROCESS + "/stdin", _stdin),
    ("GET", BOX + "/files/content", _read),
    ("PUT", BOX + "/files/content", _write),
    ("GET", BOX + "/files/info", _stat),
    ("GET", BOX + "/files/list", _files),
    ("POST", BOX + "/files/directory", _mkdir),
    ("DELETE", BOX + "/files", _delete),
]


class TCPServer(ThreadingHTTPServer):
    daemon_threads = True


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64

    def get_request(self) -> Any:
        request, _ = super().get_request()
        return request, ("client", 0)


class Running:
    """A Contract that is being served."""

    def __init__(self, contract: Contract, socket: Path | None = None) -> None:
        self.contract = contract
        self.server: Any
        if socket is None:
            self.server = TCPServer(("127.0.0.1", 0), Handler)
            self.host = f"http://127.0.0.1:{self.server.server_address[1]}"
        else:
            self.server = UnixServer(str(socket), Handler)
            self.host = f"unix://{socket}"
        self.server.contract = contract
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
