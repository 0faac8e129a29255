"""Trackers are told of a whole cell's results, in the run of its training, grouped by condition."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from commands import engine

import engine as python
from engine.running.tracker_summaries import WRITERS, Results
from engine.stages.training.tracker_runs import TAG, TrackerRun, variables
from store import open_store

RUN = TrackerRun("small", {"target": "label", "seed": 1}, "0123")
RESULTS = Results({"accuracy": 0.5}, {"probe/entropy/prompt_end": {0: 3.0, 1: 2.0}})


@pytest.fixture(autouse=True)
def _no_trackers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TENSORBOARD_LOGGING_DIR", "WANDB_DIR", *RUN.environment):
        monkeypatch.delenv(name, raising=False)


def read(folder: Path) -> dict[str, dict[int, float]]:
    """The numbers that TensorBoard finds in a folder, by tag and step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def test_tensorboard_shows_results_beside_the_curves_cell_by_cell(write_spec: Any, tmp_path: Path) -> None:
    """Cells that share a training too, each in a run of its own; a second execution tells nothing again."""
    spec = write_spec('[factors.normalized]\npath = "evaluate.length_normalized"\nvalues = [false, true]\n')
    options = ("--set", 'train.report_to=["tensorboard"]', "--only", "target=label")
    engine("execute", spec, *options)
    engine("execute", spec, *options)
    store = tmp_path / "store"
    plan = python.plan(spec)
    node = open_store(store)["small"]
    chosen = [cell for cell in plan.cells if plan.levels(cell)["target"] == "label"]
    assert len({cell.keys["train"] for cell in chosen}) == 2 and len(chosen) == 4
    trained = []
    for cell in chosen:
        run = TrackerRun.of(plan, cell)
        logs = store / "train" / run.key / "logs"
        shown = read(logs / run.folder)
        trained += [run.key] * ("train/loss" in shown)
        cell_data = node.ablation.select(**run.levels)
        accuracy = float(cell_data["summary"]["accuracy"].squeeze())
        assert shown["results/accuracy"] == {0: pytest.approx(accuracy)}
        entropy = cell_data["probe"]["entropy"].mean(["cell", "example"]).sel(position="prompt_end")
        assert [*shown["probe/entropy/prompt_end"]] == entropy["layer"].values.tolist()
        np.testing.assert_allclose([*shown["probe/entropy/prompt_end"].values()], entropy.values, rtol=1e-6)
        assert len(list((logs / run.folder).iterdir())) == 1 + ("train/loss" in shown)
        assert (
            run.folder.parts[:2] == ("small", run.group) and f"seed={run.levels['seed']}" in run.folder.name
        )
    assert sorted(trained) == sorted({cell.keys["train"] for cell in chosen})  # each in one cell's own run
    folders = {file.parent for file in store.rglob("events.out.tfevents.*")}
    assert len(folders) == len(chosen)


