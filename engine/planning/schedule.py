"""How many steps a training has, and what a plan can say of them before any is done."""

from __future__ import annotations

import math
from collections.abc import Iterator

from engine.planning.plan import Plan, PlannedCell, grouped
from specs.tables.experiment import Train
from store import Ledger


def training_steps(train: Train, examples: int) -> int:
    """Give the optimiser steps of a training on so many examples, as the Trainer counts them."""
    if train.steps is not None:
        return train.steps
    batches = math.ceil(examples / train.batch_size)
    return math.ceil(train.epochs * math.ceil(batches / train.accumulation))


def trained_examples(train: Train, examples: int, length: float) -> float:
    """Give how many examples all steps take in, of so many that have a mean length in tokens."""
    if train.tokens is not None:
        return train.tokens / length
    if train.label_tokens is not None:
        return train.label_tokens  # most labels are one token
    if train.steps is not None:
        return train.steps * train.batch_size * train.accumulation
    return examples * train.epochs


def schedule_warnings(plan: Plan) -> list[str]:
    """Give what is allowed, but hardly meant, in the schedules of a plan's trainings; each once."""
    choose = plan.matrix.chooser("train", "data", "probe")
    trainings = [cells[0] for cells in grouped(plan.cells, lambda cell: choose(cell.choice))]
    return list(dict.fromkeys(text for cell in trainings for text in _warnings(plan, cell)))


def _warnings(plan: Plan, cell: PlannedCell) -> Iterator[str]:
    train = plan.matrix.table("train", cell.choice)
    if train.tokens or train.label_tokens:  # steps that no plan knows
        return
    examples = _examples(plan, cell) if train.steps is None else 0
    if examples is None or (steps := training_steps(train, examples)) == 0:
        return
    yield from _late_steps(plan, cell, steps)
    warmup = math.ceil(steps * train.warmup)  # in the first of them the rate is 0
    of_steps = f"the training has {steps} step{'s' * (steps > 1)}"
    if warmup >= steps > 1:
        highest = train.lr * (steps - 1) / warmup
        yield (
            f"train.warmup: found {train.warmup:g}, and {of_steps}: the rate rises in all of them, from 0 "
            f"to {highest:.3g}, and misses train.lr ({train.lr:g}); expected more steps, or a lower one"
        )
    elif warmup >= steps:
        yield (
            f"train.warmup: found {train.warmup:g}, and {of_steps}, which the warm-up takes at the rate 0: "
            "nothing is learned; expected more steps, or train.warmup = 0"
        )
    if train.early_stopping and steps <= train.validate_every * (train.early_stopping + 1):
        times = math.ceil(steps / train.validate_every)
        yield (
            f"train.early_stopping: found {train.early_stopping}, and {of_steps}, validated {times} "
            f"time{'s' * (times > 1)} (train.validate_every = {train.validate_every}): it can never stop "
            "early, only keep the best adapter; expected more steps, or a lower train.validate_every"
        )


def _late_steps(plan: Plan, cell: PlannedCell, steps: int) -> Iterator[str]:
    """Yield a sentence per step of `probe.at` behind the end of a training of so many steps."""
    probe, at = plan.matrix.table("probe", cell.choice), plan.matrix.written("probe.at", cell.choice)
    place = at if at == "probe.at" else f"{at}: probe.at"
    for index, value in enumerate(probe.at if probe.enabled else ()):
        if isinstance(value, int) and value > steps:
            yield (
                f"{place}[{index}]: found {value}, and the training has "
                f"{steps} step{'s' * (steps > 1)}: it shows the final adapter; expected steps up to "
                f"{steps}, or shares of them, of which 1.0 is the end"
            )


def _examples(plan: Plan, cell: PlannedCell) -> int | None:
    """Give a cell's training examples, before long ones are left out; None where that is not known yet."""
    key, count = cell.keys["data"], plan.matrix.table("data", cell.choice).train
    if count is None and plan.states["data"].get(key) == "cached":
        count = Ledger(plan.root).record("data", key)["summary"]["train_examples"]
    return None if count is None else int(count)
