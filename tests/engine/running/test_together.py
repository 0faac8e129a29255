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
from commands import engine as command
from safetensors.numpy import load as load_weights
from small_study import spec_text

import engine.api
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


def wait_for(root: Path, pattern: str, count: int) -> None:
    deadline = time.monotonic() + 300
    while len(list(root.glob(pattern))) < count:
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("again", [TOGETHER, ()], ids=["together", "alone"])
def test_trainings_go_on_behind_a_kill_or_a_stop(
    study: Path, tmp_path: Path, how: signal.Signals, again: tuple[str, ...]
) -> None:
    """All claims end with the process, and each goes on from its own checkpoint, to the same but rounding.

    To the same bits it does not: how sums are rounded depends on how many rows a product has.
    """
    root = tmp_path / "store"
    words = ("execute", study / "study.toml", "--store", root)
    child = start(tmp_path, *words, *TOGETHER)
    wait_for(root, "train/*/checkpoints/checkpoint-2", 8)
    os.kill(child.pid or 0, how)
    child.join(120)
    assert child.exitcode == (130 if how == signal.SIGINT else -signal.SIGKILL)
    assert not Ledger(root).done("train")
    if how == signal.SIGINT:
        assert not list(root.glob("claims/*/*/*.json"))
    run(tmp_path, *words, *again)
    assert_near(contents(root), contents(study / "store"))


def test_one_that_fails_is_the_only_one(study: Path, tmp_path: Path) -> None:
    """Its failure is recorded for it alone; what it needs is told, and all others are complete."""
    text = (study / "study.toml").read_text().replace("train.lr = 1e-3", "train.lr = 1e30")
    (tmp_path / "study.toml").write_text(text)
    words = ("execute", tmp_path / "study.toml", "--store", tmp_path / "store", "--set", "seeds=[0]")
    output = command(*words, *TOGETHER, code=1).output
    assert output.count(": train  EngineError: train: the training has diverged") == 2
    ledger, tree = Ledger(tmp_path / "store"), open_store(tmp_path / "store")
    assert len(ledger.failed("train")) == 2 and len(ledger.done("train")) == 2
    assert tree["small"].attrs["cells_complete"] == 2
    whole = contents(study / "store")
    for name, value in contents_of_adapters(ledger).items():
        assert_near({name: value}, {name: whole[name]})
    stopped = command(*words, *TOGETHER, "--fail-fast", "--retry-failed", code=1).output
    assert stopped.count("the training has diverged") == 2  # of the first one, and once more at the end
    assert not list((tmp_path / "store").glob("claims/*/*/*.json"))


def contents_of_adapters(ledger: Ledger) -> dict[str, bytes]:
    names = [f"train/{key}/adapter" for key in ledger.done("train")]
    files = {name: ledger.place.local(name) / "adapter_model.safetensors" for name in names}
    return {f"{name}/{file.name}": file.read_bytes() for name, file in files.items()}


def test_one_that_another_process_holds_is_left_to_it(study: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    held = engine.api.plan(study / "study.toml", store=root).cells[2].keys["train"]
    other = Ledger(root)
    assert other.start("train", held) is not None
    words = ("execute", study / "study.toml", "--store", root, "--set", "seeds=[0]", "--no-wait", *TOGETHER)
    output = command(*words).output
    other.release("train", held)
    assert passes(root) == [3] * 3, output
    run(tmp_path, *words)
    assert passes(root) == [1, 3, 3, 3]
