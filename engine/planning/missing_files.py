"""Files that a spec names and that are not there, each with the place where it is named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from engine.data.sources import sources
from engine.planning.data_read import test_data
from specs import Matrix, Problem, SpecError
from specs.common.names import BUILT_IN_TEXT
from specs.tables.data import Data
from specs.toml.paths import no_such

Found = tuple[str, tuple[int, ...], str]
"""The key that names a file, a cell for which it does, and what is said of the file."""


def check_sources(matrix: Matrix, *, tested: bool = True) -> None:
    """Raise SpecError with every file or folder of examples that is missing.

    tested: whether those of `[evaluate.data]` count, too.
    """
    _raise(matrix, _sources(matrix, tested=tested))


def check_texts_and_tasks(matrix: Matrix) -> None:
    """Raise SpecError with every file of neutral text and folder of tasks that is missing."""
    _raise(matrix, _texts_and_tasks(matrix))


def _sources(matrix: Matrix, *, tested: bool) -> Iterator[Found]:
    for cell in matrix.distinct("data", "evaluate"):
        for key, data in _tables(matrix, cell, tested=tested):
            for source in sources(data):
                if source.missing:
                    yield key, cell, no_such(str(source))


def _tables(matrix: Matrix, cell: tuple[int, ...], *, tested: bool) -> Iterator[tuple[str, Data]]:
    trained = matrix.table("data", cell)
    yield "data.source", trained
    if tested and test_data(matrix, cell) != trained:
        yield "evaluate.data.source", test_data(matrix, cell)


def _texts_and_tasks(matrix: Matrix) -> Iterator[Found]:
    for cell in matrix.distinct("evaluate"):
        evaluate = matrix.table("evaluate", cell)
        if (text := evaluate.neutral_text) not in (None, BUILT_IN_TEXT) and not Path(str(text)).exists():
            yield "evaluate.neutral_text", cell, no_such(str(text), "file", words=[BUILT_IN_TEXT])
        if (folder := evaluate.task_folder) is not None and not Path(folder).exists():
            yield "evaluate.task_folder", cell, no_such(folder, "folder")


def _raise(matrix: Matrix, found: Iterable[Found]) -> None:
    problems: dict[str, Problem] = {}  # of a file that several keys name, the first
    for key, cell, message in found:
        at = matrix.written(key, cell)
        problem = Problem(None, at, message if at == key else f"{key}: {message}")
        problems.setdefault(message, problem)
    if problems:
        raise SpecError(map(matrix.spec.place, problems.values()))