def test_tensorboard_has_one_run_per_cell_by_condition_in_a_persons_own_folder(
    write_spec: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    engine("execute", write_spec(), "--set", 'train.report_to=["tensorboard"]', "--only", "seed=0")
    runs = {file.parent for file in (tmp_path / "board").rglob("events.out.tfevents.*")}
    found = sorted(str(run.parent.relative_to(tmp_path / "board")) for run in runs)
    assert found == ["small/target=label", "small/target=label+explanation"]
    assert all({"train/loss", "results/accuracy"} <= {*read(run)} for run in runs)


@pytest.mark.parametrize("level", ["../..", "a/b", "", "x" * 300, "\n\x1b", "..", "C:\\x"])
def test_a_runs_folder_stays_within_the_logs_whatever_levels_are_called(level: str, tmp_path: Path) -> None:
    folder = TrackerRun("small", {"target": level, "seed": 1}, "0123").folder
    assert len(folder.parts) == 3 and (tmp_path / folder).resolve().is_relative_to(tmp_path.resolve())
    (tmp_path / folder).mkdir(parents=True)


def test_a_run_is_named_after_the_cell_and_another_trainings_is_another() -> None:
    assert RUN.name.startswith("target=label, seed=1 (") and RUN.group == "target=label"
    assert RUN.id == TrackerRun("small", {"target": "label", "seed": 1}, "0123").id
    assert RUN.id != TrackerRun("small", {"target": "label", "seed": 1}, "4567").id


def test_what_a_person_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    import os

    with variables(RUN.environment):
        assert os.environ["WANDB_PROJECT"] == "mine" and os.environ["WANDB_RUN_ID"] == RUN.id
    assert "WANDB_RUN_ID" not in os.environ and os.environ["WANDB_PROJECT"] == "mine"


class Recorded:
    """A run that keeps what it is told."""

    def __init__(self) -> None:
        self.logged: list[dict[str, float]] = []
        self.summary: dict[str, float] = {}
        self.ended = False

    def __enter__(self) -> Recorded:
        return self

    def __exit__(self, *_: object) -> None:
        self.ended = True

    def log(self, values: dict[str, float], step: int | None = None) -> None:
        self.logged.append(values)

    def define_metric(self, *_: object, **__: object) -> None:
        pass


def test_wandb_goes_on_in_the_run_of_the_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its library takes the run from the environment, as in the training."""
    run, asked = Recorded(), {}

    def init(**options: Any) -> Recorded:
        import os

        asked.update(options, **{name: os.environ[name] for name in RUN.environment})
        return run

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    with variables(RUN.environment):
        WRITERS["wandb"](RUN, RESULTS, tmp_path)
    assert asked["WANDB_RUN_ID"] == RUN.id and asked["WANDB_RESUME"] == "allow"
    assert asked["WANDB_RUN_GROUP"] == "target=label" and asked["WANDB_PROJECT"] == "small"
    assert run.summary == {"results/accuracy": 0.5} and run.ended
    assert run.logged == [
        {"probe/layer": 0, "probe/entropy/prompt_end": 3.0},
        {"probe/layer": 1, "probe/entropy/prompt_end": 2.0},
    ]


@pytest.mark.parametrize("trained", [True, False])
def test_mlflow_finds_the_run_of_the_training_by_its_tag(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trained: bool
) -> None:
    metrics: list[tuple[object, ...]] = []
    known = [SimpleNamespace(info=SimpleNamespace(run_id="7"))] if trained else []
    started: list[tuple[object, object, dict[str, str]]] = []

    def start_run(run_id: str | None, run_name: str | None, tags: dict[str, str]) -> Recorded:
        started.append((run_id, run_name, tags))
        return Recorded()

    fake = SimpleNamespace(
        set_experiment=lambda name: SimpleNamespace(experiment_id=name),
        search_runs=lambda ids, wanted, **_: known if ids == ["small"] and RUN.id in wanted else None,
        start_run=start_run,
        log_params=lambda values: metrics.append(("params", values)),
        log_metrics=lambda values: metrics.append(("metrics", values)),
        log_metric=lambda name, value, step: metrics.append((name, value, step)),
    )
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    with variables(RUN.environment):
        WRITERS["mlflow"](RUN, RESULTS, tmp_path)
    tags = {TAG: RUN.id, "condition": "target=label"}
    assert started == [("7", None, tags) if trained else (None, RUN.name, tags)]
    assert ("metrics", {"results/accuracy": 0.5}) in metrics
    assert ("probe/entropy/prompt_end", 2.0, 1) in metrics


def test_a_tracker_that_fails_fails_no_cell(
    write_spec: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no network")

    monkeypatch.setattr("engine.running.tracker_summaries.WRITERS", {"tensorboard": fail})
    options = ("--set", 'train.report_to=["tensorboard"]', "--max-cells", 1)
    with pytest.warns(UserWarning, match="tensorboard: results of target=label, seed=0 .*: no network"):
        ended = engine("execute", write_spec(), *options)
    assert "Ran 1 data" in ended.output
