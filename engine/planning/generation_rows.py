"""How many test examples an evaluation writes answers to at once, where the spec leaves that to "auto".

A step of a generation reads all weights for one token of every row, and launches as many kernels for one row
as for a hundred: rows are nearly free until their keys and values fill the memory. They change nothing beyond
rounding, so they are part of no key.
"""

from __future__ import annotations

from engine.models.windows import window_size
from engine.planning.sizes import ModelCard
from specs.tables.evaluate import Evaluate


def generation_rows(evaluate: Evaluate, row: float, free: float | None) -> int:
    """Give the rows of a generation.

    row: bytes of one (`row_bytes`). free: bytes of a GPU to be filled beside the weights; None on a CPU,
    which a batch keeps busy, and on a device that is not known: there as many as `evaluate.batch_size`.
    """
    if evaluate.generation_batch != "auto":
        return evaluate.generation_batch
    if free is None:
        return evaluate.batch_size
    return min(max(1, int(free / row)), window_size(evaluate.batch_size))


def row_bytes(model: ModelCard, tokens: float, width: int) -> float:
    """Give the bytes of a row of so many tokens: its keys, values and activations, and its logits.

    width: bytes of a number of the cache.
    """
    working = tokens * model.hidden * 4 * 8
    cache = tokens * model.cached_numbers * width
    return working + cache + 2 * 4 * model.vocabulary  # logits, and a copy of them in float32
