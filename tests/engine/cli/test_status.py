"""`engine status` and `plan --cells`: the cells that are asked for, and a watch that ends by itself."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time as real_time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from commands import CODE, command, engine
from facts import told
from small_study import small_spec

import engine as python
from engine.cli import status_command, status_watch
from engine.running.display import Display
from engine.running.executors.imports import python_environment
from engine.running.run_log import logged
from store import Ledger


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rated_file: Path) -> Path:
    """A spec of four cells, of which one is done and one has failed."""
    spec = small_spec(tmp_path_factory.mktemp("begun"), tiny_model, rated_file)
    engine("execute", spec, "--only", "target=label", "--only", "seed=0")
    matrix = json.loads(engine("plan", spec, "--cells", "--json").output)["matrix"]
    ledger = Ledger(spec.parent / "store")
    failed = matrix[1]
    record = {"error": "it broke", "traceback": "Traceback", "levels": failed["levels"]}
    ledger.fail("train", failed["keys"]["train"], record)
    return spec


@pytest.fixture
def some(begun: Path, tmp_path: Path) -> Path:
    """A copy of it, with its store."""
    shutil.copytree(begun.parent / "store", tmp_path / "store")
    spec = tmp_path / "small.toml"
    spec.write_text(begun.read_text().replace(str(begun.parent), str(tmp_path)))
    return spec


def listed(name: str, spec: Path, *arguments: str) -> list[tuple[str, int]]:
    more = ("--cells",) if name == "plan" else ()
    found = json.loads(engine(name, spec, *more, *arguments, "--json").output)
    cells = found["matrix"] if name == "plan" else found["experiments"][0]["cells"]
    return [(cell["levels"]["target"], cell["levels"]["seed"]) for cell in cells]


@pytest.mark.parametrize("name", ["plan", "status"])
def test_cells_are_chosen_by_level_and_state(name: str, some: Path) -> None:
    both = [("label+explanation", 0), ("label+explanation", 1)]
    assert listed(name, some, "--failed") == [("label", 1)]
    assert listed(name, some, "--pending") == both
    assert listed(name, some, "--failed", "--pending") == [("label", 1), *both]
    assert listed(name, some, "--only", "seed=0") == [("label", 0), ("label+explanation", 0)]
    assert listed(name, some, "--only", "seed=0", "--pending") == both[:1]
    text = engine(name, some, "--failed", columns=80).output
    assert told(text, "cells") and told(text, "2", "failed: train")
    code, output = command(name, some, "--only", "sed=0")
    assert code == 2 and told(output, "only sed=0", "seed")


@pytest.mark.parametrize("name", ["plan", "status"])
def test_no_cell_in_a_state_is_said_plainly(name: str, write_spec) -> None:
    spec = write_spec()
    one = ("--only", "target=label", "--only", "seed=0")
    assert told(engine(name, spec, "--failed").output, "small", "no stage failed")
    engine("execute", spec, *one)
    assert told(engine(name, spec, "--failed").output, "small", "no stage failed")
    assert told(engine(name, spec, *one, "--pending").output, "small", "no stage is pending")
    said = engine(name, spec, *one, "--pending", "--failed").output
    assert told(said, "no stage failed", "none is pending")
    assert "no such" not in said and "cells" not in engine(name, spec, "--failed").output.splitlines()[-1]


def test_failed_data_is_not_taken_for_no_failure(write_spec) -> None:
    spec = write_spec()
    engine("execute", spec, "--set", 'evaluate.labels=["good", "bad"]', code=1)
    said = engine("status", spec.parent / "store", "--failed").output
    assert told(said, "no stage of these cells failed") and told(said, "failed", "none of the labels")


class Clock:
    """Passes the time of a watch, and runs what happens meanwhile."""

    def __init__(self, *happens: Callable[[], object]) -> None:
        self.now, self.waited, self.happens = 0.0, list[float](), list(happens)

    def sleep(self, seconds: float) -> None:
        self.waited.append(seconds)
        self.now += seconds
        if self.happens:
            self.happens.pop(0)()

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[str, list[float]]]:
    """Give a function that watches by a clock of its own, and gives the output and the waits."""

    def watch(target: Path, *arguments: object, happens: Sequence[Callable[[], object]] = ()) -> Any:
        clock = Clock(*happens)
        monkeypatch.setattr(status_command, "time", SimpleNamespace(sleep=clock.sleep))  # no other thread's
        monkeypatch.setattr(status_watch, "time", SimpleNamespace(monotonic=clock.monotonic))
        return engine("status", target, "--watch", *arguments).output, clock.waited

    return watch


def test_a_watch_ends_when_all_is_done(some: Path, watched) -> None:
    output, waited = watched(some, happens=[lambda: engine("execute", some, "--retry-failed")])
    assert waited == [5.0]
    first, second = output.count("small: 4 cells"), output.rfind("small: 4 cells")
    assert first == 2 and told(output[second:], "train", "4", "0", "0", "0")
    assert output.splitlines()[-1] == "all is done: 4 cells"
    assert watched(some, "2")[1] == []
    code, output = command("status", some, "--watch", "--json")
    assert code == 2 and told(output, "--watch", "--json")


def test_a_watch_ends_with_the_execution_that_it_saw(some: Path, watched) -> None:
    """Whatever that has left: a failed training with what is behind it, and cells that nobody asked for."""
    ledger = Ledger(some.parent / "store")
    ledger.start("execution", "20250101T000000Z-1")
    output, waited = watched(
        some, "1", happens=[lambda: None, lambda: ledger.release("execution", "20250101T000000Z-1")]
    )
    assert waited == [1.0, 1.0] and told(output, "at work", "Ctrl-C ends this")
    last = output.splitlines()[-1]
    assert told(last, "nothing is at work any more", "1 done", "1 failed", "2 pending", "of 4 cells")
    assert told(last, f"engine execute {some}", "runs what is pending", "--retry-failed")
    ledger.start("execution", "20250101T000000Z-1")
    output, _ = watched(
        some.parent / "store", happens=[lambda: ledger.release("execution", "20250101T000000Z-1")]
    )
    assert "`engine execute` runs what is pending" in output.splitlines()[-1]  # a store is no spec


def test_a_watch_waits_a_minute_for_an_execution(some: Path, write_spec, watched, tmp_path: Path) -> None:
    output, waited = watched(some, "20")
    assert waited == [20.0] * 3 and told(output, "waiting for `engine execute`")
    assert told(output.splitlines()[-1], "nothing is at work", "2 pending")
    assert watched(some, "20", "--only", "seed=0", "--only", "target=label")[1] == []
    assert watched(some, "20", "--only", "seed=1", "--only", "target=label")[1] == []  # it has failed
    other, store = write_spec(name="other"), ("--store", tmp_path / "other")  # where nothing has run
    run = ("execute", other, *store, "--only", "target=label")
    output, waited = watched(other, "20", *store, happens=[lambda: engine(*run)])
    assert waited == [20.0] * 3 and told(output.splitlines()[-1], "2 done", "2 pending", "of 4 cells")


def test_a_claim_of_a_dead_process_keeps_no_watch(some: Path, watched) -> None:
    """One of this machine is known to be dead at once; another's silence is waited for."""
    root = some.parent / "store"
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[3])!r}); from store import Ledger; "
        f"import os; Ledger({str(root)!r}).start('execution', 'x'); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    (claim,) = root.glob("claims/execution/x/*.json")
    dead = claim.read_text()
    assert watched(some, "30")[1] == [30.0, 30.0]  # as if nothing was there
    claim.write_text(json.dumps(json.loads(dead) | {"machine": "other", "lease": 0.2}))
    output, waited = watched(some, "30", happens=[lambda: real_time.sleep(0.3)])
    assert waited == [30.0] and told(output.splitlines()[-1], "nothing is at work any more")
    claim.write_text(dead)
    (left := root / "logs" / "x.workers").mkdir()
    engine("execute", some, "--max-cells", 1)
    assert [*root.glob("claims/execution/*")] == [] and not left.exists()


def test_ctrl_c_ends_a_watch_without_a_word(some: Path) -> None:
    environment = {**os.environ, **python_environment()}
    line = [sys.executable, "-c", CODE, "status", some, "--watch", "60"]
    process = subprocess.Popen(
        list(map(str, line)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert process.stdout is not None
    while "Ctrl-C ends this" not in process.stdout.readline():
        pass
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and output == errors.strip() == ""


def test_status_shows_what_an_execution_is_at_work_at(some: Path) -> None:
    root, run = some.parent / "store", "20250101T000000Z-1"
    ledger = Ledger(root)
    ledger.start("execution", run)
    plan = python.plan(some)
    with logged(plan, Display(), run) as shown:
        shown.begin(plan.cells[2], "load")
        shown.left(plan.cells[2], "load")
        report = shown.begin(plan.cells[2], "train")
        log = json.loads((root / "logs" / f"small-{run}.jsonl").read_text().splitlines()[-1])
        assert log["event"] == "begins"
        with (root / "logs" / f"small-{run}.jsonl").open("a") as stream:  # as is written after ten seconds
            stream.write(
                json.dumps(log | {"event": "runs", "text": "120/1400 loss 1.234, 456 tokens/s"}) + "\n"
            )
        report(121, 1400, "loss 1.230, 456 tokens/s")
        (at_work,) = json.loads(engine("status", some, "--json").output)["experiments"][0]["at_work"]
        assert (at_work["cell"], at_work["stage"], at_work["done"], at_work["total"]) == (
            3,
            "train",
            120,
            1400,
        )
        for columns in (60, 80, 120):
            said = engine("status", some, columns=columns).output
            assert told(said, "3/4", "target=", "seed=0", "train", "120/1,400", "loss 1.234")
        shown.done(plan.cells[2], "train", {"seconds": 1.0})
        assert json.loads(engine("status", some, "--json").output)["experiments"][0]["at_work"] == []
        shown.begin(plan.cells[2], "evaluate")
    ledger.release("execution", run)  # what the log of an execution says that has ended counts for nothing
    assert json.loads(engine("status", some, "--json").output)["experiments"][0]["at_work"] == []
