"""What a training takes in which order, on which device, and what its numbers mean."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from commands import engine
from trainings import EXAMPLES, FAST, interrupted, load, many, saved_weights, train
from transformers import TrainingArguments

from engine.errors import EngineError
from engine.stages.training import callbacks
from engine.stages.training.loss import Collator
from engine.stages.training.orders import epoch_order
from specs.tables.experiment import Train

ROWS = many(5)
EPOCHS = Train(epochs=3, batch_size=2, precision="float32", lr=1e-3)  # nine steps, every third with one row


@pytest.fixture
def base(tiny_model: Path) -> Any:
    return load(tiny_model)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The first tokens, all different, of the rows of each batch that is made."""
    made: list[list[int]] = []
    collate = Collator.__call__

    def watched(self: Collator, examples: Any) -> Any:
        made.append([example.prompt[0] for example in examples])
        return collate(self, examples)

    monkeypatch.setattr(Collator, "__call__", watched)
    return made


def test_no_epochs_order_of_one_seed_is_anothers() -> None:
    orders = [tuple(epoch_order(12, seed, epoch)) for seed in range(20) for epoch in range(20)]
    assert len(set(orders)) == len(orders)
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert epoch_order(12, 2**40, 0) != epoch_order(12, 0, 0)
    # Uniform over the places: each example comes first about as often as any other.
    first = np.bincount([epoch_order(4, seed, 0)[0] for seed in range(2000)])
    assert first == pytest.approx([500] * 4, abs=100)


def test_seeds_train_in_orders_of_their_own_and_go_on_in_them(
    base: Any, tokenizer: Any, tmp_path: Path, batches: list[list[int]]
) -> None:
    rows, chosen = many(12), Train(epochs=3, batch_size=4, precision="float32")
    orders = {}
    for seed in range(3):
        train(base, tokenizer, tmp_path / f"{seed}", rows, settings=chosen, seed=seed)
        whole = list(itertools.chain(*batches))
        batches.clear()
        orders |= {(seed, epoch): tuple(whole[12 * epoch : 12 * (epoch + 1)]) for epoch in range(3)}
    assert all(sorted(order) == sorted(orders[0, 0]) for order in orders.values())
    assert len(set(orders.values())) == 9
    for step in (3, 5):  # at the end of an epoch, and within one
        interrupted(step, base, tokenizer, tmp_path / f"at {step}", rows, settings=chosen, seed=1)
        batches.clear()
        train(base, tokenizer, tmp_path / f"at {step}", rows, settings=chosen, seed=1)
        left = 36 - 4 * step
        whole = list(itertools.chain(*(orders[1, epoch] for epoch in range(3))))
        assert list(itertools.chain(*batches))[-left:] == whole[-left:]


def test_adapters_of_neighbouring_seeds_start_apart(base: Any, tokenizer: Any, tmp_path: Path) -> None:
    """Not as another seed's start shifted by some numbers; seeds may be of any size."""
    starts = []
    for seed in (0, 1, 2, 2**32, 2**63 - 1):
        chosen = Train(steps=1, batch_size=4, precision="float32", lr=1e-30)
        train(base, tokenizer, tmp_path / f"{seed}", seed=seed, settings=chosen)
        weights = saved_weights(tmp_path / f"{seed}")
        starts.append(torch.cat([weight.flatten() for name, weight in weights.items() if "lora_A" in name]))
    for left, right in itertools.combinations(starts, 2):
        assert len(set(left.tolist()) & set(right.tolist())) < 5


def test_a_unit_trains_on_one_device_however_many_there_are(
    base: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda _: 4))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    chosen = Train(epochs=1, batch_size=4, precision="float32")
    trained = train(base, tokenizer, tmp_path, many(32), settings=chosen)
    assert trained.summary["train_steps"] == 8


def test_a_trainings_numbers_are_of_all_that_was_done(base: Any, tokenizer: Any, tmp_path: Path) -> None:
    """Tokens without padding over all epochs, incomplete batches as they are, also over an interruption."""
    tokens = sum(map(len, ROWS))
    completions = sum(len(example.completion) for example in ROWS)
    interrupted(4, base, tokenizer, tmp_path / "a", ROWS, settings=EPOCHS)
    for folder in ("a", "b"):
        summary = train(base, tokenizer, tmp_path / folder, ROWS, settings=EPOCHS).summary
        assert summary["train_steps"] == 9
        assert summary["train_tokens"] == 3 * tokens
        assert summary["completion_tokens"] == 3 * completions
        assert summary["train_examples"] == 5


