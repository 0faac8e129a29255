"""A served report is read on this machine alone, and follows the store."""

from __future__ import annotations

import http.client
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import needs_chromium, running_browser
from commands import engine
from facts import told
from report_store import Design, write_synthetic

from engine.cli.report_server import LiveReport, server

SMALL = Design({"target": ["label", "label+explanation"]}, examples=6, layers=5, steps=3, pending=(3,))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_synthetic(tmp_path / "store", SMALL)


@pytest.fixture
def live(root: Path) -> Iterator[tuple[LiveReport, int, list[int]]]:
    looks: list[int] = []
    report = LiveReport(root, None, lambda: looks.append(1))
    with server(report) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield report, running.server_address[1], looks
        running.shutdown()


def ask(port: int, path: str, method: str = "GET", host: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, headers={"Host": host or f"127.0.0.1:{port}"})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def finish(root: Path) -> None:
    """Have the cell that is pending done."""
    done = root.parent / "done"
    write_synthetic(done, Design(SMALL.factors, examples=6, layers=5, steps=3))
    shutil.copytree(done, root, dirs_exist_ok=True)


def test_the_page_is_drawn_anew_when_a_cell_has_ended(live, root: Path) -> None:
    _, port, looks = live
    status, page = ask(port, "/")
    assert status == 200 and '"state":"pending"' in page and "connect-src 'self'" in page
    _, state = ask(port, "/state")
    assert f'"live":"{state}"' in page
    assert ask(port, "/")[1] == page and len(looks) == 1  # made and looked at once
    finish(root)
    _, later = ask(port, "/state")
    assert later != state
    page = ask(port, "/")[1]
    assert '"state":"pending"' not in page and f'"live":"{later}"' in page and len(looks) == 2


def test_it_is_for_reading_on_this_machine_alone(live) -> None:
    _, port, _ = live
    assert ask(port, "/", host=f"localhost:{port}")[0] == 200
    assert ask(port, "/", host="evil.example")[0] == 403  # another site's name that leads here
    assert ask(port, "/../ledger")[0] == 404
    for method in ("POST", "PUT", "DELETE"):
        assert ask(port, "/", method)[0] == 501


def test_a_store_that_cannot_be_read_is_told_of(live, root: Path) -> None:
    _, port, _ = live
    shutil.rmtree(root)
    assert ask(port, "/")[0] == 503


def test_a_file_of_a_served_report_is_refused(root: Path, tmp_path: Path) -> None:
    assert "expected one of the two" in engine("report", root, "--serve", "-o", tmp_path / "x", code=2).output


@needs_chromium
def test_a_browser_follows_the_store_without_a_hand(live, root: Path) -> None:
    _, port, _ = live
    with running_browser() as browser:
        page = browser.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("#matrix .state.pending")
        finish(root)
        page.wait_for_selector("#matrix .state.pending", state="detached", timeout=60_000)
        assert page.locator("#matrix .state.done").count() > 4
        assert page.inner_text(".tools").startswith("live") and complaints == []


def test_a_port_that_is_taken_is_named_with_a_way_out(root: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        output = engine("report", root, "--serve", "--port", port, code=2).output
    assert told(output, f"--port {port}", "another program", "expected another")
    assert len(output.splitlines()) == 1
