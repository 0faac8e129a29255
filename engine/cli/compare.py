"""Two stores compared: shared cells, differences in results, and what was set otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import xarray as xr
from attrs import frozen
from rich.table import Table

from engine.errors import UsageError
from engine.planning.plan import describe
from engine.quantities import count
from store import StoreError, open_store, read_manifests
from store.analysis import change
from store.analysis.nodes import stage_node
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

    def tables(self, *, cells: bool) -> Iterator[Table | str]:
        """Yield the comparison for a terminal; with `cells` the differences of every cell."""
        yield (
            f"{self.name}: {count(len(self.both), 'cell')} in both ({self.equal_keys} of them from equal "
            f"inputs), {len(self.only_a)} only in A, {len(self.only_b)} only in B"
        )
        for where, unmatched in (("A", self.only_a), ("B", self.only_b)):
            for levels in unmatched:
                yield f"only in {where}  {self._name(levels)}"
        if self.both:
            yield self._numbers()
        if self.both and cells:
            yield self._cells()
        yield self._settings() if self.settings else "no setting and no version differs"

    def _numbers(self) -> Table:
        table = Table(title=f"{self.name}: means over the cells in both, differences paired by cell")
        table.add_column("number")
        for column in ("A", "B", "B − A", "95 % interval", "lowest to highest"):
            table.add_column(column, justify="right")
        for name, values in self.numbers.data_vars.items():
            a, b = values.sel(store="A").values, values.sel(store="B").values
            low, high = self.intervals.get(str(name), (np.nan, np.nan))
            table.add_row(
                str(name),
                f"{a.mean():.4g}",
                f"{b.mean():.4g}",
                f"{(b - a).mean():+.3g}",
                f"{low:+.3g} to {high:+.3g}" if np.isfinite(low) else "",
                f"{(b - a).min():+.3g} to {(b - a).max():+.3g}",
            )
        return table

    def _cells(self) -> Table:
        table = Table(title=f"{self.name}: B − A of every cell")
        table.add_column("cell")
        shown = [name for name in BY_CELL if name in self.numbers]
        difference = self.numbers.sel(store="B") - self.numbers.sel(store="A")
        for name in shown:
            table.add_column(name, justify="right")
        for number, levels in enumerate(self.both):
            table.add_row(self._name(levels), *(f"{float(difference[name][number]):+.3g}" for name in shown))
        return table

    def _settings(self) -> Table:
        table = Table(title=f"{self.name}: settings and versions that differ")
        for column in ("key", "A", "B"):
            table.add_column(column, overflow="fold")
        for row in self.settings:
            table.add_row(*row)
        return table

    def _name(self, levels: Levels) -> str:
        return describe(dict(zip(self.factors, levels, strict=True)))


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
    (they are paired).
    """
    try:
        a, b = (_chosen(stage_node(node, "evaluate"), factors, cells) for node in nodes)
    except FAULTS:
        raise
    except StoreError:
        return {}
    if not (a["example"].equals(b["example"]) and a["gold"].equals(b["gold"])):
        return {}
    names = [name for name in a.data_vars if name in b and a[name].dims == ("cell", "example")]
    index = [(store, *levels) for store in ("A", "B") for levels in cells]
    columns = pd.MultiIndex.from_tuples(index, names=["store", *factors])
    joined = xr.concat([a[names], b[names]], "cell").assign_coords(
        xr.Coordinates.from_pandas_multiindex(columns, "cell")
    )
    intervals = {}
    for name, variable in BY_EXAMPLE.items():
        try:
            changed = change(joined, variable, "store", "A").sel(level="B")
        except FAULTS:
            raise
        except StoreError:  # not every evaluation generates, and not all labels are numbers
            continue
        intervals[name] = float(changed["low"]), float(changed["high"])
    return intervals


def _settings(a: Any, b: Any, *, path: str) -> list[tuple[str, str, str]]:
    """Give key, value in A and value in B of all leaves that differ; "unset" where one lacks a key."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        inner = {key: f"{path}.{key}".lstrip(".") for key in (*a, *b)}
        return [row for key, below in inner.items() for row in _settings(a.get(key), b.get(key), path=below)]
    if a == b:
        return []
    first_value, second_value = ("unset" if value is None else str(value) for value in (a, b))
    return [(path, first_value, second_value)]
