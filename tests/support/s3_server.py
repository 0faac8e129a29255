"""An S3 server on loopback (moto's, in memory), and a proxy before it whose line can be cut.

The server handles one request at a time, so that its conditional puts are decided at one point, as those of
real object stores are; moto by itself looks and writes in two steps.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator

BUCKET = "bucket"
SECRET = "a-secret-that-shows-nowhere"


def serve() -> None:
    """Serve until the process ends; print the port. Where the command says `careless`, heed no conditions."""
    import logging

    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    logging.disable(logging.INFO)
    WSGIRequestHandler.protocol_version = "HTTP/1.1"
    application = DomainDispatcherApplication(create_backend_app)
    turn = threading.Lock()

    def one_at_a_time(environ, start_response):
        if "careless" in sys.argv:
            environ = {name: value for name, value in environ.items() if not name.startswith("HTTP_IF_")}
        with turn:
            return list(application(environ, start_response))

    server = make_server("127.0.0.1", 0, one_at_a_time, threaded=True)
    sys.stdout.write(f"{server.port}\n")
    sys.stdout.flush()
    server.serve_forever()


def settings(port: int) -> dict[str, str]:
    """What the environment has to say, to reach a server at this port."""
    return {
        "AWS_ACCESS_KEY_ID": "an-access-key",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }


@contextlib.contextmanager
def s3_server(*arguments: str) -> Iterator[int]:
    """Start a server with an empty bucket; give its port."""
    process = subprocess.Popen([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        port = int(process.stdout.readline())
        urllib.request.urlopen(
            urllib.request.Request(f"http://127.0.0.1:{port}/{BUCKET}", method="PUT")
        ).close()
        yield port
    finally:
        process.kill()
        process.wait()


class Line:
    """A proxy on loopback that hands bytes on, until it is cut; while it is, connections are reset."""

    def __init__(self, port: int) -> None:
        self._port, self._open, self._cut, self._to_lose, self.lost = port, set(), False, 0, 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._cut = True
        for end in [*self._open]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self._cut = False

    def lose(self, answers: int) -> None:
        """Hand on so many requests to put, but not their answers."""
        self._to_lose = answers

    def _accept(self) -> None:
        while True:
            here, _ = self._server.accept()
            if self._cut:
                here.close()
                continue
            there = socket.create_connection(("127.0.0.1", self._port))
            self._open |= {here, there}
            puts = threading.Event()
            for ways in ((here, there, puts, True), (there, here, puts, False)):
                threading.Thread(target=self._hand_on, args=ways, daemon=True).start()

    def _hand_on(
        self, source: socket.socket, target: socket.socket, puts: threading.Event, asking: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(2**16):
                if asking and content[:4] in (b"PUT ", b"GET "):
                    puts.set() if content[:4] == b"PUT " else puts.clear()
                if not asking and puts.is_set() and self._to_lose:
                    self._to_lose, self.lost = self._to_lose - 1, self.lost + 1
                    break
                target.sendall(content)
        for end in (source, target):
            self._open.discard(end)
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


if __name__ == "__main__":
    serve()
