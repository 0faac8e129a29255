"""Which cells a contrast compares, and their differences as one lazy variable."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import xarray as xr
from attrs import frozen
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from specs.common.names import NOT_APPLICABLE
from store.analysis.nodes import BLOCK_BYTES, SEED, check_level, levels, numbers, variable
from store.analysis.results import level_coordinate
from store.analysis.value_ranges import FLAGS
from store.errors import StoreError


@frozen
class Pairs:
    """The pairs of one contrast: conditions along the first axis, pairs along the second."""

    factor: str
    baseline: Any
    levels: tuple[Any, ...]
    index: pd.MultiIndex
    """The other factors and the seed of each pair, as they are in the condition."""
    condition: NDArray[np.intp]
    """[level, pair]: the condition's cell, -1 where a level has no such pair."""
    reference: NDArray[np.intp]
    """[level, pair]: the baseline's cell, -1 where there is none."""
    moving: tuple[str, ...]
    """Factors that change together with the contrasted one."""


def find_pairs(dataset: xr.Dataset, factor: str, baseline: Any = None, level: Any = None) -> Pairs:
    """Pair every cell of a factor's levels with its baseline cell, equal in all other factors and the seed.

    baseline: by default the factor's first level; level: one level or several, by default all others. The
    rule is that of a spec's contrasts: a factor zipped with the contrasted one (each level of one goes with
    just one level of the other) moves with it, and one that does not apply at the baseline does not count.
    StoreError when nothing can be paired.
    """
    known = levels(dataset, factor)
    base = known[0] if baseline is None else check_level(dataset, factor, baseline)
    chosen = [item for item in _listed(level, known) if check_level(dataset, factor, item) != base]
    index = dataset.indexes["cell"]
    moving = _moving(index, factor)
    names = [name for name in index.names if name != factor and name not in moving]
    rows = list(zip(*(index.get_level_values(name) for name in names), strict=True)) or [()] * len(index)
    own_levels = index.get_level_values(factor)
    bases = {row: cell for cell, row in enumerate(rows) if own_levels[cell] == base}
    partners: dict[tuple[Any, ...], dict[int, tuple[int, int]]] = {}
    for cell, row in enumerate(rows):
        partner = _partner(row, bases, names) if own_levels[cell] in chosen else None
        if partner is not None:
            partners.setdefault(row, {})[chosen.index(own_levels[cell])] = (cell, partner)
    if not partners:
        raise StoreError(f"{factor}: no two cells differ in it alone, {base!r} being the baseline")
    table = np.full((2, len(chosen), len(partners)), -1, np.intp)
    for pair, by_level in enumerate(partners.values()):
        for number, both in by_level.items():
            table[:, number, pair] = both
    if not names:  # there must be something to index the only pair by
        names, partners = [SEED], {(0,): partners[()]}
    pairs = pd.MultiIndex.from_tuples(list(partners), names=names)
    return Pairs(factor, base, tuple(chosen), pairs, table[0], table[1], moving)


def _listed(level: Any, known: Sequence[Any]) -> Sequence[Any]:
    if level is None:
        return known
    return level if isinstance(level, list | tuple) else [level]


def _moving(index: pd.MultiIndex, factor: str) -> tuple[str, ...]:
    """Return the factors that differ whenever this one does, and never without it."""
    own_levels = index.get_level_values(factor)
    count = own_levels.nunique()
    return tuple(
        str(name)
        for name in index.names
        if name not in (factor, SEED)
        and index.get_level_values(name).nunique() == count > 1
        and len({*zip(own_levels, index.get_level_values(name), strict=True)}) == count
    )


def _partner(row: tuple[Any, ...], bases: dict[tuple[Any, ...], int], names: Sequence[str]) -> int | None:
    if row in bases:
        return bases[row]
    for base, cell in bases.items():
        agree = (a == b or b == NOT_APPLICABLE for a, b in zip(row, base, strict=True))
        if all(agree):
            return cell
    return None


class Differences(BackendArray):
    """Condition minus baseline, shape (level, pair, *rest), some cells read at a time; NaN without a pair."""

    def __init__(self, values: xr.DataArray, pairs: Pairs) -> None:
        self._values = values.transpose("cell", ...)
        self._pairs = pairs
        self.shape = (*pairs.condition.shape, *self._values.shape[1:])
        self.dtype = np.dtype(np.float64)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[np.float64]:
        part = self._values
        for dim, chosen in zip(part.dims[1:], key[2:], strict=True):
            part = part.isel({dim: chosen})
        chosen_levels, chosen_pairs = (np.arange(n)[k] for n, k in zip(self.shape[:2], key[:2], strict=True))
        values = np.full((chosen_levels.size, chosen_pairs.size, *part.shape[1:]), np.nan)
        wanted = [
            (column, row, *cells)
            for column, pair in enumerate(np.atleast_1d(chosen_pairs))
            for row, level in enumerate(np.atleast_1d(chosen_levels))
            if min(cells := (self._pairs.condition[level, pair], self._pairs.reference[level, pair])) >= 0
        ]
        size = max(1, BLOCK_BYTES // max(1, 16 * math.prod(part.shape[1:])))
        for start in range(0, len(wanted), size):  # levels of a pair have the baseline in common
            batch = wanted[start : start + size]
            read = sorted({cell for _, _, *both in batch for cell in both})
            block = dict(zip(read, numbers(part.isel(cell=read)).values, strict=True))
            for column, row, condition, reference in batch:
                values[row, column] = block[condition] - block[reference]
        return values.reshape(*chosen_levels.shape, *chosen_pairs.shape, *part.shape[1:])


def differences(dataset: xr.Dataset, name: str, pairs: Pairs) -> xr.DataArray:
    """Return the lazy differences of a variable, dims (level, pair, *the variable's own)."""
    values = variable(dataset, name)
    if values.dtype == object:
        raise StoreError(f"{name}: expected numbers, found text; correct and absolute_error are derived")
    dims = ("level", "pair", *(dim for dim in values.dims if dim != "cell"))
    data = indexing.LazilyIndexedArray(Differences(values, pairs))
    kept = {key: c for key, c in values.coords.items() if c.dims and set(c.dims) <= set(dims)}
    array = xr.DataArray(xr.Variable(dims, data), coords=kept, name="difference").assign_coords(
        level=level_coordinate(pairs.levels, f"{pairs.factor}, against {pairs.baseline}")
    )
    array = array.assign_coords(xr.Coordinates.from_pandas_multiindex(pairs.index, "pair"))
    long_name = str(values.attrs.get("long_name", name))
    kept_attrs = {key: values.attrs[key] for key in (FLAGS,) if key in values.attrs}
    return array.assign_attrs(
        units=values.attrs.get("units", ""), long_name=f"difference in {long_name}", **kept_attrs
    )
