"""The index of the `cell` axis: every factor is a coordinate that selects by a level, a list or a slice.

Unlike a pandas MultiIndex it is no coordinate itself, so a node can be saved, grouped by several factors, and
asked for several levels of one. `ablation.indexed()` makes a MultiIndex of it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import xarray as xr
from numpy.typing import NDArray
from xarray.core.indexes import PandasIndex
from xarray.core.indexing import IndexSelResult

CELL = "cell"


class CellIndex(xr.Index):
    """An index over coordinates along one dim, whose rows are those of a pandas MultiIndex."""

    def __init__(self, index: pd.MultiIndex, dim: Hashable = CELL) -> None:
        self.index, self.dim = index, dim

    @classmethod
    def from_variables(cls, variables: Mapping[Any, xr.Variable], *, options: Mapping[str, Any]) -> CellIndex:
        """Make an index of coordinates along one dim (for `set_xindex`)."""
        (dim,) = {variable.dims for variable in variables.values()}
        columns = [variable.values for variable in variables.values()]
        return cls(pd.MultiIndex.from_arrays(columns, names=list(variables)), dim[0])

    @classmethod
    def concat(
        cls, indexes: Sequence[Any], dim: Hashable, positions: Iterable[Iterable[int]] | None = None
    ) -> CellIndex:
        """Join indexes one behind the other; positions: where the entries of each are to stand."""
        joined = indexes[0].index
        for other in indexes[1:]:
            joined = joined.append(other.index.reorder_levels(joined.names))
        if positions is not None:
            joined = joined.take(np.argsort(np.concatenate([np.asarray(rows) for rows in positions])))
        return cls(joined, dim)

    def create_variables(
        self, variables: Mapping[Any, xr.Variable] | None = None
    ) -> dict[Hashable, xr.Variable]:
        """Return a coordinate of each factor, with the attributes of the given ones."""
        known = variables or {}
        return {
            name: xr.Variable(
                self.dim,
                self._values(name),
                known[name].attrs if name in known else None,
                known[name].encoding if name in known else None,
            )
            for name in self.index.names
        }

    def to_pandas_index(self) -> pd.MultiIndex:
        """Return the MultiIndex."""
        return self.index

    def isel(self, indexers: Mapping[Any, Any]) -> CellIndex | None:
        """Return the index of some entries, None for a single one."""
        chosen = indexers[self.dim]
        if isinstance(chosen, xr.Variable):
            if chosen.dims != (self.dim,):
                return None
            chosen = chosen.values
        if not isinstance(chosen, slice) and np.ndim(chosen) == 0:
            return None
        return CellIndex(self.index[chosen], self.dim)

    def sel(self, labels: dict[Any, Any], method: Any = None, tolerance: Any = None) -> IndexSelResult:
        """Select by levels of factors: one level, a list of some, or a slice from one to another.

        A factor held at one level is no longer indexed; the last one that is left gives the dim its name.
        Several levels come in the order asked for. KeyError for levels that are not there.
        """
        if method is not None or tolerance is not None:
            raise ValueError("factors are selected by their levels, without `method` and `tolerance`")
        kept, held = np.arange(len(self.index)), {}
        for name, label in labels.items():
            if isinstance(label, slice):
                kept = kept[self._within(name, label)[kept]]
            elif np.ndim(label) == 0:
                held[name] = np.asarray(label, dtype=object).item()
                kept = kept[self._places(name, [held[name]])[kept] == 0]
            else:
                places = self._places(name, list(np.asarray(label, dtype=object)))[kept]
                order = np.argsort(places, kind="stable")
                kept = kept[order][places[order] < np.size(label)]
        if not kept.size:
            raise KeyError(f"no cell at {', '.join(f'{name}={label!r}' for name, label in labels.items())}")
        left = [name for name in self.index.names if name not in held]
        if not held or not left:
            return IndexSelResult({self.dim: int(kept[0]) if held and kept.size == 1 else kept})
        scalars = {name: xr.Variable((), level) for name, level in held.items()}
        if len(left) == 1:
            alone = PandasIndex(pd.Index(self._values(left[0])[kept], name=left[0]), left[0])
            index: xr.Index = alone
            renamed = {self.dim: left[0]}
        else:
            index = CellIndex(self.index[kept].droplevel(list(held)), self.dim)
            renamed = {}
        variables = {**index.create_variables(), **scalars}
        return IndexSelResult(
            {self.dim: kept},
            indexes=dict.fromkeys(left, index),
            variables=variables,
            drop_indexes=list(held),
            rename_dims=renamed,
        )

    def equals(self, other: xr.Index, **_: Any) -> bool:
        """Tell whether another index has the same rows."""
        return isinstance(other, CellIndex) and self.index.equals(other.index)

    def join(self, other: Any, how: Any = "inner") -> CellIndex:
        """Return the rows of both (inner) or of either (outer)."""
        theirs = other.index.reorder_levels(self.index.names)
        joined = (
            self.index.union(theirs, sort=False) if how == "outer" else self.index.intersection(theirs, False)
        )
        return CellIndex(joined, self.dim)

    def reindex_like(self, other: Any) -> dict[Hashable, Any]:
        """Return where the other's rows stand here, -1 for those that do not."""
        return {self.dim: self.index.get_indexer(other.index.reorder_levels(self.index.names))}

    def rename(self, name_dict: Mapping[Any, Hashable], dims_dict: Mapping[Any, Hashable]) -> CellIndex:
        """Return the index with other names of factors or of the dim."""
        names = [name_dict.get(name, name) for name in self.index.names]
        return CellIndex(self.index.rename(names), dims_dict.get(self.dim, self.dim))

    def _values(self, name: Hashable) -> NDArray[Any]:
        return np.asarray(self.index.get_level_values(name).values)

    def _places(self, name: Hashable, wanted: list[Any]) -> NDArray[np.intp]:
        """Return each row's place among the wanted levels, behind the last for a row of another one."""
        known = pd.unique(self._values(name)).tolist()
        if missing := [level for level in wanted if level not in known]:
            raise KeyError(f"{name}: no level {missing[0]!r}; there are {', '.join(map(str, known))}")
        place = {level: number for number, level in enumerate(wanted)}
        return np.array(
            [place.get(level, len(wanted)) for level in self._values(name).tolist()], dtype=np.intp
        )

    def _within(self, name: Hashable, wanted: slice) -> NDArray[np.bool_]:
        """Tell which rows lie in a slice, by number, or for text by the order in which levels first come."""
        if wanted.step is not None:
            raise ValueError(f"{name}: expected a slice without a step, found {wanted.step!r}")
        values: NDArray[Any] = self._values(name)
        first, last = wanted.start, wanted.stop
        if values.dtype == object:
            ends = [end for end in (first, last) if end is not None]
            self._places(name, ends)
            known = pd.unique(values).tolist()
            values = np.array([known.index(level) for level in values.tolist()])
            first, last = (None if end is None else known.index(end) for end in (first, last))
        after = True if first is None else values >= first
        return np.broadcast_to(after & (True if last is None else values <= last), values.shape)


def coordinates_of(index: pd.MultiIndex) -> xr.Coordinates:
    """Return the factors as coordinates along `cell`, indexed together."""
    cell_index = CellIndex(index)
    return xr.Coordinates(cell_index.create_variables(), dict.fromkeys(index.names, cell_index))
