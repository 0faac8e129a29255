"""Two stores compared: shared cells, differences in results, and what was set otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import xarray as xr
from attrs import frozen

from engine.errors import UsageError
from store import StoreError, open_store, read_manifests
from store.analysis import change
from store.analysis.changes import stage_of
from store.analysis.nodes import stage_node
from store.analysis.task_scores import task_scores, task_stage
from store.backend.location import Root
from store.errors import FAULTS
from store.ledger.levels import factor_names, level_text

# Summary numbers whose examples are in the store: there the analysis gives an interval.
BY_EXAMPLE = {"accuracy": "correct", "generated_accuracy": "generated_correct", "mae": "absolute_error"}
BY_CELL = ("accuracy", "generated_accuracy", "mae", "train_loss")
COMPARED = ("spec", "packages", "python", "git", "hardware")
Levels = tuple[Any, ...]


@frozen
class StoreComparison:
    """One experiment as two stores hold it; a cell is named by its levels, in the order of `factors`."""

    name: str
    factors: list[str]
    both: list[Levels]
    only_a: list[Levels]
    only_b: list[Levels]
    equal_keys: int
    """Cells in both that were made from equal inputs by the same versions of the stages."""
    numbers: xr.Dataset
    """The summary numbers of the cells in both, dims (store, cell)."""
    intervals: dict[str, tuple[float, float]]
    """Of the mean difference, by summary number."""
    settings: list[tuple[str, str, str]]
    """Key, value in A, value in B."""

    def facts(self, *, cells: bool) -> dict[str, Any]:
        """Give the comparison as values; with `cells` the differences of every cell."""
        facts: dict[str, Any] = {
            "experiment": self.name,
            "cells_in_both": len(self.both),
            "from_equal_inputs": self.equal_keys,
            "only_in_a": [self._levels(levels) for levels in self.only_a],
            "only_in_b": [self._levels(levels) for levels in self.only_b],
            "numbers": list(self._numbers()) if self.both else [],
            "settings": [{"key": key, "a": a, "b": b} for key, a, b in self.settings],
        }
        if cells:
            facts["by_cell"] = list(self._cells()) if self.both else []
        return facts

    def _numbers(self) -> Iterator[dict[str, Any]]:
        for name, values in self.numbers.data_vars.items():
            a, b = values.sel(store="A").values, values.sel(store="B").values
            if not (np.isfinite(a).any() or np.isfinite(b).any()):  # of labels that are words, say
                continue
            both = np.isfinite(a) & np.isfinite(b)
            differences = (b - a)[both]
            low, high = self.intervals.get(str(name), (np.nan, np.nan))
            yield {
                "number": str(name),
                "cells": int(both.sum()),
                "a": _mean(a[both] if both.any() else a),
                "b": _mean(b[both] if both.any() else b),
                "difference": _mean(differences),
                "low": low,
                "high": high,
                "lowest": float(differences.min()) if both.any() else np.nan,
                "highest": float(differences.max()) if both.any() else np.nan,
            }

    def _cells(self) -> Iterator[dict[str, Any]]:
        difference = self.numbers.sel(store="B") - self.numbers.sel(store="A")
        shown = [name for name in BY_CELL if name in difference and np.isfinite(difference[name]).any()]
        for number, levels in enumerate(self.both):
            differences = {name: float(difference[name][number]) for name in shown}
            yield {"levels": self._levels(levels), "differences": differences}

    def _levels(self, levels: Levels) -> dict[str, Any]:
        return dict(zip(self.factors, levels, strict=True))


def _mean(values: np.ndarray) -> float:
    """Give the mean of the values that there are."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else np.nan


def compare_stores(a: Root, b: Root, experiment: str | None = None) -> list[StoreComparison]:
    """Compare an experiment of two stores, or all that they have in common.

    UsageError when there is none, or when an experiment's factors differ.
    """
    trees = open_store(a, experiment), open_store(b, experiment)
    names = [name for name in trees[0].children if name in trees[1].children]
    if not names:
        first, second = (", ".join(tree.children) or "none" for tree in trees)
        raise UsageError(
            f"expected an experiment that both stores have, found in {a} {first}, in {b} {second}"
        )
    manifests = read_manifests(a), read_manifests(b)
    return [_compare(name, [t.children[name] for t in trees], [m[name] for m in manifests]) for name in names]


