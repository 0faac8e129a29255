"""Several experiments as one: what told them apart, such as the model, becomes a factor."""

import os
from collections.abc import Mapping
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import xarray as xr

from specs.common.names import NOT_APPLICABLE
from store.analysis.nodes import stage_nodes, with_cell_index
from store.analysis.shapes import merge_shapes
from store.arrays.cell_index import coordinates_of
from store.backend.location import Place, Root
from store.errors import StoreError
from store.reader import open_store


def pool(experiments: Mapping[Any, xr.DataTree | Root], factor: str) -> xr.DataTree:
    """Return one experiment of the cells of several; the mapping's keys are the levels of a new factor.

    Cells that agree in all other factors and the seed are pairs; a factor that an experiment lacks does not
    apply there ("-"). Test examples that all have (by their ids) are compared, others are left out; a stage
    whose layers or watched tokens differ keeps one node per shape. Nothing is read.

    Args:
        experiments: nodes of `open_store`'s trees, trees with one experiment each, or stores of one
            experiment, by folder or URL.

    Raises:
        StoreError: for a factor that is there already, and for fewer than two experiments.
    """
    if not isinstance(experiments, Mapping):
        kind = type(experiments).__name__
        raise StoreError(
            f"pool: expected level → experiment, as {{'3b': first, '8b': second}}, found a {kind}"
        )
    trees = {level: _experiment(level, tree) for level, tree in experiments.items()}
    if len(trees) < 2:
        raise StoreError(f"pool: expected two experiments or more, found {len(trees)}")
    summaries = {
        level: _labelled(node["summary"].to_dataset(), factor, level) for level, node in trees.items()
    }
    names = list(
        dict.fromkeys(name for summary in summaries.values() for name in summary.indexes["cell"].names)
    )
    stages = dict.fromkeys(stage for node in trees.values() for stage in node.children if stage != "summary")
    attributes = [node.attrs for node in trees.values()]
    shared = {k: v for k, v in attributes[0].items() if all(attrs.get(k) == v for attrs in attributes)}
    nodes = {
        "/": xr.Dataset(attrs=shared),
        "/summary": _plain(_summary([_with_factors(summary, names) for summary in summaries.values()])),
    }
    for stage in stages:
        parts = [
            _with_factors(_labelled(dataset, factor, level), names)
            for level, node in trees.items()
            if stage in node.children
            for dataset in stage_nodes(node, stage).values()
        ]
        shapes = merge_shapes({str(number): dataset for number, dataset in enumerate(_alike(parts))})
        several = len(shapes) > 1
        for number, dataset in enumerate(shapes.values()):
            nodes[f"/{stage}/shape{number}" if several else f"/{stage}"] = _plain(dataset)
    return xr.DataTree.from_dict(nodes)


def _experiment(level: Any, tree: xr.DataTree | Root) -> xr.DataTree:
    """Return the experiment itself."""
    if isinstance(tree, (str, os.PathLike, Place)):
        tree = open_store(tree)
    if not isinstance(tree, xr.DataTree):
        raise StoreError(f"pool: {level}: expected an experiment or a store, found a {type(tree).__name__}")
    if "summary" in tree.children:
        return tree
    if len(tree.children) == 1:
        return _experiment(level, next(iter(tree.children.values())))
    listed = ", ".join(tree.children) or "none"
    raise StoreError(f"pool: {level}: expected one experiment with complete cells, found {listed}")


def _labelled(dataset: xr.Dataset, factor: str, level: Any) -> xr.Dataset:
    """Return the cells with one more factor, the first, at one level."""
    indexed_cells = with_cell_index(dataset)
    index = indexed_cells.indexes["cell"]
    if factor in index.names:
        raise StoreError(f"pool: expected a new factor, found {factor!r} among {', '.join(index.names)}")
    return _indexed(indexed_cells, {factor: np.full(len(index), level, object), **_columns(index)})


def _with_factors(dataset: xr.Dataset, names: list[Any]) -> xr.Dataset:
    """Return the cells with these factors, in this order."""
    known = _columns(dataset.indexes["cell"])
    nothing = np.full(dataset.sizes["cell"], NOT_APPLICABLE, object)
    return _indexed(dataset, {name: known.get(name, nothing) for name in names})


def _columns(index: pd.MultiIndex) -> dict[Any, Any]:
    return {name: index.get_level_values(name) for name in index.names}


def _indexed(dataset: xr.Dataset, columns: dict[Any, Any]) -> xr.Dataset:
    index = pd.MultiIndex.from_arrays(list(columns.values()), names=list(columns))
    plain = dataset.drop_vars(["cell", *dataset.indexes["cell"].names])
    return plain.assign_coords(xr.Coordinates.from_pandas_multiindex(index, "cell"))


def _plain(dataset: xr.Dataset) -> xr.Dataset:
    """Return the cells as `open_store` has them: factors that are plain coordinates."""
    index = dataset.indexes["cell"]
    return dataset.drop_vars(["cell", *index.names]).assign_coords(coordinates_of(index))


def _summary(parts: list[xr.Dataset]) -> xr.Dataset:
    """Return the numbers of all, NaN where an experiment lacks one."""
    index = reduce(pd.MultiIndex.append, [part.indexes["cell"] for part in parts])
    names = dict.fromkeys(name for part in parts for name in part.data_vars)
    variables = {}
    for name in names:
        values = [
            part[name].values if name in part else np.full(part.sizes["cell"], np.nan) for part in parts
        ]
        attrs = next(part[name].attrs for part in parts if name in part)
        variables[name] = xr.Variable("cell", np.concatenate(values), attrs)
    return xr.Dataset(variables).assign_coords(xr.Coordinates.from_pandas_multiindex(index, "cell"))


def _alike(parts: list[xr.Dataset]) -> list[xr.Dataset]:
    """Return the parts with the variables and examples that all have, where they share some."""
    names = [name for name in parts[0].data_vars if all(name in part for part in parts)]
    parts = [part[names] for part in parts]
    if any("example" not in part.dims for part in parts):
        return parts
    common = set.intersection(*(set(part["example"].values) for part in parts))
    if not common:
        return parts
    kept = [example for example in parts[0]["example"].values if example in common]
    return [part if _same(part, kept) else part.sel(example=kept) for part in parts]


def _same(dataset: xr.Dataset, examples: list[Any]) -> bool:
    return bool(dataset["example"].values.tolist() == examples)
