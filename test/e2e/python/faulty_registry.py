"""A registry of bad habits, for 127.0.0.1:5000 of a sandbox; it needs Python alone.

The first element of a repository's name says what it does: unauthorized, missing,
limited, broken, slow, truncated, corrupt, stalled (in the middle of a layer). With a
password as the program's argument it wants a login, of the user "someone".
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import sys
import threading

LAYER = b"\0" * 1024
DIGEST = "sha256:" + hashlib.sha256(LAYER).hexdigest()
CONFIG = json.dumps(
    {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
    }
).encode()
CONFIG_DIGEST = "sha256:" + hashlib.sha256(CONFIG).hexdigest()
DOCKER = "application/vnd.docker."
MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": f"{DOCKER}distribution.manifest.v2+json",
        "config": {
            "mediaType": f"{DOCKER}container.image.v1+json",
            "size": len(CONFIG),
            "digest": CONFIG_DIGEST,
        },
        "layers": [
            {
                "mediaType": f"{DOCKER}image.rootfs.diff.tar",
                "size": len(LAYER),
                "digest": DIGEST,
            }
        ],
    }
).encode()

ERRORS = {
    "unauthorized": (401, "UNAUTHORIZED", "authentication required"),
    "missing": (404, "MANIFEST_UNKNOWN", "manifest unknown"),
    "limited": (429, "TOOMANYREQUESTS", "You have reached your pull rate limit."),
    "broken": (500, "UNKNOWN", "it is broken"),
}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    password = ""

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/v2/":
            self.greet()
            return
        _, _, kind, rest = self.path.split("/", 3)
        if kind in ERRORS:
            status, code, message = ERRORS[kind]
            self.answer(status, json.dumps({"errors": [{"code": code, "message": message}]}))
        elif kind == "slow":
            threading.Event().wait(600)
        elif "/manifests/" in rest:
            self.answer(200, MANIFEST, f"{DOCKER}distribution.manifest.v2+json")
        elif CONFIG_DIGEST in rest:
            self.answer(200, CONFIG)
        elif kind == "corrupt":
            self.answer(200, b"\1" * len(LAYER))
        else:
            self.answer(200, LAYER[:500], length=len(LAYER))
            if kind == "stalled":
                threading.Event().wait(600)

    do_HEAD = do_GET

    def greet(self) -> None:
        want = "Basic " + base64.b64encode(f"someone:{self.password}".encode()).decode()
        given = self.headers.get("Authorization", "")
        if not self.password or given == want:
            self.answer(200, "{}")
        else:
            self.answer(401, '{"errors": [{"code": "UNAUTHORIZED", "message": "wrong"}]}')

    def answer(
        self, status: int, body: bytes | str, kind: str = "application/json", length: int = 0
    ) -> None:
        data = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length or len(data)))
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="registry"')
        if kind.startswith(DOCKER):
            digest = hashlib.sha256(data).hexdigest()
            self.send_header("Docker-Content-Digest", f"sha256:{digest}")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        self.close_connection = bool(length)


if __name__ == "__main__":
    Handler.password = sys.argv[1] if len(sys.argv) > 1 else ""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 5000), Handler)
    print("listening", flush=True)
    server.serve_forever()
