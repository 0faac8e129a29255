"""The cell axis: the levels of every factor, told by a manifest."""

from collections.abc import Sequence
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
import xarray as xr

from store.backend.records import Json
from store.ledger.levels import level_text


def cell_index(names: Sequence[str], cells: Sequence[Json], chosen: Sequence[int]) -> pd.MultiIndex:
    """Return the factors and the seed of the chosen cells.

    Numbers stay numbers where every cell of the experiment has one, so that a factor's type does not
    hang on how many cells are finished; a factor that mixes types, or lacks levels, becomes text.
    """
    columns = []
    for name in names:
        column = _column([cell["levels"].get(name) for cell in cells])
        columns.append([column[i] for i in chosen])
    return pd.MultiIndex.from_arrays([pd.Index(c, dtype=_dtype(c)) for c in columns], names=list(names))


def with_cells(dataset: xr.Dataset, stage: str, coordinates: xr.Coordinates) -> xr.Dataset:
    """Return `dataset` with the cells' coordinates; of two equal names the factor keeps its own.

    Otherwise a factor "rank" would silently take the place of a statistic "rank", now "probe_rank".
    """
    names_taken = {str(name) for name in coordinates}
    clashing = names_taken & {str(name) for name in (*dataset.variables, *dataset.dims)}
    return dataset.rename({name: f"{stage}_{name}" for name in clashing}).assign_coords(coordinates)


def _column(levels: list[Any]) -> list[Any]:
    types = {type(level) for level in levels}
    if types <= {int, float} or types == {bool}:
        return levels
    return [level_text(level) for level in levels]


def _dtype(column: list[Any]) -> type | None:
    return object if isinstance(column[0], str) else None
