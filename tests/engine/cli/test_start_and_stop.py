"""`engine execute` says at once that it lives, and how it ends wherever Ctrl-C finds it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import CODE, command, engine
from facts import told

from engine.running.executors.imports import python_environment


def test_the_first_line_comes_before_what_takes_time_and_ctrl_c_is_told_from_there(
    write_spec, tmp_path: Path
) -> None:
    spec = write_spec(f"[executor]\nnotify = '''echo $ABLATION_STATE >> {tmp_path}/notes'''\n")
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, "execute", str(spec)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, **python_environment()}, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest = process.stdout.read()
    assert told(first, "small", "4 of 4 cells", "store"), first + rest
    assert process.wait(60) == 130 and "Stopped" in rest and "Traceback" not in rest
    assert (tmp_path / "notes").read_text() == "stopped\n"
    assert "to run" not in engine("execute", spec, "--only", "seed=0", "--quiet").output
    assert told(engine("execute", spec).output, "small", "2 of 4 cells")
    assert "to run" not in engine("execute", spec).output  # nothing is


def test_a_stop_is_heard_at_once(write_spec) -> None:
    spec = write_spec("", train="steps = 100_000")
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, "execute", str(spec), "--verbose", "--only", "target=label,seed=0"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, **python_environment()}, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("begins") and ": train" in line:
            break
    process.send_signal(signal.SIGINT)
    heard = process.stdout.readline()
    rest = process.stdout.read()
    assert told(heard, "Stopping", "Ctrl-C again"), heard + rest
    assert process.wait(60) == 130 and told(rest, "Stopped", "safe")


@pytest.mark.parametrize("name", ["plan", "execute", "status"])
def test_ctrl_c_while_a_spec_is_read_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_size: int) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=SimpleNamespace(read=interrupted)))
    code, output = command(name, "-")
    assert code == 130 and output.strip() == "Stopped."
