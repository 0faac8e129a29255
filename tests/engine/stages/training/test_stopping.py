"""Early stopping: what it goes by, what it keeps, and that no interruption changes that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attrs import evolve
from facts import facts
from trainings import EOS, FAST, interrupted, load, many, saved_weights, token_losses, train

from engine.errors import DataError
from engine.models.base_model import as_it_was
from engine.stages.training import train as train_module
from engine.stages.training.files import load_adapter
from engine.text.targets import Encoded
from specs.tables.experiment import Lora, Train
from store.backend.locate import place_of

ROWS = many(12)
TRAINED, VALIDATED = ROWS[:5], ROWS[5:12]  # three steps per epoch, the last with one row
# A rate so high that the loss soon rises again.
STOPPED = Train(
    steps=40, batch_size=2, precision="float32", lr=0.05, schedule="constant", warmup=0.0,
    early_stopping=2, validate_every=2,
)  # fmt: skip
LORA = Lora(r=2, dropout=0.1)


@pytest.fixture
def base(tiny_model: Path) -> Any:
    return load(tiny_model)


def stopped(base: Any, tokenizer: Any, folder: Path, settings: Train = STOPPED, **options: Any) -> Any:
    return train(base, tokenizer, folder, TRAINED, VALIDATED, settings=settings, lora=LORA, **options)


def settings(**options: Any) -> Train:
    return evolve(STOPPED, **options)


def same(left: Path, right: Path) -> bool:
    ours, theirs = saved_weights(left), saved_weights(right)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def validation_loss(base: Any, folder: Path) -> float:
    """The mean over the tokens of all rows, each run by itself, of the adapter that was kept."""
    with as_it_was(base), torch.no_grad():
        return float(np.mean(token_losses(load_adapter(base, place_of(folder)), VALIDATED)))


def test_the_kept_adapter_is_that_of_the_best_validation(base: Any, tokenizer: Any, tmp_path: Path) -> None:
    summary = stopped(base, tokenizer, tmp_path / "stopped").summary
    kept, steps = int(summary["kept_step"]), int(summary["train_steps"])
    assert 0 < kept == steps - 2 * 2 < 36  # two validations without a better one
    losses = {}
    for step in range(2, steps + 1, 2):  # each by itself, without any validation
        chosen = settings(steps=step, early_stopping=0)
        train(base, tokenizer, tmp_path / f"{step}", TRAINED, settings=chosen, lora=LORA)
        losses[step] = validation_loss(base, tmp_path / f"{step}")
    assert min(losses, key=losses.__getitem__) == kept
    assert same(tmp_path / "stopped", tmp_path / f"{kept}")
    assert summary["validation_loss"] == pytest.approx(losses[kept], rel=1e-5)
    assert summary["validation_examples"] == len(VALIDATED)
    assert summary["validation_examples_too_long"] == 0


def test_no_interruption_changes_what_is_kept(base: Any, tokenizer: Any, tmp_path: Path) -> None:
    """Neither between validations, nor at one, nor at the last: the patience and the best go on."""
    whole = stopped(base, tokenizer, tmp_path / "whole")
    last = int(whole.summary["train_steps"])
    for step in range(1, last):
        folder = tmp_path / f"{step}"
        interrupted(step, base, tokenizer, folder, TRAINED, VALIDATED, settings=STOPPED, lora=LORA)
        resumed = stopped(base, tokenizer, folder)
        assert same(folder, tmp_path / "whole"), step
        for name, curve in whole.curves.items():
            np.testing.assert_array_equal(resumed.curves[name], curve)
        assert {n: v for n, v in resumed.summary.items() if n != "train_seconds"} == {
            n: v for n, v in whole.summary.items() if n != "train_seconds"
        }


@pytest.mark.parametrize(
    ("early_stopping", "steps"), [(2, 40), (9, 5), (0, 5)], ids=["stopped early", "at its end", "unstopped"]
)
def test_a_kill_behind_the_last_step_adds_none(
    base: Any, tokenizer: Any, tmp_path: Path, monkeypatch: Any, early_stopping: int, steps: int
) -> None:
    """Five steps end within an epoch, where the Trainer would go on to the epoch's end."""
    chosen = settings(early_stopping=early_stopping, steps=steps, checkpoint_every=1)
    whole = stopped(base, tokenizer, tmp_path / "whole", chosen)

    def killed(*_: Any) -> bool:
        raise OSError("killed")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="killed"):
        patch.setattr(train_module, "save_adapter", killed)
        stopped(base, tokenizer, tmp_path / "killed", chosen)
    resumed = stopped(base, tokenizer, tmp_path / "killed", chosen)
    assert same(tmp_path / "killed", tmp_path / "whole")
    assert resumed.summary["train_steps"] == whole.summary["train_steps"]
    np.testing.assert_array_equal(resumed.curves["loss"], whole.curves["loss"])


