"""Batches in parts give the step of the whole batch, whatever the memory leaves room for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import engine
from trainings import UNEVEN, differences, interrupted, load, train

from engine.errors import EngineError
from engine.full_memory import memory_error
from engine.planning.passes import Passes, choose_passes
from engine.planning.training_memory import Batch, TrainingMemory
from engine.stages.training import trainer as trainer_module
from engine.stages.training.loss import Collator
from engine.stages.training.micro_batches import parted
from specs.tables.experiment import Lora, Train
from store import Ledger
from store.backend.locate import place_of

WHOLE = {"steps": 4, "batch_size": 8, "precision": "float32", "lr": 1e-2, "warmup": 0.0, "max_grad_norm": 0.5}


@pytest.fixture
def base(tiny_model: Path) -> Any:
    return load(tiny_model)


@pytest.mark.parametrize("options", [{"batch_size": 8}, {"batch_size": 4, "accumulation": 2}])
def test_parts_of_a_batch_train_the_adapter_of_the_whole(
    base: Any, tokenizer: Any, tmp_path: Path, options: dict[str, int]
) -> None:
    """Clipped steps, so that norms count as well; batches of three leave a smaller one over."""
    settings = WHOLE | options
    whole = train(base, tokenizer, tmp_path / "whole", UNEVEN, settings=Train(**settings))
    for rows, checkpointing in ((1, False), (3, False), (2, True)):
        chosen = Train(**settings, micro_batch=rows, gradient_checkpointing=checkpointing)
        folder = tmp_path / f"{rows}"
        trained = train(base, tokenizer, folder, UNEVEN, settings=chosen)
        assert differences(folder, tmp_path / "whole") < 1e-4
        for name, curve in whole.curves.items():
            np.testing.assert_allclose(trained.curves[name], curve, rtol=1e-4, err_msg=name)
        for name in ("train_steps", "train_tokens", "completion_tokens"):
            assert trained.summary[name] == whole.summary[name]
        assert trained.passes["rows"] == rows and trained.passes["checkpointing"] is checkpointing


def test_a_stopped_training_in_parts_goes_on_to_the_same_bits(
    base: Any, tokenizer: Any, tmp_path: Path
) -> None:
    chosen = Train(**WHOLE, micro_batch=3)
    whole = train(base, tokenizer, tmp_path / "whole", UNEVEN, settings=chosen)
    interrupted(3, base, tokenizer, tmp_path / "stopped", UNEVEN, settings=chosen)
    resumed = train(base, tokenizer, tmp_path / "stopped", UNEVEN, settings=chosen)
    assert differences(tmp_path / "whole", tmp_path / "stopped") == 0
    np.testing.assert_array_equal(resumed.curves["loss"], whole.curves["loss"])


def test_rows_of_similar_length_go_together_without_the_others_padding() -> None:
    batch = Collator(padding=0)(UNEVEN)
    assert parted(batch, 8) == [batch]
    parts = parted(batch, 3)
    lengths = [part["attention_mask"].sum(1).tolist() for part in parts]
    assert lengths == [[53, 34, 26], [20, 13, 12], [5, 3]]
    assert [part["input_ids"].shape for part in parts] == [(3, 53), (3, 20), (2, 5)]
    rows = {
        tuple(ids[mask == 1].tolist()): labels[mask == 1].tolist()
        for part in parts
        for ids, mask, labels in zip(part["input_ids"], part["attention_mask"], part["labels"], strict=True)
    }
    for row in UNEVEN:
        assert rows[(*row.prompt, *row.completion)] == [-100] * len(row.prompt) + row.completion


def needed(rows: int, checkpointing: bool) -> TrainingMemory:
    """10 bytes of weights, and 8 for each row, or 3 where it is computed anew."""
    return TrainingMemory(10, 0, rows * (3 if checkpointing else 8), 0, Batch(rows, 1, 1))


@pytest.mark.parametrize(
    ("room", "options", "expected"),
    [
        (None, {}, (8, False)),
        (80, {}, (8, False)),
        (74, {}, (4, False)),  # 74 bytes in 95 % of 74
        (40, {}, (3, False)),
        (20, {}, (1, False)),
        (18, {}, (2, True)),
        (5, {}, (1, True)),
        (20, {"batch_size": 1, "gradient_checkpointing": False}, (1, False)),
        (5, {"gradient_checkpointing": False}, (1, False)),
        (40, {"gradient_checkpointing": True}, (8, True)),
        (20, {"micro_batch": 4}, (4, True)),
        (20, {"micro_batch": 100, "gradient_checkpointing": False}, (8, False)),
    ],
)
def test_fewest_passes_that_fit_then_checkpointing(
    room: float | None, options: dict[str, Any], expected: tuple[int, bool]
) -> None:
    passes, memory = choose_passes(Train(**{"batch_size": 8, **options}), needed, room)
    assert (passes.rows, passes.checkpointing) == expected
    assert passes.need == memory.total == needed(*expected).total


def test_every_rank_keeps_a_row() -> None:
    passes, _ = choose_passes(Train(batch_size=8), needed, 5.0, ranks=2)
    assert (passes.rows, passes.checkpointing) == (2, True)


def test_what_is_chosen_can_be_said() -> None:
    assert str(Passes(2, True, 8)) == "2 of 8 examples at once, with gradient checkpointing"
    applied = Passes(2, True, 8).applied(Train())
    assert (applied.micro_batch, applied.gradient_checkpointing) == (2, True)


def full_above(base: Any, rows: int, *, backward: bool, training: bool = True) -> Any:
    """Let memory be full where more rows than these are in the second layer, on the way forth or back."""

    def watch(_module: Any, arguments: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        if len(hidden) <= rows or hidden.requires_grad != training:
            return
        if not backward:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        hidden.register_hook(full)

    def full(_gradient: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    return base.model.layers[1].register_forward_hook(watch)


@pytest.mark.parametrize("backward", [False, True])
def test_full_memory_halves_the_parts_and_does_the_step_again(
    base: Any, tokenizer: Any, tmp_path: Path, backward: bool
) -> None:
    """On the way back, gradients of the last layer are there already; dropout is drawn as if nothing was."""
    lora = Lora(r=2, dropout=0.2)
    settings = WHOLE | {"batch_size": 4, "accumulation": 2}
    chosen = Train(**settings, micro_batch=1)
    small = train(base, tokenizer, tmp_path / "small", UNEVEN, settings=chosen, lora=lora)
    hook = full_above(base, 1, backward=backward)
    with pytest.warns(UserWarning, match="memory was full at step 1 with [24] examples at once") as told:
        found = train(base, tokenizer, tmp_path / "full", UNEVEN, settings=Train(**settings), lora=lora)
    hook.remove()
    assert sum("memory was full" in str(warning.message) for warning in told) == 2
    assert found.passes["out_of_memory"] == [(1, 2), (1, 1)] and found.passes["rows"] == 4
    assert differences(tmp_path / "small", tmp_path / "full") == 0
    np.testing.assert_array_equal(found.curves["loss"], small.curves["loss"])
    assert found.summary["train_tokens"] == small.summary["train_tokens"]


def test_memory_that_is_full_later_on_costs_a_step_and_no_result(
    base: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second batch of the third step, and in a validation; who goes on goes on in smaller parts."""
    settings = WHOLE | {"batch_size": 4, "accumulation": 2, "early_stopping": 9, "validate_every": 2}
    chosen = Train(**settings)
    whole = train(base, tokenizer, tmp_path / "whole", UNEVEN, UNEVEN[:6], settings=chosen)
    calls: list[int] = []
    real = trainer_module.completion_loss

    def sometimes(lens: Any, batch: Any, *others: Any, **named: Any) -> Any:
        calls.append(len(batch["labels"]))
        if len(calls) in (5, 11):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(lens, batch, *others, **named)

    monkeypatch.setattr(trainer_module, "completion_loss", sometimes)
    arguments = (base, tokenizer, tmp_path / "full", UNEVEN, UNEVEN[:6])
    with pytest.warns(UserWarning, match="memory was full at step [23] with [24] examples at once"):
        interrupted(3, *arguments, settings=chosen)
    assert calls == [*[4] * 5, 2, 2, 2, 2, 2, 2, *[1] * 8]
    found = train(*arguments, settings=chosen)
    assert set(calls[19:]) == {1}
    assert found.passes["out_of_memory"] == [(2, 2), (3, 1)]
    assert differences(tmp_path / "whole", tmp_path / "full") < 1e-4
    for name, curve in whole.curves.items():
        np.testing.assert_allclose(found.curves[name], curve, rtol=1e-4, err_msg=name)
    assert found.summary["validation_loss"] == pytest.approx(whole.summary["validation_loss"], rel=1e-5)


