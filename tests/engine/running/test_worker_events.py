"""What workers tell while they run: through files, from any executor, to the execution's log and display."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from children import run
from s3_server import BUCKET, s3_server, settings

import engine
from engine.planning.plan import Plan, PlannedCell
from engine.progress import Report
from engine.running.at_work import events_of
from engine.running.display import Display
from engine.running.run_log import lines_to
from engine.running.worker_events import WorkerDisplay, WorkerEvents, worker_file
from store.backend import requests
from store.backend.locate import place_of
from store.backend.location import Place


class Heard(Display):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def begin(self, cell: PlannedCell, stage: str) -> Report:
        self.told.append(("begin", cell.index, stage))
        return lambda *progress: self.told.append(("runs", cell.index, stage, *progress))

    def done(self, cell: PlannedCell, stage: str, summary: dict[str, float]) -> None:
        self.told.append(("done", cell.index, stage, summary))

    def failed(self, cell: PlannedCell, stage: str, message: str) -> None:
        self.told.append(("failed", cell.index, stage, message))

    def left(self, cell: PlannedCell, stage: str) -> None:
        self.told.append(("left", cell.index, stage))


@pytest.fixture
def plan(write_spec: Callable[..., Path]) -> Plan:
    return engine.plan(write_spec())


def both_ends(plan: Plan, place: Place) -> tuple[WorkerDisplay, WorkerEvents, Heard]:
    heard = Heard()
    return WorkerDisplay(lines_to(place, worker_file())), WorkerEvents(plan, place, heard), heard


def test_what_a_worker_tells_is_passed_on_as_it_comes(plan: Plan, tmp_path: Path) -> None:
    worker, events, heard = both_ends(plan, place_of(tmp_path / "events"))
    events.look()
    assert heard.told == []  # nobody has written yet
    cell = plan.cells[1]
    report = worker.begin(cell, "train")
    report(1, 9, "loss 1.0")
    for step in range(2, 9):
        report(step, 9, "loss 0.9")  # at once: they are not worth a line each
    events.look()
    assert heard.told == [("begin", 1, "train"), ("runs", 1, "train", 1, 9, "loss 1.0")]
    worker.done(cell, "train", {"train_loss": 0.5})
    worker.left(cell, "train")
    worker.begin(cell, "evaluate")
    worker.failed(cell, "evaluate", "no\nroom")
    worker.begin(plan.cells[2], "load")
    worker.left(plan.cells[2], "load")
    events.look()
    events.look()
    assert heard.told[2:] == [
        ("done", 1, "train", {"train_loss": 0.5}), ("begin", 1, "evaluate"),
        ("failed", 1, "evaluate", "no\nroom"), ("begin", 2, "load"), ("left", 2, "load"),
    ]  # fmt: skip
    assert events.told == {(1, "train"), (1, "evaluate")}


def test_half_a_line_is_read_when_it_is_whole(plan: Plan, tmp_path: Path) -> None:
    _, events, heard = both_ends(plan, place_of(tmp_path / "events"))
    line = json.dumps(["begin", 0, "train"]).encode() + b"\n"
    (file := tmp_path / "events" / "other-1.jsonl").parent.mkdir(exist_ok=True)
    with file.open("ab", buffering=0) as stream:
        stream.write(line[:9])
        events.look()
        assert heard.told == []
        stream.write(line[9:])
        events.look()
    assert heard.told == [("begin", 0, "train")]


def test_what_a_lost_worker_was_at_is_at_work_no_more(plan: Plan, tmp_path: Path) -> None:
    worker, events, heard = both_ends(plan, place_of(tmp_path / "events"))
    for cell in plan.cells[:2]:
        worker.begin(cell, "train")
    events.look()
    events.end([plan.cells[0]])
    assert heard.told[2:] == [("left", 0, "train")]
    worker.begin(plan.cells[0], "train")  # as it is given again
    events.look()
    assert heard.told[3:] == [("begin", 0, "train")]


def test_through_a_bucket_it_comes_late_and_whole(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server() as port:
        for name, value in settings(port).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("ABLATION_ENGINE_CACHE", str(tmp_path / "cache"))
        requests.client.cache_clear()
        place = place_of(f"s3://{BUCKET}/{tmp_path.name}").under(events_of("run"))
        file = lines_to(place, worker_file())
        worker, heard = WorkerDisplay(file), Heard()
        events = WorkerEvents(plan, place, heard)
        worker.begin(plan.cells[0], "train")
        events.look()
        assert heard.told == [("begin", 0, "train")]
        worker.done(plan.cells[0], "train", {"train_loss": 0.5})  # a moment later: it is sent later
        events.look(now=True)
        assert len(heard.told) == 1
        file.close()
        events.look()  # a moment after the last look
        assert len(heard.told) == 1
        events.look(now=True)
        assert heard.told[1:] == [("done", 0, "train", {"train_loss": 0.5})]


@pytest.mark.parametrize(
    "executor",
    [
        ("--workers", 2),
        ("--executor", "slurm", "--set", "executor.cluster=local"),
        ("--executor", "ray"),
    ],
)
def test_workers_of_every_executor_log_as_they_go(
    write_spec: Callable[..., Path], tmp_path: Path, executor: tuple[object, ...]
) -> None:
    if "slurm" in executor:
        pytest.importorskip("submitit")
    if "ray" in executor:
        pytest.importorskip("ray")
    run(tmp_path, "execute", write_spec(), "--only", "target=label,seed=0", *executor)
    (log,) = (tmp_path / "store" / "logs").glob("*.jsonl")
    told = [json.loads(line) for line in log.read_text().splitlines()]
    seen = [(event["event"], event["cell"], event["stage"]) for event in told]
    for stage in ("base", "train", "evaluate", "probe"):
        assert seen.count(("begins", 1, stage)) == seen.count(("done", 1, stage)) == 1
        assert seen.index(("begins", 1, stage)) < seen.index(("done", 1, stage))
    assert (
        seen.index(("begins", 1, "load"))
        < seen.index(("ends", 1, "load"))
        < seen.index(("begins", 1, "train"))
    )
    assert {event for event, _, _ in seen} <= {"begins", "runs", "done", "ends"}
    assert not [*(tmp_path / "store" / "logs").glob("*.workers*")]
