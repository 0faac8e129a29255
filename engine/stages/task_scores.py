"""What tasks of a benchmark give for a model: their numbers, and by document those that are means of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from attrs import frozen

from engine.errors import DataError
from engine.stages.context import Context
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


def store_scores(
    context: Context, stage: str, key: str, scores: TaskScores, prefix: str = ""
) -> dict[str, Any]:
    """Store what is known by document; give what the stage's record says of it. prefix: of its numbers."""
    record: dict[str, Any] = {"summary": {f"{prefix}{name}": value for name, value in scores.numbers.items()}}
    if scores.documents:
        family = task_family(stage, scores)
        documents = family.coordinates[0].values
        with context.sink(family, key, resume=False) as sink:
            sink.append(
                {
                    name: np.array([values.get(str(document), np.nan) for document in documents], np.float32)
                    for name, values in scores.documents.items()
                }
            )
        record |= sink.placement
    return record
