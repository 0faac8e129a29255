"""What `engine execute` shows while it runs: a line for each worker, whole at any width, and one over all."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from commands import CODE, engine
from rich.cells import cell_len
from small_study import small_spec

import engine as python
from engine.cli import terminal_display
from engine.cli.progress_lines import SHORT, SHORTEST, Line, drawn, shortened
from engine.cli.terminal_display import TerminalDisplay
from engine.running.executors.imports import python_environment
from engine.running.time_left import TimeLeft
from engine.terminal import Terminal
from specs.tables.executor import Executor

NAME = "target=label+explanation, learning-rate=0.0001, seed=0"
TRAINS = Line("3/81", NAME, "train", 120, 1400, "loss 1.234, 4567 tokens/s")
SCORES = Line("12/81", "target=label, learning-rate=0.0001, seed=0", "evaluate", 32, 100)
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_line_keeps_what_matters_at_any_width(width: int) -> None:
    trains, scores = (text.plain for text in drawn([TRAINS, SCORES], width))
    assert cell_len(trains) <= width and cell_len(scores) <= width
    assert re.match(r" 3/81  target=\S.*seed=0 +train +120/1,400  loss 1\.234", trains)
    assert re.match(r"12/81  target=\S.*seed=0 +evaluate +32/100", scores)
    assert trains.index("train ") == scores.index("evaluate")  # columns stand below each other
    assert (NAME in trains) == (width == 120) and ("4567 tokens/s" in trains) == (width >= 80)
    assert "━" not in trains


def test_what_matters_less_gives_way_first() -> None:
    """From wide to narrow: bar, whole name, speed, loss, name; never number, stage and steps."""
    gone: list[str] = []
    for width in range(200, 22, -1):
        (line,) = (text.plain for text in drawn([TRAINS], width))
        assert cell_len(line) <= width
        match = re.match(r"3/81(?:  (\S.*?))?  train  120/1,400", line)
        assert match, line
        name = match[1] or ""
        shown = {
            "bar": "━" in line, "whole name": name == NAME, "speed": "tokens/s" in line,
            "loss": "loss 1.234" in line, "name": name != "",
        }  # fmt: skip
        gone += [part for part, there in shown.items() if not there and part not in gone]
        assert [part for part, there in shown.items() if not there] == gone  # nothing comes back
        assert not shown["speed"] or cell_len(name) >= SHORT
        assert not shown["loss"] or cell_len(name) >= SHORTEST
    assert gone == ["bar", "whole name", "speed", "loss", "name"]
    assert drawn([], 80) == []


def test_a_name_is_cut_in_its_middle() -> None:
    assert shortened(NAME, 60) == NAME
    for width in range(1, cell_len(NAME)):
        short = shortened(NAME, width)
        assert cell_len(short) <= width and short.count("…") == 1
        front, back = short.split("…")
        assert NAME.startswith(front) and NAME.endswith(back) and abs(len(front) - len(back)) <= 2
    assert cell_len(shortened("漢字漢字漢字漢字", 7)) <= 7 and shortened(NAME, 0) == ""


def display(plan: Any, width: int = 80, **options: Any) -> tuple[TerminalDisplay, StringIO]:
    """A display that prints to a text, as into a pipe."""
    printed = StringIO()
    left = TimeLeft.of(plan, plan.cells, Executor(), retry_failed=False)
    return TerminalDisplay(Terminal(file=printed, width=width), plan, left, **options), printed


def test_a_workers_next_stage_takes_the_place_of_its_last(write_spec) -> None:
    plan = python.plan(write_spec())
    shown, _ = display(plan)
    reports = [shown.begin(cell, "train") for cell in plan.cells[:3]]
    reports[1](7, 9, "loss 1.0")
    assert [(work.cell.index, work.done) for work in shown.at_work] == [(0, 0), (1, 7), (2, 0)]
    shown.done(plan.cells[1], "train", {"seconds": 1.0})
    shown.left(plan.cells[1], "train")
    assert [work.cell.index for work in shown.at_work] == [0, 2]
    shown.begin(plan.cells[1], "evaluate")
    assert [work.stage for work in shown.at_work] == ["train", "evaluate", "train"]
    shown.lost(plan.cells[0], "train", "the worker was killed")
    shown.failed(plan.cells[2], "train", "no")
    assert [work.stage for work in shown.at_work] == ["evaluate"]


def test_in_a_pipe_plain_lines_come_now_and_then(write_spec, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = python.plan(write_spec())
    shown, printed = display(plan)
    report = shown.begin(plan.cells[0], "train")
    for step in range(100):
        report(step, 100, "loss 1.234")
    assert printed.getvalue() == ""
    monkeypatch.setattr(terminal_display, "SECONDS", 0.0)
    report(100, 100, "loss 1.234")
    shown.waits("waiting for 2 cells that another process has")
    report(100, 100, "loss 1.2")
    first, over_all, *_, last = printed.getvalue().splitlines()
    assert first == "runs    cell 1/4 target=label, seed=0: train  100/100 loss 1.234"
    assert over_all == "        0/14 stages"
    assert last == "        0/14 stages; waiting for 2 cells that another process has"
    quiet, printed = display(plan, quiet=True)
    quiet.begin(plan.cells[0], "train")(1, 2, "")
    assert printed.getvalue() == ""


def test_more_workers_than_lines_leave_room_for_what_is_over_all(write_spec) -> None:
    plan = python.plan(write_spec("[[interventions]]\nname = 'off'\nkind = 'mask'\n"))
    shown, _ = display(plan, width=60)
    for cell in plan.cells:
        for stage in ("train", "evaluate", "probe", "intervene"):
            shown.begin(cell, stage)
    options = shown._console.options.update(height=10, max_width=60)
    options.max_height = 10
    lines = [text.plain for text in shown._lines(options)]
    assert len(lines) == 8 and lines[-1].startswith("… and 9 more at work; 0/")
    assert all(cell_len(line) <= 60 for line in lines)


class Seen:
    """What a terminal of so many columns was sent, while a command ran at it."""

    def __init__(self, columns: int, arguments: list[object], folder: Path) -> None:
        environment = {**os.environ, **python_environment(), "OMP_NUM_THREADS": "1", "TERM": "xterm"}
        environment.pop("COLUMNS", None)
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", CODE, *map(str, arguments)],
            stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=folder, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self.terminal, self.sent = ours, b""

    def read(self) -> bool:
        """Read what has come; tell whether more can."""
        if select.select([self.terminal], [], [], 0.1)[0]:
            try:
                more = os.read(self.terminal, 1 << 16)
            except OSError:  # nobody is left at the other end
                return False
            self.sent += more
            return bool(more)
        return True

    @property
    def text(self) -> str:
        return CONTROL.sub("", self.sent.decode(errors="replace")).replace("\r\n", "\n").replace("\r", "\n")


def logged(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in root.glob("logs/*.jsonl") for line in file.read_text().splitlines()]


def test_workers_show_their_steps_and_losses_at_a_terminal(
    tmp_path: Path, tiny_model: Path, rated_file: Path
) -> None:
    spec = small_spec(tmp_path, tiny_model, rated_file, train="steps = 150")
    root = tmp_path / "store"
    seen = Seen(60, ["execute", spec, "--workers", 2], tmp_path)
    deadline = time.monotonic() + 900
    early: list[str] = []  # events in the log while the first trainings are under way
    while seen.read() and time.monotonic() < deadline:
        if not early and [*root.glob("claims/train/*/*.json")] and not [*root.glob("ledger/train/*")]:
            early = [event["event"] for event in logged(root) if event["stage"] == "train"]
    seen.process.wait(60)
    assert seen.process.returncode == 0, seen.text
    foot = r"(?:\d/4  target=label.*?seed=\d  +train +\d+/150  loss \d\.\d{3}.*\n){2}\d+/14 stages"
    assert re.search(foot, seen.text), seen.text
    assert re.search(r"\d+/14 stages, (about|less than)", seen.text)
    progress = [line for line in seen.text.splitlines() if re.match(r"(done +)?\d+/\d+ ", line)]
    assert progress and max(map(cell_len, progress)) <= 60
    assert "begins" in early
    told = [(event["stage"], event["event"], event["cell"]) for event in logged(root)]
    assert {cell for stage, event, cell in told if (stage, event) == ("train", "done")} == {1, 2, 3, 4}
    for cell in range(1, 5):
        assert told.index(("train", "begins", cell)) < told.index(("train", "done", cell))
        assert told.count(("train", "done", cell)) == told.count(("probe", "done", cell)) == 1
    assert not [*root.glob("logs/*.workers*")] and not [*root.glob("claims/execution/*")]


def test_workers_are_as_quiet_or_verbose_as_one_process(write_spec, tmp_path: Path) -> None:
    asked = ("execute", write_spec(), "--workers", 2, "--set", "seeds=[0]", "--store")
    quiet = engine(*asked, tmp_path / "q", "-q").output
    assert [line.split(";")[0] for line in quiet.splitlines()] == [
        "Ran 1 data, 1 base, 2 train, 2 evaluate, 2 probe"
    ]
    verbose = engine(*asked, tmp_path / "v", "-v").output
    assert "begins  cell 2/2 target=label+explanation, seed=0: train" in verbose
    assert verbose.count("train_steps 2") == 2
