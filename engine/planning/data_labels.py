"""Labels out of the data, where a spec names none and its data are not rated from 1 to 5."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from attrs import evolve

from engine.data.reading import labels_read, read_source
from engine.data.row_checks import LONGEST_LABEL, MOST_LABELS, in_order
from engine.data.sources import sources
from engine.errors import DataError
from engine.planning.checks import MOST_BYTES
from engine.planning.data_read import test_data
from engine.planning.key_parts import Cell
from specs import Matrix, Problem, Spec, SpecError, load_spec, resolve
from specs.checks.settings import label_mistakes
from specs.tables.data import Data
from specs.tables.evaluate import Evaluate
from specs.toml import keys, overlay
from specs.toml.describe import value as spell

KEY = ("evaluate", "labels")
OF_DATA = "the labels of the data"  # where the key comes from, for errors


def read_spec(path: str | Path, overrides: Sequence[str] = ()) -> Spec:
    """Load a spec; where it names no labels, with those that its data have.

    That is where no value of the data's column is one of the default labels. Values are in the order of their
    numbers, else of the alphabet. Files of other labels in different levels, and values that are no labels,
    are left to the data stage, whose error lists them. SpecError as of `load_spec`, and for values that would
    be labels but for their spaces or case, each with a row that has it.
    """
    spec = load_spec(path, overrides)
    if keys.exists(overlay.expand(spec.raw), KEY):
        return spec
    matrix = resolve(spec)
    if not (labels := _labels(matrix)):
        return spec
    if mistakes := dict(label_mistakes(labels)):
        raise SpecError(_in_data(matrix, {labels[index]: told for index, told in mistakes.items()}))
    spec = load_spec(path, [*overrides, f"{keys.join(KEY)}={spell(list(labels))}"])
    return evolve(spec, arguments={**spec.arguments, KEY: OF_DATA})


def _labels(matrix: Matrix) -> tuple[str, ...]:
    of_levels = (key for axis in matrix.axes for level in axis.levels for key in level.overrides)
    if any(keys.split(key)[:2] == KEY or key == "evaluate" for key in of_levels):
        return ()
    seen = {_labels_of(data) for _, _, data in _tables(matrix)}
    return next(iter(seen)) if len(seen) == 1 else ()


def _tables(matrix: Matrix) -> list[tuple[str, Cell, Data]]:
    """Give each table of data once, with its key and a cell that has it."""
    tables = [("data", cell, matrix.table("data", cell)) for cell in matrix.distinct("data")]
    tables += [
        ("evaluate.data", cell, test_data(matrix, cell)) for cell in matrix.distinct("data", "evaluate")
    ]
    return list({repr(table[-1]): table for table in reversed(tables)}.values())[::-1]


def _in_data(matrix: Matrix, mistakes: Mapping[str, str]) -> Iterator[Problem]:
    """Yield what is wrong with values of the data, each with the first row that has it."""
    told = set[str]()
    for table, cell, data in _tables(matrix):
        at = matrix.written(f"{table}.columns.label", cell)
        for where, column, label in labels_read(data):
            if label in mistakes and label not in told:
                told.add(label)
                message = f'{where}: column "{column}": {mistakes[label]}'
                yield matrix.spec.place(Problem(None, at, message))


def _labels_of(data: Data) -> tuple[str, ...]:
    """Give the labels of files that hold other labels than the default ones; none where it is not so."""
    try:
        origins = sources(data)
        if not all(source.path and source.path.is_file() and not source.adapter for source in origins):
            return ()
        if sum(source.path.stat().st_size for source in origins if source.path) > MOST_BYTES:
            return ()
        labels = {row["label"] for row in read_source(data)}
    except DataError:  # the data stage says what is wrong
        return ()
    known = Evaluate().labels
    if labels & set(known) or not 2 <= len(labels) <= MOST_LABELS or max(map(len, labels)) > LONGEST_LABEL:
        return ()
    return tuple(in_order(labels))
