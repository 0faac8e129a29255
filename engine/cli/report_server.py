"""`engine report --serve`: the report as a page on this machine alone, drawn anew as cells end."""

from __future__ import annotations

import errno
import hashlib
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from attrs import define, field

from engine.errors import UsageError
from engine.terminal import say
from specs.tables.experiment import STAGES
from store import Ledger, StoreError, read_manifests
from store.backend.location import Root
from store.report import live_page

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")  # of this machine; a page of another name asks in vain


@define
class LiveReport:
    """The report of a store as it is now, made anew where something has ended since."""

    store: Root
    experiment: str | None
    looked: Callable[[], None]  # what is done whenever results are shown
    _lock: threading.Lock = field(factory=threading.Lock, init=False)
    _made: tuple[str, bytes] = field(default=("", b""), init=False)

    def state(self) -> str:
        """Give a text that changes as stages end or fail."""
        ledger = Ledger(self.store)
        ended = [(stage, sorted(ledger.done(stage)), sorted(ledger.failed(stage))) for stage in STAGES]
        manifests = {name: len(known["cells"]) for name, known in read_manifests(self.store).items()}
        return hashlib.blake2b(repr((ended, manifests)).encode(), digest_size=16).hexdigest()

    def page(self) -> bytes:
        """Give the page, with the state that it shows."""
        with self._lock:
            state = self.state()
            if state != self._made[0]:
                self._made = state, live_page(self.store, state, self.experiment).encode()
                self.looked()
            return self._made[1]


def server(report: LiveReport, port: int = 0) -> ThreadingHTTPServer:
    """Give a server of the report on loopback; port 0: any that is free.

    It answers GET alone, to this machine's own names: what another site has a browser ask here is refused.
    """

    class Handler(BaseHTTPRequestHandler):
        """Answers with the page, or with the state of the store."""

        def do_GET(self) -> None:
            """Answer a request."""
            if urlsplit(f"//{self.headers.get('Host', '')}").hostname not in NAMES:
                self.send_error(HTTPStatus.FORBIDDEN)
                return
            path = urlsplit(self.path).path
            if path not in ("/", "/state"):
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            try:
                body = report.page() if path == "/" else report.state().encode()
            except (StoreError, OSError) as error:
                self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, explain=str(error))
                return
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "text/html; charset=utf-8" if path == "/" else "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing of requests."""

    try:
        return ThreadingHTTPServer((HOST, port), Handler)
    except OSError as error:
        reason = "another program listens there" if error.errno == errno.EADDRINUSE else error.strerror
        raise UsageError(
            f"--port {port}: cannot be taken: {reason}; expected another one, or none for any that is free"
        ) from error


def serve(report: LiveReport, port: int) -> None:
    """Serve the report until Ctrl-C."""
    with server(report, port) as running:
        say(f"http://{HOST}:{running.server_address[1]}/  (Ctrl-C ends it)")
        try:
            running.serve_forever()
        except KeyboardInterrupt:
            say("ended")