def test_seconds_are_those_of_all_processes(
    base: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that each process begins anew, and that goes on by a second at every look."""
    for step in (4, 7, None):
        ticks = itertools.count(1000.0 * (step or 0))
        monkeypatch.setattr(
            "engine.stages.training.trainer.time.perf_counter", lambda ticks=ticks: next(ticks)
        )
        if step:
            interrupted(step, base, tokenizer, tmp_path, ROWS, settings=EPOCHS)
    summary = train(base, tokenizer, tmp_path, ROWS, settings=EPOCHS).summary
    assert 10 < summary["train_seconds"] < 100


def test_the_speed_counts_tokens_that_were_trained_on(
    base: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks, texts = itertools.count(0.0, 10.0), []
    monkeypatch.setattr(
        callbacks, "time", SimpleNamespace(perf_counter=lambda: next(ticks), monotonic=lambda: 0)
    )
    train(base, tokenizer, tmp_path, ROWS, settings=EPOCHS, report=lambda *said: texts.append(said[2]))
    speed = sum(map(len, ROWS)) * 3 / 90
    assert texts[-1].endswith(f", {speed:.0f} tokens/s")


@pytest.mark.parametrize(("steps", "of"), [(5, 5), (12, 10), (120, 12)])
def test_the_loss_of_a_training_is_that_of_its_last_steps(
    base: Any, tokenizer: Any, tmp_path: Path, batches: list[list[int]], steps: int, of: int
) -> None:
    """The last tenth, at least ten, each by its tokens."""
    chosen = Train(steps=steps, batch_size=2, precision="float32", lr=1e-3)
    trained = train(base, tokenizer, tmp_path, ROWS, settings=chosen)
    sizes = {example.prompt[0]: len(example.completion) for example in ROWS}
    weights = [sum(map(sizes.__getitem__, batch)) for batch in batches][:steps]
    losses = trained.curves["loss"]
    expected = np.average(losses[-of:].astype(float), weights=weights[-of:])
    assert trained.summary["train_loss"] == pytest.approx(expected, rel=1e-6)


def test_with_early_stopping_the_loss_is_that_of_the_kept_adapter(
    base: Any, tokenizer: Any, tmp_path: Path
) -> None:
    chosen = Train(
        steps=40, batch_size=4, precision="float32", lr=0.05, schedule="constant", warmup=0.0,
        early_stopping=5, validate_every=1,
    )  # fmt: skip
    trained = train(base, tokenizer, tmp_path, EXAMPLES, EXAMPLES[::-1], settings=chosen)
    kept = int(trained.summary["kept_step"])
    assert kept < trained.summary["train_steps"]
    expected = np.mean(trained.curves["loss"][max(0, kept - 10) : kept])
    assert trained.summary["train_loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lr": 1e18}, r"the (loss|norm of the gradient) is nan at step \d+, at the learning rate .*"
         r"the last finite loss was [\d.]+, at step \d+; expected a lower train.lr \(found 1e\+18\)"),
        ({"lr": 1e39, "steps": 1}, r"trained weights are not finite \(model\.layers\.0\..*\) at step 1, .*"
         r"the last finite loss was 5\."),
        ({"lr": 1e39, "steps": 1, "early_stopping": 1}, r"validation loss is nan.*step 1"),
    ],
)  # fmt: skip
def test_a_training_that_diverges_fails_and_says_where(
    base: Any, tokenizer: Any, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    known = {"steps": 9, "batch_size": 2, "precision": "float32", "schedule": "constant", "warmup": 0.0}
    with pytest.raises(EngineError, match=f"train: .* diverged: .*{said}"):
        train(base, tokenizer, tmp_path, EXAMPLES, EXAMPLES, settings=Train(**(known | options)))
    assert not (tmp_path / "adapter").exists()
    train(base, tokenizer, tmp_path / "again")  # the base model is as it was


def test_weights_of_the_model_that_are_no_numbers_are_named(
    base: Any, tokenizer: Any, tmp_path: Path
) -> None:
    base.model.layers[1].mlp.up_proj.weight[3, 4] = math.nan
    expected = r"model\.id: the loss is nan at step 1, .*: model\.layers\.1\.mlp\.up_proj\..*weight; expected"
    with pytest.raises(EngineError, match=expected):
        train(base, tokenizer, tmp_path, settings=FAST)


def test_trackers_write_into_the_trainings_own_folder_and_their_files_stay(
    base: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    chosen = Train(steps=3, batch_size=2, precision="float32", report_to=["tensorboard"])
    interrupted(2, base, tokenizer, tmp_path / "run", settings=chosen)
    train(base, tokenizer, tmp_path / "run", settings=chosen)
    files = list((tmp_path / "run" / "logs").rglob("events.out.tfevents.*"))
    assert len(files) == 2 and all(file.stat().st_size for file in files)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"adapter", "logs"}
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))  # a person's own place
    train(base, tokenizer, tmp_path / "own", settings=chosen)
    assert list((tmp_path / "board").rglob("events.out.tfevents.*"))
    assert {path.name for path in (tmp_path / "own").iterdir()} == {"adapter"}


def test_a_tracker_that_is_not_here_is_named_before_the_training(write_spec: Any) -> None:
    spec = write_spec()
    ended = engine("execute", spec, "--set", 'train.report_to=["tensorbord"]', code=2)
    assert 'train.report_to: found "tensorbord"' in ended.output
    assert 'did you mean "tensorboard"?' in ended.output and "Ran " not in ended.output
