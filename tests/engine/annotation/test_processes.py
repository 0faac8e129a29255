"""Real processes that are killed, stopped or come twice: what was answered is kept and never asked again."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from annotate_spec import lines, write_spec
from chat_server import Reply, Served, rated, serving
from commands import engine

ROOT = Path(__file__).parents[3]
CONVERSATIONS, CONCURRENCY = 40, 4


def start(spec: Path) -> subprocess.Popen[str]:
    # A suite that runs in the background of a shell ignores SIGINT, and its children would, too.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from engine.cli.main import main; main()"
    line = [sys.executable, "-c", code, "annotate", str(spec)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("nothing came")


class Half:
    """Answers half of the conversations at once, and the others only when `rest` is set."""

    def __init__(self) -> None:
        self.rest = threading.Event()
        self._number = itertools.count()

    def __call__(self, *_: object) -> Reply:
        if next(self._number) >= CONVERSATIONS // 2:
            self.rest.wait(60)
        return rated(3)


def spec_of(folder: Path, server: Served) -> Path:
    return write_spec(
        folder, server.url, conversations=CONVERSATIONS, annotator=f"concurrency = {CONCURRENCY}"
    )


def test_a_killed_process_loses_no_answer_and_the_next_asks_for_the_rest(tmp_path: Path) -> None:
    log = tmp_path / "rated.jsonl.answers.jsonl"
    half = Half()
    with serving(half) as server:
        spec = spec_of(tmp_path, server)
        process = start(spec)
        wait_for(lambda: len(server.answered) >= 10)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        half.rest.set()
        kept = lines(log)
        assert not (tmp_path / "rated.jsonl").exists()
        assert len(server.answered) - CONCURRENCY <= len(kept) < CONVERSATIONS
        before = len(server.requests)
        with log.open("a") as file:
            file.write('{"key": "torn by a crash')
        assert f"{CONVERSATIONS} of {CONVERSATIONS} conversations" in engine("annotate", spec).output
    assert len(server.requests) - before == CONVERSATIONS - len(kept)
    assert len({line["key"] for line in lines(log)}) == len(lines(log)) == CONVERSATIONS


def test_an_interrupt_ends_cleanly_and_two_processes_do_not_share_an_output(tmp_path: Path) -> None:
    half = Half()
    with serving(half) as server:
        spec = spec_of(tmp_path, server)
        process = start(spec)
        wait_for(lambda: len(server.answered) >= 5)
        assert "another process" in engine("annotate", spec, code=1).output
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        half.rest.set()
    assert process.returncode == 130
    assert "Every answer is kept" in output and "Traceback" not in output
    kept = lines(tmp_path / "rated.jsonl.answers.jsonl")
    assert len(server.answered) - CONCURRENCY <= len(kept) < CONVERSATIONS


def test_annotating_needs_no_torch_for_endpoints(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom engine.cli.main import main\n"
        "try: main()\nexcept SystemExit as end: print(end.code)\n"
        "print(json.dumps([name for name in ('torch', 'transformers') if name in sys.modules]))"
    )
    with serving(lambda *_: rated(3)) as server:
        spec = write_spec(tmp_path, server.url)
        line = [sys.executable, "-c", "import json\n" + code, "annotate", str(spec)]
        done = subprocess.run(line, capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(done.stdout.splitlines()[-1]) == []
