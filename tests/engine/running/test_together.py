"""`executor.together`: cells whose trainings go side by side come to what they come to alone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from children import contents, run, start
from commands import engine
from safetensors.numpy import load as load_weights
from small_study import spec_text

import engine.api
from engine.planning.training_groups import fitting, group_memory, training_groups
from engine.running.scheduler import units
from specs.tables.executor import Executor
from store import Ledger, open_store

TRAIN = """
steps = 6
lr = 2e-3
warmup = 0.0
checkpoint_every = 1
early_stopping = 2
validate_every = 2
"""
# Two targets, two adapters, one with dropout, and two seeds: eight trainings.
FACTORS = """
[factors.target.levels]
label = { target.content = "label" }
"label+explanation" = { target.content = "label+explanation" }
[factors.adapter.levels]
small = {}
large = { lora.r = 4, lora.dropout = 0.2, train.lr = 1e-3 }
"""
PROBE = "[probe]\nexamples = 4\npositions = ['prompt_end']\nat = [0.5, 1.0]\n"
TOGETHER = ("--set", "executor.together=8")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rated_file: Path) -> Path:
    """The folder of a spec and of the store that one training after another makes of it."""
    folder = tmp_path_factory.mktemp("study")
    text = spec_text(folder / "store", tiny_model, rated_file, PROBE, train=TRAIN, factors=FACTORS)
    (folder / "study.toml").write_text(text)
    run(folder, "execute", folder / "study.toml")
    return folder


def numbers(value: object) -> np.ndarray:
    """The numbers of what is compared: of an adapter's file those of its weights."""
    if isinstance(value, bytes) and value[:1] != b"{":
        weights = load_weights(value)
        return np.concatenate([weights[name].ravel() for name in sorted(weights)])
    return np.asarray(value)


def assert_near(found: Mapping[str, object], expected: Mapping[str, object]) -> None:
    """Equal but for rounding, by the largest number of each array."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        ours, theirs = numbers(found[name]), numbers(value)
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype, name
        if theirs.dtype.kind != "f":
            np.testing.assert_array_equal(ours, theirs, err_msg=name)
            continue
        size = np.abs(theirs[np.isfinite(theirs)]).max(initial=0.0)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-4 * size, err_msg=name)


def passes(root: Path) -> list[Any]:
    """How many trainings each went beside, by the records; 1 for none."""
    ledger = Ledger(root)
    records = ledger.records("train", sorted(ledger.done("train")))
    return sorted(record["passes"].get("together", 1) for record in records.values())


def test_all_cells_are_those_of_training_alone(study: Path, tmp_path: Path) -> None:
    output = run(tmp_path, "execute", study / "study.toml", "--store", tmp_path / "store", *TOGETHER)
    assert passes(tmp_path / "store") == [8] * 8 and passes(study / "store") == [1] * 8
    assert_near(contents(tmp_path / "store"), contents(study / "store"))
    assert "executor.together" not in output
    assert output.count(": train") == 8


def test_workers_take_trainings_that_go_together(study: Path, tmp_path: Path) -> None:
    """No worker is left without: two of them take four each."""
    run(tmp_path, "execute", study / "study.toml", "--store", tmp_path / "store", "--workers", 2, *TOGETHER)
    assert passes(tmp_path / "store") == [4] * 8
    assert_near(contents(tmp_path / "store"), contents(study / "store"))