def test_a_training_shorter_than_the_first_validation_is_validated_at_its_end(
    base: Any, tokenizer: Any, tmp_path: Path
) -> None:
    summary = stopped(base, tokenizer, tmp_path, settings(steps=3, validate_every=50)).summary
    assert summary["kept_step"] == summary["train_steps"] == 3
    assert summary["validation_loss"] == pytest.approx(validation_loss(base, tmp_path), rel=1e-5)


def test_the_validation_loss_is_the_same_for_any_batch_size(
    base: Any, tokenizer: Any, tmp_path: Path
) -> None:
    """Completions differ in length, so means over batches would not be."""
    found = []
    for size in (1, 2, 7):
        chosen = settings(steps=1, batch_size=size, lr=1e-12)
        found.append(stopped(base, tokenizer, tmp_path / f"{size}", chosen).summary["validation_loss"])
    assert found == pytest.approx([found[0]] * 3, rel=1e-6)


def test_rows_that_are_too_long_take_no_part_in_validations(
    base: Any, tokenizer: Any, tmp_path: Path
) -> None:
    long = Encoded(list(range(10, 30)), [20, EOS], 20)
    chosen = settings(steps=2, max_length=12)
    without = stopped(base, tokenizer, tmp_path / "without", chosen).summary
    trained = train(
        base, tokenizer, tmp_path / "with", TRAINED, [long, *VALIDATED, long], settings=chosen, lora=LORA
    )
    assert trained.summary["validation_examples_too_long"] == 2
    assert trained.summary["validation_loss"] == without["validation_loss"]
    with pytest.raises(DataError, match=facts("train.max_length", "12", "validation")):
        train(base, tokenizer, tmp_path / "none", TRAINED, [long], settings=chosen)


def test_early_stopping_without_validation_rows_is_an_error_before_the_training(
    base: Any, tokenizer: Any, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=facts("train.early_stopping", "2", "data.validation_share")):
        train(base, tokenizer, tmp_path, TRAINED, [], settings=STOPPED)
    assert not list(tmp_path.iterdir())


def test_checkpoints_come_when_they_are_due_beside_early_stopping(
    base: Any, tokenizer: Any, tmp_path: Path
) -> None:
    chosen = settings(steps=9, early_stopping=9, validate_every=2, checkpoint_every=3)
    interrupted(8, base, tokenizer, tmp_path, TRAINED, VALIDATED, settings=chosen, lora=LORA)
    assert {path.name for path in tmp_path.glob("checkpoints/*")} == {"checkpoint-6", "checkpoint-8"}
    chosen = settings(steps=9, early_stopping=9, validate_every=2, checkpoint_minutes=60.0)
    interrupted(8, base, tokenizer, tmp_path / "b", TRAINED, VALIDATED, settings=chosen, lora=LORA)
    assert {path.name for path in tmp_path.glob("b/checkpoints/*")} == {"checkpoint-8"}


def test_without_early_stopping_nothing_is_validated(base: Any, tokenizer: Any, tmp_path: Path) -> None:
    summary = train(base, tokenizer, tmp_path, TRAINED, VALIDATED, settings=FAST).summary
    assert "validation_loss" not in summary and "kept_step" not in summary
