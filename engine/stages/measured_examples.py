"""The test examples that a stage measures: those that fit, each with what the stage reads of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Literal

from attrs import frozen

from engine.data.missing_explanations import check_explanations, label_alone, read_behind
from engine.text.lengths import Limit, evaluated_length, fitting, intervened_length, probed_length
from engine.text.targets import Example, TargetEncoder
from specs.tables.data import Data
from specs.tables.evaluate import Evaluate
from specs.tables.probe import Probe

Stage = Literal["evaluate", "probe", "intervene"]
_NAMES = {"evaluate": "test", "probe": "probed", "intervene": "intervened"}  # in summaries


@frozen
class Measured:
    """The examples that a stage measures, and what its summary says of the others."""

    rows: list[Example]
    summary: dict[str, float]


def measured(
    stage: Stage,
    rows: Sequence[Example],
    writer: TargetEncoder,
    limit: Limit,
    *,
    data: Data,
    evaluate: Evaluate,
    probe: Probe,
) -> Measured:
    """Give the examples of a test set that a stage can measure.

    Raises DataError for those that are too long and those without an explanation that the stage reads, unless
    the spec says what to do with them.
    """
    name, summary = _NAMES[stage], {}
    kept = fitting(rows, _length(stage, writer, evaluate, probe), limit, evaluate.too_long)
    summary[f"{name}_examples_too_long"] = float(len(rows) - len(kept))
    alone = 0
    if read_behind(stage, writer.target, probe):
        check_explanations(kept, "test", data, writer.target)
        alone = label_alone(kept, writer.target)
    if stage != "evaluate":  # which reads no explanation
        summary[f"{name}_examples_label_alone"] = float(alone)
    return Measured(kept, summary)


def trained_and_evaluated(
    rows: Sequence[Example], count: int, writer: TargetEncoder, limit: Limit, evaluate: Evaluate
) -> list[Example]:
    """Give the first training examples that were short enough to be trained on, and are to be evaluated."""
    fits = (
        row
        for row in rows
        if len(writer.encode(row)) <= limit.tokens and evaluated_length(writer, row, evaluate) <= limit.tokens
    )
    return list(islice(fits, count))


def _length(
    stage: Stage, writer: TargetEncoder, evaluate: Evaluate, probe: Probe
) -> Callable[[Example], int]:
    if stage == "evaluate":
        return partial(evaluated_length, writer, settings=evaluate)
    if stage == "probe":
        return partial(probed_length, writer, probe=probe)
    return partial(intervened_length, writer)
