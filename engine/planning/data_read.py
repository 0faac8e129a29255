"""Data settings as the data stage reads them: what can change neither examples nor prompts is at its default.

Stage keys are made of these settings, and examples are made by them.
"""

from __future__ import annotations

from attrs import evolve

from engine.data.data_sets import REFUSED_COLUMNS
from engine.data.sources import sources
from specs import Matrix
from specs.tables.data import Columns, Data
from specs.tables.target import Prompt

# Those of the shipped studies: results on data sets that are made stand that are known by them.
OF_STUDIES = Columns(label="{dimension}", explanation="{dimension}_explanation", group="group")


def trained_data(matrix: Matrix, cell: tuple[int, ...]) -> Data:
    """Give the settings of a cell's training examples."""
    return as_read(matrix.table("data", cell), matrix.table("prompt", cell))


def tested_data(matrix: Matrix, cell: tuple[int, ...]) -> Data:
    """Give the settings of the examples that a cell is evaluated and probed on."""
    return as_read(test_data(matrix, cell), test_prompt(matrix, cell))


def test_data(matrix: Matrix, cell: tuple[int, ...]) -> Data:
    """Give the data settings that the cell is evaluated and probed on, as the spec has them."""
    overlay = matrix.table("evaluate", cell).data
    return matrix.table("data", cell) if overlay is None else overlay


def test_table(matrix: Matrix, cell: tuple[int, ...]) -> str:
    """Give the table that those settings stand in."""
    return "data" if test_data(matrix, cell) == matrix.table("data", cell) else "evaluate.data"


def test_prompt(matrix: Matrix, cell: tuple[int, ...]) -> Prompt:
    """Give the prompt settings that the cell is evaluated and probed with."""
    overlay = matrix.table("evaluate", cell).prompt
    return matrix.table("prompt", cell) if overlay is None else overlay


def as_read(data: Data, prompt: Prompt) -> Data:
    """Give the same data without columns that no source has, and a dimension that nobody reads.

    Public sets and data sets that the engine or a plug-in makes have columns of their own; of those that a
    spec names, the ones that it cannot name for such a set stay, for the data stage refuses them. The
    dimension is read by prompts that show it, by data sets that are made, and by columns named after it.
    """
    origins = sources(data)
    made = any(source.data_set is not None for source in origins)
    own = all(source.adapter or source.data_set is not None for source in origins)
    if own and not (made and data.columns == OF_STUDIES):
        refused = {name: getattr(data.columns, name) for name in REFUSED_COLUMNS}
        data = evolve(data, columns=evolve(Columns(), **refused))
    columns = (data.columns.label, data.columns.explanation, *data.columns.further_explanations)
    named = any("{dimension}" in (name or "") for name in columns)
    if named or made or prompt.shows("dimension"):
        return data
    return evolve(data, dimension=Data(source="").dimension)
