"""The part of the hub's API by which a folder is uploaded, on loopback; it keeps what it is sent."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from attrs import define, field


@define
class Hub:
    """What the server has been sent."""

    url: str = ""
    refuses: bool = False
    made: list[dict[str, Any]] = field(factory=list)
    files: dict[str, bytes] = field(factory=dict)
    tokens: set[str] = field(factory=set)

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Give status and content for a request."""
        if self.refuses:
            return 403, {"error": "you have no right to write here"}
        if path.endswith("/validate-yaml"):
            return 200, {"errors": [], "warnings": []}
        if path.endswith("/repos/create"):
            asked = json.loads(body)
            self.made.append(asked)
            owner = asked.get("organization") or "me"
            return 200, {"url": f"{self.url}/{owner}/{asked['name']}", "id": f"{owner}/{asked['name']}"}
        if "/preupload/" in path:
            listed = json.loads(body)["files"]
            modes = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in listed]
            return 200, {"files": modes}
        if "/commit/" in path:
            for entry in map(json.loads, body.splitlines()):
                if entry["key"] == "file":
                    value = entry["value"]
                    self.files[value["path"]] = base64.b64decode(value["content"])
            repository = path.split("/api/models/")[1].split("/commit/")[0]
            commit = f"{self.url}/{repository}/commit/0"
            return 200, {"commitUrl": commit, "commitOid": "0", "success": True}
        return 404, {"error": path}


@contextmanager
def hub_server() -> Iterator[Hub]:
    """Serve until the block ends."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            hub.tokens.add(self.headers.get("Authorization", ""))
            length = self.headers.get("Content-Length")
            body = self.rfile.read(int(length)) if length else self._chunks()
            status, content = hub.answer(self.path, body)
            sent = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_POST

        def _chunks(self) -> bytes:
            body = b""
            while self.headers.get("Transfer-Encoding") and (size := int(self.rfile.readline(), 16)):
                body += self.rfile.read(size)
                self.rfile.readline()
            return body

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
