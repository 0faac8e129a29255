"""A chat API on a real socket that answers, or misbehaves, by script."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from attrs import define, field, frozen


@frozen
class Reply:
    """What to do with a request: wait, then answer, or cut the connection (`reset`), or send `raw` bytes."""

    text: str = ""
    finish: str = "stop"
    status: int = 200
    delay: float = 0.0
    headers: dict[str, str] = field(factory=dict)
    error: str = "as the script says"
    raw: bytes | None = None
    reset: bool = False


def rated(rating: Any, explanation: Any = "because") -> Reply:
    return Reply(json.dumps({"rating": rating, "explanation": explanation}))


Script = Callable[[dict[str, Any], int], Reply]  # request body, how often this very body came before → reply


@define
class Served:
    """What the server has seen."""

    url: str
    requests: list[dict[str, Any]] = field(factory=list)
    headers: list[dict[str, str]] = field(factory=list)
    times: list[float] = field(factory=list)
    answered: list[str] = field(factory=list)  # bodies whose answer left whole
    most_at_once: int = 0
    at_once: int = 0
    seen: Counter[str] = field(factory=Counter)
    lock: Any = field(factory=threading.Lock)

    def prompts(self) -> list[str]:
        return [request["messages"][-1]["content"] for request in self.requests]


@contextmanager
def serving(script: Script) -> Iterator[Served]:
    """Serve `POST /v1/chat/completions` on a free port until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            with served.lock:
                served.requests.append(json.loads(body))
                served.headers.append(dict(self.headers))
                served.times.append(time.monotonic())
                before = served.seen[body]
                served.seen[body] += 1
                served.at_once += 1
                served.most_at_once = max(served.most_at_once, served.at_once)
            try:
                self.send(script(json.loads(body), before), body)
            except OSError:  # the client has gone
                self.close_connection = True
            finally:
                with served.lock:
                    served.at_once -= 1

        def send(self, reply: Reply, body: str) -> None:
            time.sleep(reply.delay)
            if reply.reset:
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.connection.close()
                self.close_connection = True
                return
            content: dict[str, Any] = {"error": {"message": reply.error}}
            if reply.status == 200:
                content = {
                    "choices": [{"message": {"content": reply.text}, "finish_reason": reply.finish}],
                    "usage": {"prompt_tokens": 100, "completion_tokens": 10},
                }
            data = json.dumps(content).encode() if reply.raw is None else reply.raw
            self.send_response(reply.status)
            for name, value in {"Content-Length": str(len(data)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)
            with served.lock:
                served.answered.append(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    served = Served(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
