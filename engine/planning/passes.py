"""In how many passes a training's batch goes through the model, and whether activations are computed anew.

Neither changes a result beyond rounding, so neither is part of a key. What the settings leave to "auto" is
chosen by the estimate of memory: the whole batch where it fits, else as few passes as fit, for these cost
nothing but the launches of their kernels; and only where not even single examples fit, checkpointing, which
costs a third of the time, again with as few passes as fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from attrs import asdict, evolve, frozen

from engine.planning.training_memory import TrainingMemory
from specs.tables.experiment import Train

FILLED = 0.95  # of a device's memory, by what is estimated: allocators leave gaps


@frozen
class Passes:
    """How batches go through the model. Bytes are estimates, None where nothing could be estimated."""

    rows: int  # examples of a pass, of all ranks together
    checkpointing: bool
    batch: int  # examples of a batch
    need: float | None = None
    whole: float | None = None  # what the batch in one pass needs, nothing computed anew
    room: float | None = None

    def applied(self, train: Train) -> Train:
        """Give the settings of a training with nothing left to "auto"."""
        return evolve(train, micro_batch=self.rows, gradient_checkpointing=self.checkpointing)

    def __str__(self) -> str:
        anew = "with" if self.checkpointing else "without"
        return f"{self.rows} of {self.batch} examples at once, {anew} gradient checkpointing"

    def as_json(self) -> dict[str, Any]:
        """Give it as JSON values."""
        return asdict(self)


def choose_passes(
    train: Train,
    needed: Callable[[int, bool], TrainingMemory],
    room: float | None,
    ranks: int = 1,
) -> tuple[Passes, TrainingMemory]:
    """Choose what the settings leave to "auto"; the last, which needs least, where nothing fits.

    needed: the memory of one rank, by the rows of a pass and whether activations are computed anew. room: of
    its device, in bytes; None where that is not known, which leaves the batch whole.
    """
    whole = needed(train.batch_size, False)
    chosen: tuple[int, bool, TrainingMemory] | None = None
    for rows, checkpointing in _choices(train, ranks):
        known = rows == train.batch_size and not checkpointing
        chosen = rows, checkpointing, whole if known else needed(rows, checkpointing)
        if room is None or chosen[2].total <= FILLED * room:
            break
    assert chosen is not None
    rows, checkpointing, memory = chosen
    return Passes(rows, checkpointing, train.batch_size, memory.total, whole.total, room), memory


def without_estimate(train: Train) -> Passes:
    """Give the passes where nothing is known of a model: the whole batch."""
    rows, checkpointing = next(_choices(train, 1))
    return Passes(rows, checkpointing, train.batch_size)


def _choices(train: Train, ranks: int) -> Iterator[tuple[int, bool]]:
    """Yield rows of a pass with whether activations are computed anew, the fastest first."""
    batch, asked = train.batch_size, train.gradient_checkpointing
    if train.micro_batch == "auto":
        least = min(ranks, batch)  # below that some ranks would have nothing to do
    else:
        batch = least = min(train.micro_batch, batch)
    for checkpointing in (False, True) if asked == "auto" else (asked,):
        for rows in _sizes(batch, least):
            yield rows, checkpointing


def _sizes(batch: int, least: int) -> Iterator[int]:
    """Yield the sizes of equal parts of a batch, from the whole down to the least, each once."""
    rows = batch
    while rows > least:
        yield rows
        parts = -(-batch // (rows - 1))  # the fewest that are smaller
        rows = -(-batch // parts)
    yield least
