"""The values of a factor's levels side by side, and whether they stand on the same examples."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import xarray as xr
from attrs import evolve, frozen
from numpy.typing import NDArray

from store.analysis.nodes import Data, by_condition, group_seeds, levels, numbers, stage_nodes, variable
from store.analysis.pairs import differences, find_pairs
from store.analysis.resampling import Floats
from store.errors import StoreError, nearest


@frozen
class Group:
    """One level's values."""

    level: Any
    cells: Floats
    """[cell, example, *rest]"""
    index: pd.MultiIndex
    """The other factors and the seed of each cell."""
    examples: NDArray[np.object_]
    like: xr.DataArray
    """Without values: the rest's dims and coordinates."""

    @property
    def values(self) -> Floats:
        """[seed, example, *rest], the other factors averaged."""
        return group_seeds(self.cells, self.index)[0]


@frozen
class Against:
    """A contrast whose differences are the values: level minus baseline of a factor."""

    factor: str
    baseline: Any
    level: Any


@frozen
class Groups:
    """Levels to compare; paired when all have the same examples, in the same order."""

    factor: str
    groups: tuple[Group, ...]
    paired: bool

    @property
    def levels(self) -> list[Any]:
        """The groups' levels, in order."""
        return [group.level for group in self.groups]

    @property
    def coordinate(self) -> xr.DataArray:
        """The levels as a coordinate `level`."""
        kind = object if any(isinstance(level, str) for level in self.levels) else None
        return xr.DataArray(np.array(self.levels, kind), dims="level", attrs={"long_name": self.factor})

    def find(self, level: Any) -> Group:
        """Return a level's group; StoreError names the nearest level."""
        for group in self.groups:
            if group.level == level:
                return group
        raise StoreError(f"{self.factor}: no level {level!r}{nearest(str(level), map(str, self.levels))}")

    @property
    def sizes(self) -> str:
        """Examples by group, in words."""
        counts = [f"{len(group.examples)} ({group.level})" for group in self.groups]
        return f"{len(self.groups[0].examples)} shared" if self.paired else " and ".join(counts)

    @property
    def seeds(self) -> int:
        """The fewest seeds of any group."""
        return min(len(group_seeds(group.cells, group.index)[1]) for group in self.groups)


Reduce = Callable[[xr.DataArray], xr.DataArray]


def read_groups(
    data: Data,
    name: str,
    factor: str,
    stage: str,
    *,
    reduce: Reduce | None = None,
    against: Against | None = None,
    paired: bool | None = None,
) -> Groups:
    """Read a variable by level of a factor, or by condition (all factors but the seed) for "condition".

    Levels whose cells lie in different shapes (other test data) are compared all the same. `reduce` makes a
    cell's array smaller right after it was read; `against` takes differences of a contrast instead of
    values. `paired`: whether examples of equal id are the same; None: they are when all groups have just the
    same ids, they are not when no id is shared. (Should equal ids belong to unlike examples, paired tests
    stay valid.) StoreError for ids shared in part, and for a level that lies in several shapes.
    """
    found: dict[Any, Group] = {}
    for whole in stage_nodes(data, stage).values():
        dataset = by_condition(whole) if factor == "condition" else whole
        for level in levels(dataset, factor):
            if level in found:
                raise StoreError(
                    f"{factor}: the cells of {level!r} come in several shapes; select one of them"
                )
            cells = np.flatnonzero(dataset.indexes["cell"].get_level_values(factor) == level)
            found[level] = _read(dataset.isel(cell=cells), level, name, reduce, against)
    return _aligned(factor, tuple(found.values()), paired)


def _read(part: xr.Dataset, level: Any, name: str, reduce: Reduce | None, against: Against | None) -> Group:
    if against is None:
        values, dim = variable(part, name), "cell"
    else:
        pairs = find_pairs(part, against.factor, against.baseline, against.level)
        values, dim = differences(part, name, pairs).isel(level=0), "pair"
    blocks = []
    for number in range(values.sizes[dim]):
        block = numbers(values.isel({dim: number}, drop=True))
        blocks.append((reduce(block) if reduce else block).transpose("example", ...))
    cells = np.stack([block.values for block in blocks])
    examples = values["example"].values.astype(object)
    return Group(level, cells, values.indexes[dim], examples, blocks[0].isel(example=0, drop=True))


def _aligned(factor: str, groups: tuple[Group, ...], paired: bool | None) -> Groups:
    if len(groups) < 2:
        raise StoreError(f"{factor}: expected two levels or more to compare, found {len(groups)}")
    ids = [list(group.examples) for group in groups]
    common = set(ids[0]).intersection(*ids)
    if paired is None:
        same = all(set(own) == common for own in ids)
        if not same and common:
            raise StoreError(
                f"{factor}: the levels share {len(common)} examples and differ in others; say with paired= "
                "whether equal ids mean the same example"
            )
        paired = same
    if not paired:
        return Groups(factor, groups, False)
    order = [example for example in ids[0] if example in common]
    if not order:
        raise StoreError(f"{factor}: its levels have no example in common")
    aligned = []
    for group, own in zip(groups, ids, strict=True):
        place = {example: number for number, example in enumerate(own)}
        chosen = [place[example] for example in order]
        aligned.append(evolve(group, cells=group.cells[:, chosen], examples=group.examples[chosen]))
    return Groups(factor, tuple(aligned), True)
