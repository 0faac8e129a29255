"""The values of a factor's levels side by side, and whether they stand on the same examples."""

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import xarray as xr
from attrs import evolve, frozen
from numpy.typing import NDArray

from specs.common.spelling import hint
from store.analysis.components import Floats
from store.analysis.nodes import Data, blocks, by_condition, levels, numbers, stage_nodes, variable
from store.analysis.pairs import differences, find_pairs
from store.analysis.results import level_coordinate
from store.analysis.runs import SeedValues, by_seed, example_groups
from store.errors import StoreError


@frozen
class LevelValues:
    """One level's values."""

    level: Any
    cells: Floats
    """[cell, example, *rest]"""
    index: pd.MultiIndex
    """The other factors and the seed of each cell."""
    examples: NDArray[np.object_]
    like: xr.DataArray
    """Without values: the rest's dims and coordinates."""

    units: NDArray[np.intp]
    """Of each example the number of its group: examples of one group are alike."""

    @property
    def runs(self) -> SeedValues:
        """Values by seed, the other factors averaged."""
        return by_seed(self.cells, self.index)

    @property
    def values(self) -> Floats:
        """[seed, example, *rest], the other factors averaged."""
        return self.runs.values

    @property
    def grouped(self) -> bool:
        """Whether some examples share a group."""
        return len(set(self.units.tolist())) < len(self.units)

    @property
    def labels(self) -> NDArray[np.intp] | None:
        """The group of each example, None where each is its own."""
        return self.units if self.grouped else None


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
    groups: tuple[LevelValues, ...]
    paired: bool

    @property
    def coordinate(self) -> xr.DataArray:
        """The levels as a coordinate `level`."""
        return level_coordinate([group.level for group in self.groups], self.factor)

    def find(self, level: Any = None) -> LevelValues:
        """Return a level's group, the first for None; StoreError names the nearest level."""
        known = {group.level: group for group in self.groups}
        if level is not None and level not in known:
            raise StoreError(f"{self.factor}: no level {level!r}{hint(str(level), map(str, known))}")
        return self.groups[0] if level is None else known[level]

    @property
    def units(self) -> str:
        """What is exchanged between levels, or within which, in words."""
        return "groups of examples" if any(group.grouped for group in self.groups) else "examples"

    @property
    def sizes(self) -> str:
        """The number of examples, in words."""
        counts = sorted({len(group.examples) for group in self.groups})
        number = "–".join(map(str, counts if len(counts) < 2 else (counts[0], counts[-1])))
        return f"{number} {'shared examples' if self.paired else 'examples per level'}"

    def comparable(self) -> "Groups":
        """Return self; StoreError when there is but one level."""
        if len(self.groups) < 2:
            raise StoreError(
                f"{self.factor}: expected two levels or more to compare, found {len(self.groups)}"
            )
        return self.alike()

    def alike(self) -> "Groups":
        """Return self; StoreError when levels have not the same layers, positions and the like."""
        first = self.groups[0]
        for group in self.groups[1:]:
            own, other = first.like, group.like
            if dims := [str(dim) for dim in {**own.sizes, **other.sizes} if not _same(own, other, dim)]:
                raise StoreError(
                    f"{self.factor}: {group.level!r} and {first.level!r} differ in {' and '.join(dims)}, "
                    f"found {dict(other.sizes)} and {dict(own.sizes)}; select levels that are measured alike"
                )
        return self

    @property
    def seeds(self) -> str:
        """The number of seeds, in words."""
        counts = sorted({len(group.runs.seeds) for group in self.groups})
        if counts == [1]:
            return "1 seed"
        return f"{'–'.join(map(str, counts if len(counts) < 2 else (counts[0], counts[-1])))} seeds"


def _same(one: xr.DataArray, other: xr.DataArray, dim: Hashable) -> bool:
    """Tell whether two arrays have a dim with the same entries."""
    return dim in one.dims and dim in other.dims and one.get_index(dim).equals(other.get_index(dim))


Reduce = Callable[[xr.DataArray], xr.DataArray]


def read_groups(
    data: Data,
    name: str,
    factor: str,
    stage: str,
    *,
    layers: slice | None = None,
    reduce: Reduce | None = None,
    against: Against | None = None,
    paired: bool | None = None,
) -> Groups:
    """Read a variable by level of a factor, or by condition (all factors but the seed) for "condition".

    Levels whose cells lie in different shapes (other test data) are compared all the same. layers: those to
    read, by number. `reduce` makes arrays of some cells (or pairs) smaller right after they were read;
    `against` takes the differences of a contrast instead of values. `paired`: whether examples of equal id
    are the same; None: they are when all groups have just the same ids, they are not when no id is shared.
    (Should equal ids belong to unlike examples, paired tests stay valid.) StoreError for ids shared in part,
    and for a level that lies in several shapes.
    """
    levels_read: dict[Any, LevelValues] = {}
    for whole in stage_nodes(data, stage, name).values():
        dataset = by_condition(whole) if factor == "condition" else whole
        for level in levels(dataset, factor):
            if level in levels_read:
                raise StoreError(f"{factor}: the cells of {level!r} come in several shapes; select one")
            cells = np.flatnonzero(dataset.indexes["cell"].get_level_values(factor) == level)
            values = _values(dataset.isel(cell=cells), name, against)
            levels_read[level] = _read(values if layers is None else values.isel(layer=layers), level, reduce)
    return _aligned(factor, tuple(levels_read.values()), paired)


def _values(part: xr.Dataset, name: str, against: Against | None) -> xr.DataArray:
    """Return a level's values, dims (cell, …), or its differences, dims (pair, …)."""
    if against is None:
        return variable(part, name)
    pairs = find_pairs(part, against.factor, against.baseline, against.level)
    if len(pairs.levels) > 1:
        listed = ", ".join(map(str, pairs.levels))
        raise StoreError(f"{against.factor}: expected one level against {pairs.baseline}, found {listed}")
    return differences(part, name, pairs).isel(level=0)


def _read(values: xr.DataArray, level: Any, reduce: Reduce | None) -> LevelValues:
    dim = "pair" if "pair" in values.dims else "cell"
    index = values.indexes[dim]
    unlabelled = values.drop_vars([dim, *index.names])
    parts = []
    for some in blocks(values, dim):
        block = numbers(unlabelled.isel({dim: some}))
        parts.append((reduce(block) if reduce else block).transpose(dim, "example", ...))
    cells = np.concatenate([part.values for part in parts])
    examples = values["example"].values.astype(object)
    known = example_groups(values)
    units = np.arange(len(examples)) if known is None else known
    like = parts[0].isel({dim: 0, "example": 0}, drop=True)
    return LevelValues(level, cells, index, examples, like, units)


def _aligned(factor: str, groups: tuple[LevelValues, ...], paired: bool | None) -> Groups:
    ids = [list(group.examples) for group in groups]
    common = set(ids[0]).intersection(*ids)
    if paired is None:
        same = all(set(names) == common for names in ids)
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
    for group, ids_of_group in zip(groups, ids, strict=True):
        place = {example: number for number, example in enumerate(ids_of_group)}
        chosen = [place[example] for example in order]
        own_units = group.units[chosen]
        aligned.append(
            evolve(group, cells=group.cells[:, chosen], examples=group.examples[chosen], units=own_units)
        )
    return Groups(factor, tuple(aligned), True)