def _compare(name: str, nodes: Sequence[xr.DataTree], manifests: Sequence[dict[str, Any]]) -> StoreComparison:
    factors, others = (factor_names(manifest) for manifest in manifests)
    if set(factors) != set(others):
        raise UsageError(
            f"{name}: expected the same factors in both stores, found {', '.join(factors)} in A and "
            f"{', '.join(others)} in B"
        )
    ours, theirs = (_cells_of(_summary(node), factors) if node.children else [] for node in nodes)
    both = [levels for levels in ours if levels in theirs]
    keys = [_keys(manifest, factors) for manifest in manifests]
    return StoreComparison(
        name=name,
        factors=factors,
        both=both,
        only_a=[levels for levels in ours if levels not in theirs],
        only_b=[levels for levels in theirs if levels not in ours],
        equal_keys=sum(keys[0][_spelled(levels)] == keys[1][_spelled(levels)] for levels in both),
        numbers=_numbers(nodes, factors, both) if both else xr.Dataset(),
        intervals=_intervals(nodes, factors, both) if both else {},
        settings=_settings(*[{key: known.get(key) for key in COMPARED} for known in manifests], path=""),
    )


def _summary(node: xr.DataTree) -> xr.Dataset:
    return stage_node(node, "summary")


def _keys(manifest: dict[str, Any], factors: list[str]) -> dict[tuple[str, ...], dict[str, str]]:
    """Give the stage keys of each cell."""
    return {
        _spelled([cell["levels"].get(factor) for factor in factors]): cell["keys"]
        for cell in manifest["cells"]
    }


def _spelled(levels: Sequence[Any]) -> tuple[str, ...]:
    return tuple(map(level_text, levels))


def _cells_of(dataset: xr.Dataset, factors: list[str]) -> list[Levels]:
    columns = (dataset.indexes["cell"].get_level_values(factor) for factor in factors)
    return list(zip(*columns, strict=True))


def _chosen(dataset: xr.Dataset, factors: list[str], cells: list[Levels]) -> xr.Dataset:
    """Give these cells, in this order, without their index."""
    place = {levels: number for number, levels in enumerate(_cells_of(dataset, factors))}
    return dataset.isel(cell=[place[levels] for levels in cells]).drop_vars(["cell", *factors])


def _numbers(nodes: Sequence[xr.DataTree], factors: list[str], cells: list[Levels]) -> xr.Dataset:
    """Give the summary numbers that both stores have, dims (store, cell)."""
    a, b = (_chosen(_summary(node), factors, cells) for node in nodes)
    names = [name for name in a.data_vars if name in b]
    return xr.concat([a[names], b[names]], pd.Index(["A", "B"], name="store"))


def _intervals(
    nodes: Sequence[xr.DataTree], factors: list[str], cells: list[Levels]
) -> dict[str, tuple[float, float]]:
    """Give the interval of the mean difference of what is known by example, paired by cell and example.

    None where an evaluation's cells come in several shapes, or the stores' test examples are not the same
    (they are paired); the same goes for tasks and their documents.
    """
    scores = task_scores(_summary(nodes[0]))
    intervals = {}
    for name, variable in (BY_EXAMPLE | {score: score for score in scores}).items():
        try:
            joined = _joined(nodes, variable, factors, cells)
            if joined is not None:
                changed = change(joined, variable, "store", "A").sel(level="B")
                intervals[name] = float(changed["low"]), float(changed["high"])
        except FAULTS:
            raise
        except StoreError:  # not every evaluation generates, and not all labels are numbers
            continue
    return intervals


def _joined(
    nodes: Sequence[xr.DataTree], variable: str, factors: list[str], cells: list[Levels]
) -> xr.Dataset | None:
    """Give what is known by example of both stores' cells as a factor `store`; None for unlike examples."""
    stage = stage_of(variable)
    asked = variable if task_stage(variable) else None  # of tasks, that number's documents alone
    a, b = (_chosen(stage_node(node, stage, asked), factors, cells) for node in nodes)
    if not all(a[name].equals(b[name]) for name in ("example", "gold") if name in a.coords):
        return None
    names = [name for name in a.data_vars if name in b and a[name].dims == ("cell", "example")]
    index = [(store, *levels) for store in ("A", "B") for levels in cells]
    columns = pd.MultiIndex.from_tuples(index, names=["store", *factors])
    return xr.concat([a[names], b[names]], "cell").assign_coords(
        xr.Coordinates.from_pandas_multiindex(columns, "cell")
    )


def _settings(a: Any, b: Any, *, path: str) -> list[tuple[str, str, str]]:
    """Give key, value in A and value in B of all leaves that differ; "unset" where one lacks a key."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        inner = {key: f"{path}.{key}".lstrip(".") for key in (*a, *b)}
        return [row for key, below in inner.items() for row in _settings(a.get(key), b.get(key), path=below)]
    if a == b:
        return []
    first_value, second_value = ("unset" if value is None else str(value) for value in (a, b))
    return [(path, first_value, second_value)]
