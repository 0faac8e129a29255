"""An experiment executed with other settings: what is finished stays, and all commands agree on it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import CODE, engine
from facts import told

import engine as engine_api
from engine.running.executors.imports import python_environment
from store import read_manifests

WRONG = ("--set", 'evaluate.labels=["good","bad"]')  # no row has such a label
CELL = ("--cell", "target=label,seed=0")


@pytest.fixture
def finished(small_store: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A spec, and a copy of the store in which all of its cells are done."""
    root = tmp_path / "store"
    shutil.copytree(small_store, root)
    spec = tmp_path / "small.toml"
    spec.write_text((small_store.parent / "small.toml").read_text().replace(str(small_store), str(root)))
    return spec, root


def agree(spec: Path, root: Path, folder: Path) -> None:
    """Check that all commands say of a spec that its four cells are done."""
    assert {state for counts in engine_api.plan(spec).counts().values() for state in counts} == {"cached"}
    (found,) = json.loads(engine("status", spec, "--json").output)["experiments"]
    assert [cell["state"] for cell in found["cells"]] == ["done"] * 4
    assert [cell.state for cell in engine_api.status(spec)] == ["done"] * 4
    results = json.loads(engine("results", spec, "--json").output)["experiments"]
    assert [facts["cells_complete"] for facts in results] == [4]
    assert told(engine("show", spec, *CELL).output, "target=label, seed=0", "row-")
    engine("publish", spec, *CELL, "--to", "folder", "-o", folder)
    listed = engine("gc", root).output
    assert not any(kind in listed for kind in (".done.json", "results.zarr", "train/", "checkpoint")), listed


@pytest.mark.parametrize("workers", [None, 1])
@pytest.mark.parametrize("why", ["data", "train"])
def test_finished_cells_stay_where_no_stage_of_others_is_done(
    why: str, workers: int | None, finished: tuple[Path, Path], tmp_path: Path
) -> None:
    spec, root = finished
    before = read_manifests(root)["small"]
    change = {"data": WRONG, "train": ("--set", "train.max_length=8")}[why]
    options = ("--workers", workers) if workers else ()
    for number in range(2):  # the second call finds all cells failed, and does nothing
        ended = engine("execute", spec, *change, *options, code=1)
        assert "Results by condition" not in ended.output
        assert told(ended.output, "finished cells", "stay as they were"), ended.output
        found = read_manifests(root)["small"]
        assert {**found, "history": 0} == {**before, "history": 0}, number
        failed = engine("status", spec, *change).output  # of the very cells that failed
        assert "failed: " in failed and told(failed, "small", "4 finished cells"), failed
    agree(spec, root, tmp_path / "adapter")


def test_other_settings_take_their_place_once_something_of_theirs_is_done(
    finished: tuple[Path, Path], tmp_path: Path
) -> None:
    """Then commands that show results say so, and the spec's own results are spared and come back."""
    spec, root = finished
    before = engine("results", spec).output
    engine("execute", spec, "--set", "train.steps=3", "--max-cells", 1)
    for name, *more in (("results",), ("show", "--cell", "seed=0"), ("report", "-o", tmp_path / "page.html")):
        said = engine(name, spec, *more).output
        assert told(said, "small", "other settings", "1 finished cell", "not 4 finished cells"), said
        assert "other settings" not in engine(name, root, *more).output
    assert [cell.state for cell in engine_api.status(spec)] == ["done"] * 4
    assert "no experiment names it" in engine("gc", root).output
    assert "garbage: 0 items" in engine("gc", spec).output
    engine("gc", spec, "--delete")
    assert "Nothing to do: 4 cells done" in engine("execute", spec).output
    assert engine("results", spec).output == before


def test_a_first_execution_that_fails_is_an_experiment(write_spec, tmp_path: Path) -> None:
    spec = write_spec()
    engine("execute", spec, *WRONG, code=1)
    assert "failed: " in engine("status", tmp_path / "store").output
    engine("execute", spec)  # which replaces it
    assert engine("status", spec, "--json").output.count('"state": "done"') == 4


def test_trainings_that_left_progress_stay_those_of_the_experiment(
    finished: tuple[Path, Path], tmp_path: Path
) -> None:
    spec, root = finished
    change = ("--set", "train.steps=40", "--set", "train.checkpoint_every=1")
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, "execute", *map(str, (spec, *change))],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, **python_environment()}, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(root.glob("train/*/checkpoints/checkpoint-*")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    named = {cell["keys"]["train"] for cell in read_manifests(root)["small"]["cells"]}
    assert {path.parents[1].name for path in root.glob("train/*/checkpoints/checkpoint-*")} <= named
