"""What a person reads of a bucket that does not answer, refuses, or is not there: once, at once, by name."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from commands import command
from facts import facts
from s3_server import SECRET, s3_server, settings

from store.backend import refusals, requests
from store.backend.locate import place_of
from store.errors import StoreError

pytest.importorskip("obstore")
MISSING = "<?xml version='1.0'?>\n<Error><Code>{}</Code><Message>{}</Message><HostId>h</HostId></Error>"


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Iterator[None]:
    for name in os.environ:
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("ABLATION_ENGINE_CACHE", str(tmp_path))
    monkeypatch.setattr(requests, "FIRST_PATIENCE", 0.2)
    monkeypatch.setattr(requests, "_answered", set())
    monkeypatch.setattr(requests, "_told", {})
    requests.client.cache_clear()
    yield
    requests.client.cache_clear()


def use(monkeypatch: pytest.MonkeyPatch, address: str, **more: str | None) -> None:
    for name, value in (settings(0) | {"AWS_ENDPOINT_URL": address} | more).items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)


@contextmanager
def answering(status: int, body: str) -> Iterator[tuple[str, list[str]]]:
    """Answer every request so; give the address, and the requests that came."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            asked.append(self.command)
            content = body.encode() if self.command != "HEAD" else b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_HEAD = do_DELETE = _answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def resetting() -> Iterator[str]:
    """Take every connection, and reset it."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    line, _ = server.accept()
                except OSError:
                    return
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                line.close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def refused(url: str, *parts: str, within: float = 5.0) -> None:
    """Every command ends with exit code 1 and one sentence, soon."""
    for arguments in (("status", url), ("report", url), ("verify", url)):
        began = time.monotonic()
        code, output = command(*arguments)
        assert code == 1, output
        assert output.startswith("error: ") and output.count("\n") == 1 and len(output) < 400, output
        assert url in output and SECRET not in output and "<" not in output, output
        for part in parts:
            assert part in output
        assert time.monotonic() - began < within


def test_a_missing_bucket_is_named_by_every_request(monkeypatch):
    with s3_server() as port:
        use(monkeypatch, address := f"http://127.0.0.1:{port}")
        refused("s3://nobucket/x", f'no bucket "nobucket" at {address}', "create it")
        place = place_of("s3://nobucket/x")
        for request in (
            lambda: place.read("a"),
            lambda: place.write("a", b""),
            lambda: place.create("a", b""),
            lambda: place.size("a"),
        ):
            with pytest.raises(requests.UnreachableError, match='no bucket "nobucket"'):
                request()


@pytest.mark.parametrize(
    ("status", "code", "message", "expected"),
    [
        (403, "AccessDenied", "Access Denied", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        (403, "InvalidAccessKeyId", "No such key", "403 InvalidAccessKeyId: No such key"),
        (401, "Unauthorized", "Who?", "access denied"),
        (301, "PermanentRedirect", "Use another endpoint", "AWS_REGION"),
        (400, "AuthorizationHeaderMalformed", "expecting 'eu-west-1'", "expecting 'eu-west-1'"),
        (405, "MethodNotAllowed", "Not here", "405 MethodNotAllowed: Not here"),
    ],
)
def test_a_refusal_is_told_at_once_in_the_servers_words(monkeypatch, status, code, message, expected):
    with answering(status, MISSING.format(code, message)) as (address, asked):
        use(monkeypatch, address)
        refused("s3://bucket/x", expected, address)
        assert len(asked) <= 6  # one or two for each of three commands


def test_an_address_at_which_nothing_answers_is_told_soon(monkeypatch):
    use(monkeypatch, "http://127.0.0.1:9")
    refused("s3://bucket/x", "http://127.0.0.1:9 (Connection refused)", "AWS_ENDPOINT_URL")


def test_an_unknown_host_is_told_soon(monkeypatch):
    use(monkeypatch, "http://no-such-host.invalid")
    refused("s3://bucket/x", "no connection to http://no-such-host.invalid", "AWS_ENDPOINT_URL")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"AWS_ENDPOINT_URL": "localhost:9000"}, "AWS_ENDPOINT_URL is no address; expected http://HOST:PORT"),
        ({"AWS_ENDPOINT_URL": "http://[::1"}, "AWS_ENDPOINT_URL is no address; expected http://HOST:PORT"),
        ({"AWS_ALLOW_HTTP": None}, "set AWS_ALLOW_HTTP=true"),
        ({"AWS_SECRET_ACCESS_KEY": None}, "AWS_ACCESS_KEY_ID is set, but not AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": None}, "AWS_SECRET_ACCESS_KEY is set, but not AWS_ACCESS_KEY_ID"),
    ],
)
def test_a_setting_that_cannot_be_is_named(monkeypatch, more, expected):
    use(monkeypatch, "http://127.0.0.1:9", **more)
    refused("s3://bucket/x", expected)


def test_without_credentials_the_variable_is_named(monkeypatch):
    """The client then asks for a machine's role, at an address that means nothing to anybody."""
    with answering(404, "no role") as (address, _):
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", address)
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        monkeypatch.setattr(refusals, "METADATA", (address.partition("//")[2],))
        refused("s3://bucket/x", "no credentials", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")


@pytest.mark.parametrize(
    ("scheme", "variable"), [("gs", "GOOGLE_APPLICATION_CREDENTIALS"), ("az", "AZURE_STORAGE_ACCOUNT_KEY")]
)
@pytest.mark.parametrize("rest", ["status code: 403 Forbidden: denied", "HTTP error: error sending request"])
def test_other_providers_name_their_own_variable(scheme, variable, rest):
    text = "Generic error: Error performing GET http://169.254.169.254/token?audience=x in 9ms - " + rest
    found = refusals.refusal(f"{scheme}://bucket/x", ValueError(text))
    assert found.final and variable in str(found) and "169.254" not in str(found)
    passing = refusals.refusal(
        f"{scheme}://bucket/x", ValueError(text.replace(rest, "status code: 503 Busy"))
    )
    assert not passing.final


def test_azure_without_an_account_names_its_variable():
    refused("az://bucket/x", "set AZURE_STORAGE_ACCOUNT_NAME")


@pytest.mark.parametrize("fault", ["reset", "slow"])
def test_what_passes_is_tried_again_and_a_person_hears_of_it(monkeypatch, fault):
    monkeypatch.setattr(requests, "SILENCE", 0.2)
    monkeypatch.setattr(requests, "_ONE_CALL", 0.1)
    monkeypatch.setattr(requests, "PATIENCE", 1.2)
    slow = MISSING.format("SlowDown", "Reduce your request rate")
    with answering(503, slow) as (address, asked), resetting() as line:
        use(monkeypatch, address if fault == "slow" else line)
        with pytest.warns(UserWarning) as told:
            code, output = command("status", "s3://bucket/x")
    said = {"slow": "503 SlowDown: Reduce your request rate", "reset": "Connection reset"}[fault]
    (waiting,) = (str(each.message) for each in told)
    assert waiting.startswith("s3://bucket/x: no answer yet") and said in waiting
    assert waiting.endswith("; trying again for up to 1 s")
    assert code == 1 and output.startswith("error: s3://bucket/x") and output.count("\n") == 1, output
    assert said in output and output.endswith("tried for 1 s\n")
    assert fault == "reset" or len(asked) > 3


def test_a_server_that_comes_back_is_waited_for_though_it_refuses_connections(monkeypatch):
    """A port is closed while a server starts anew; where one has answered before, that passes."""
    monkeypatch.setattr(requests, "_ONE_CALL", 0.1)
    with s3_server() as port:
        use(monkeypatch, f"http://127.0.0.1:{port}")
        place = place_of("s3://bucket/x")
        place.write("a", b"1")
    begun = time.monotonic()
    monkeypatch.setattr(requests, "PATIENCE", 1.0)
    with pytest.raises(requests.UnreachableError, match=facts("Connection refused", "1 s")):
        place.read("a")
    assert time.monotonic() - begun > 0.9


def test_a_credential_with_a_line_break_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key\n")
    with pytest.raises(StoreError, match=facts("$AWS_ACCESS_KEY_ID", "line break")):
        place_of("s3://bucket/x")