def test_memory_that_is_full_with_one_example_is_one_sentence(
    base: Any, tokenizer: Any, tmp_path: Path
) -> None:
    hook = full_above(base, 0, backward=False)
    chosen = Train(**WHOLE, micro_batch=2)
    said = "memory is full with one example at a time, of up to 53 tokens"
    with pytest.warns(UserWarning, match="with 2 examples"), pytest.raises(EngineError, match=said) as raised:
        train(base, tokenizer, tmp_path, UNEVEN, settings=chosen)
    hook.remove()
    assert memory_error(raised.value) == "gpu"


def test_other_errors_are_no_full_memory(base: Any, tokenizer: Any, tmp_path: Path) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("shapes do not fit")

    hook = base.model.layers[1].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        train(base, tokenizer, tmp_path, UNEVEN, settings=Train(**WHOLE))
    hook.remove()


def test_the_memory_of_the_device_decides_and_the_record_says_so(
    write_spec: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.stages.training.stage.memory_room", lambda *_: 1.0)
    one = ("--set", "seeds=[0]", "--set", "probe.enabled=false", "--set", "evaluate.base_model=false")
    spec = write_spec()
    for folder, more in (("auto", ()), ("whole", ("--set", "train.micro_batch=4"))):
        engine("execute", spec, *one, *more, "--only", "target=label", "--store", tmp_path / folder)
    records = [
        dict(ledger.records("train", ledger.done("train")))
        for ledger in (Ledger(place_of(tmp_path / folder)) for folder in ("auto", "whole"))
    ]
    assert records[0].keys() == records[1].keys()
    (auto,), (whole,) = (record.values() for record in records)
    assert (auto["passes"]["rows"], auto["passes"]["checkpointing"]) == (1, True)
    assert (whole["passes"]["rows"], whole["passes"]["checkpointing"]) == (4, True)
    assert auto["passes"]["room"] == 1.0 and auto["passes"]["whole"] > auto["passes"]["need"] > 1
    assert auto["summary"]["train_loss"] == pytest.approx(whole["summary"]["train_loss"], rel=1e-4)


@pytest.mark.parametrize("ranks", [1, 3])
def test_parts_of_every_size_are_tried_once_from_the_whole_down(ranks: int) -> None:
    for batch in (1, 2, 7, 64, 500):
        tried: list[int] = []

        def needed(rows: int, checkpointing: bool, tried: list[int] = tried) -> TrainingMemory:
            tried.append(rows)
            return TrainingMemory(1.0, 0.0, 0.0, 0.0, Batch(rows, 1.0, 1.0))

        choose_passes(Train(batch_size=batch, gradient_checkpointing=False), needed, 0.0, ranks)
        sizes = {max(min(ranks, batch), -(-batch // parts)) for parts in range(1, batch + 1)}
        assert tried == sorted(sizes, reverse=True)


def test_a_batch_beyond_all_data_is_planned_at_once() -> None:
    def needed(rows: int, checkpointing: bool) -> TrainingMemory:
        return TrainingMemory(1.0, 0.0, 0.0, 0.0, Batch(rows, 1.0, 1.0))

    passes, _ = choose_passes(Train(batch_size=10**15), needed, None)
    assert passes.rows == 10**15
