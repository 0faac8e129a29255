"""Cells of several shapes as one: those that have the same examples and differ in their true labels alone.

A test set rated in another dimension is another shape of the store, with the same examples.
"""

from collections.abc import Hashable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing


def merge_shapes(datasets: dict[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Join the datasets whose variables, examples and other dims are the same along `cell`, unread.

    `gold` becomes a coordinate of (cell, example) where it differs; other coordinates that differ, such as
    the token ids of another tokenizer, are dropped. The joined have the first one's name.
    """
    alike: dict[Hashable, list[str]] = {}
    for name, dataset in datasets.items():
        alike.setdefault(_shape(dataset), []).append(name)
    return {names[0]: joined([datasets[name] for name in names]) for names in alike.values()}


class Joined(BackendArray):
    """Variables of equal dims (cell, *rest) one after the other along `cell`, read when asked for."""

    def __init__(self, parts: Sequence[xr.Variable]) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *(part.shape[0] for part in parts)])
        self.shape = (int(self._starts[-1]), *parts[0].shape[1:])
        self.dtype = parts[0].dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        wanted = np.arange(self.shape[0])[key[0]]
        cells = np.atleast_1d(wanted)
        owner = np.searchsorted(self._starts, cells, side="right") - 1
        blocks: dict[int, NDArray[Any]] = {}
        for number in np.unique(owner):
            part = self._parts[number]
            where = np.flatnonzero(owner == number)
            inner_key = (cells[where] - self._starts[number], *key[1:])
            chosen = part.isel(dict(zip(part.dims, inner_key, strict=True))).values
            blocks |= dict(zip(where.tolist(), chosen, strict=True))
        values = np.stack([blocks[place] for place in range(len(cells))])
        return values.reshape(*wanted.shape, *values.shape[1:])


def _shape(dataset: xr.Dataset) -> Hashable:
    labels = {str(dim): tuple(dataset[dim].values.tolist()) for dim in dataset.dims if dim != "cell"}
    if "example" in labels:
        labels["example"] = tuple(sorted(labels["example"]))
    variables = {str(name): tuple(map(str, variable.dims)) for name, variable in dataset.data_vars.items()}
    return frozenset(labels.items()), frozenset(variables.items()), tuple(dataset.indexes["cell"].names)


def joined(datasets: list[xr.Dataset]) -> xr.Dataset:
    """Join datasets of equal variables and dims along `cell`, unread; coordinates that differ are dropped."""
    first = datasets[0]
    if len(datasets) == 1:
        return first
    if "example" in first.dims:
        datasets = [_in_order(dataset, first.indexes["example"]) for dataset in datasets]
    variables = {
        name: xr.Variable(
            variable.dims,
            indexing.LazilyIndexedArray(Joined([dataset[name].variable for dataset in datasets])),
            variable.attrs,
        )
        for name, variable in first.data_vars.items()
    }
    index = reduce(pd.MultiIndex.append, [dataset.indexes["cell"] for dataset in datasets])
    kept = {
        name: c.variable
        for name, c in first.coords.items()
        if "cell" not in c.dims and all(c.variable.equals(dataset[name].variable) for dataset in datasets)
    }
    if "gold" in first.coords and "gold" not in kept:
        rows = [np.tile(dataset["gold"].values, (dataset.sizes["cell"], 1)) for dataset in datasets]
        kept["gold"] = xr.Variable(("cell", "example"), np.concatenate(rows), first["gold"].attrs)
    joined = xr.Dataset(variables, kept, first.attrs)
    return joined.assign_coords(xr.Coordinates.from_pandas_multiindex(index, "cell"))


def _in_order(dataset: xr.Dataset, examples: pd.Index) -> xr.Dataset:
    ids = dataset.indexes["example"]
    return dataset if ids.equals(examples) else dataset.isel(example=ids.get_indexer(examples))
