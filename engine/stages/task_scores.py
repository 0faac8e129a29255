"""What tasks of a benchmark give for a model: their numbers, and by document those that are means of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from attrs import frozen

from engine.errors import DataError
from engine.models.base_model import BaseModel
from engine.models.causal_lm import CausalLm
from engine.models.tokenizer import Tokenizer
from engine.planning.plan import PlannedCell
from engine.stages.context import Context
from engine.stages.foreign_harness import Work
from specs.common.names import UNTRAINED_STAGES
from specs.tables.evaluate import Evaluate
from store import Coordinate, Family, Variable

CLOSE = 1e-6  # of two numbers that differ by rounding alone


@frozen
class TaskScores:
    """Numbers by name; where one is the mean of its documents' values, these by document."""

    numbers: Mapping[str, float]
    documents: Mapping[str, Mapping[str, float]]  # name → document, as TASK/DOCUMENT → value


def add_number(numbers: dict[str, float], name: str, value: float, key: str) -> None:
    """Add a number; DataError where another has its name. key: of the spec, for the message."""
    if name in numbers:
        raise DataError(f"{key}: found two numbers {name}, expected other names of tasks")
    numbers[name] = value


def is_mean(values: Mapping[str, float], number: float) -> bool:
    """Tell whether a number is the mean of its documents' values, those without a value left out."""
    known = [value for value in values.values() if math.isfinite(value)]
    return bool(known) and math.isclose(np.mean(known), number, rel_tol=CLOSE, abs_tol=CLOSE)


def task_family(stage: str, scores: TaskScores) -> Family:
    """Give the store's layout of what is known by document, NaN for documents of other tasks."""
    documents = dict.fromkeys(document for values in scores.documents.values() for document in values)
    title = "document of a task, as task/document"
    return Family(
        stage=stage,
        coordinates=(Coordinate("example", "example", list(documents), long_name=title),),
        variables=[
            Variable(name, ("example",), "float32", "1", f"{name.partition('_')[2]} of a document")
            for name in scores.documents
        ],
    )


Ask = Callable[[CausalLm, Tokenizer, Evaluate, Callable[[], None]], tuple[TaskScores, Work]]
"""Runs the tasks of some settings on a model; called before each pass is what comes last."""


def score(
    context: Context, cell: PlannedCell, stage: str, model: CausalLm, base: BaseModel, ask: Ask
) -> None:
    """Run a stage that asks tasks of a model: numbers to its record, what is known by document to arrays."""
    settings, key = context.settings("evaluate", cell), cell.keys[stage]
    prefix = "base_" if stage in UNTRAINED_STAGES else ""
    with context.committing(stage, key, base) as record:
        claim = context.claim(stage, key)

        def before_pass() -> None:
            claim.check()
            context.stop.check()

        scores, work = ask(model, base.tokenizer, settings, before_pass)
        scores = context.ranks.lead(lambda: scores)
        if scores.documents:
            family = task_family(stage, scores)
            with context.sink(family, key, resume=False) as sink:
                sink.append(_columns(family, scores))
            record |= sink.placement
        record["summary"] = {f"{prefix}{name}": value for name, value in scores.numbers.items()}
        record["work"] = work.as_json


def _columns(family: Family, scores: TaskScores) -> dict[str, np.ndarray]:
    """Give the values of each number along all documents of the family."""
    documents = [str(document) for document in family.coordinates[0].values]
    return {
        name: np.array([values.get(document, np.nan) for document in documents], np.float32)
        for name, values in scores.documents.items()
    }
