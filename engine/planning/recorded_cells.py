"""Cells of a store's experiments: the one training that some levels name, and its settings as recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import UsageError
from engine.planning.levels import describe, is_level, parted
from specs import Matrix, resolve
from specs.common.spelling import hint
from store import StoreError, cells, read_manifests
from store.backend.location import Place
from store.ledger.levels import level_text

if TYPE_CHECKING:
    from xarray import DataTree

SHOWN = 3  # cells that an error names

Levels = Mapping[str, Any]
"""Factor → a level, or a list of levels."""


def single(cell: Levels | str) -> Levels:
    """Give one level by factor; also of text, which cannot name a level twice."""
    if isinstance(cell, Mapping):
        return cell
    if not isinstance(cell, str):
        raise TypeError(f"cell: expected factor → level, as {{'target': 'label'}}, found {cell!r:.80}")
    parts = [text.partition("=") for text in parted(cell)]
    if (
        parts
        and all(equals for _, equals, _ in parts)
        and len({factor for factor, *_ in parts}) == len(parts)
    ):
        return {factor: level for factor, _, level in parts}
    return {cell: ""}  # no factor, as the search says with those that there are


def one_training(place: Place, cell: Levels, experiment: str | None) -> tuple[str, str, dict[str, Any]]:
    """Give experiment, train key and levels of the one training on these levels.

    Raises:
        UsageError: for levels that are not there or not single.
        StoreError: for a training that is not done.
    """
    names = [experiment] if experiment is not None else list(read_manifests(place))
    listed = {name: cells(place, name) for name in names}
    _check_levels(place, cell, [known["levels"] for known in chain.from_iterable(listed.values())])
    trainings: dict[str, tuple[str, dict[str, Any]]] = {}
    every: list[dict[str, Any]] = []
    for name, known in [(name, known) for name, cells_of in listed.items() for known in cells_of]:
        levels, state = known["levels"], known["status"]["train"]
        if state == "done":
            every.append(levels)
        if any(factor not in levels or not is_level(levels[factor], cell[factor]) for factor in cell):
            continue
        if state == "done":
            trainings.setdefault(known["keys"]["train"], (name, levels))
        elif len(cell) == len(levels):
            raise StoreError(f"{place}: the training of {describe(levels)} is {state}")
    if len(trainings) != 1:
        found = list(trainings.values())
        if len({name for name, _ in found}) == len(found) > 1:  # each experiment has one
            raise UsageError(f"{place}: {describe(dict(cell))} {_several_experiments(found)}")
        told = dict.fromkeys(map(describe, [levels for _, levels in found] or every))
        examples = "; ".join(list(told)[:SHOWN])
        raise UsageError(
            f"{place}: {describe(dict(cell)) or 'no level'} names {len(trainings)} finished trainings; "
            "expected one" + (f", such as {examples}" if examples else "; none is finished")
        )
    ((key, (name, levels)),) = trainings.items()
    return name, key, levels


def _check_levels(place: Place, cell: Levels, known: Sequence[Mapping[str, Any]]) -> None:
    """Raise UsageError for a factor that no cell has, or a level that none of its cells has."""
    factors = list(dict.fromkeys(chain.from_iterable(known)))
    for factor, level in cell.items():
        levels = list(dict.fromkeys(level_text(one[factor]) for one in known if factor in one))
        if known and not levels:
            raise UsageError(
                f"{place}: no factor {factor!r}{hint(factor, factors)}; expected levels of "
                f"{', '.join(factors)}, as in {describe(dict(known[0]))}"
            )
        if known and not any(is_level(one[factor], level) for one in known if factor in one):
            raise UsageError(
                f"{place}: {factor}={level}: the factor has no such level; expected one of "
                f"{', '.join(levels)}{hint(str(level), levels)}"
            )


def _several_experiments(found: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """Say that experiments have a training each on the same levels, and how one is chosen."""
    names = [name for name, _ in found]
    listed = f"{', '.join(names[:-1])} and {names[-1]}"
    return (
        f"names {len(names)} finished trainings, of the experiments {listed}; expected one of them "
        f'by --experiment, or in Python experiment="{names[0]}"'
    )


def recorded_cell(experiment: dict[str, Any], levels: dict[str, Any]) -> tuple[Matrix, tuple[int, ...]]:
    """Give the matrix of a manifest's spec, and the cell of it that has these levels."""
    from specs.load import Spec
    from specs.tables.experiment import Experiment
    from specs.toml.convert import structure

    typed, problems = structure(experiment, Experiment)
    if typed is None:
        raise StoreError(f"the store's spec cannot be read by this version: {problems[0].message}")
    matrix = resolve(Spec(Path("spec.toml"), experiment, typed, (), {}))
    wanted = {factor: level_text(level) for factor, level in levels.items()}
    choice = next(
        cell
        for cell in matrix.cells
        if {name: level_text(level) for name, level in matrix.levels(cell).items()} == wanted
    )
    return matrix, choice


def select_cells(node: DataTree, levels: Mapping[str, Any]) -> DataTree:
    """Give the whole cells of an experiment that have these levels, None where a factor does not apply.

    Raises:
        StoreError: where no whole cell has one of them.
    """
    from store.analysis import select
    from store.analysis.nodes import levels as known_levels
    from store.analysis.nodes import stage_node

    summary = stage_node(node, "summary")
    wanted = {}
    for factor, level in levels.items():
        known = {_text(value): value for value in known_levels(summary, factor)}
        if level_text(level) not in known:
            raise StoreError(f"no whole cell has {factor}={level_text(level)}")
        wanted[factor] = known[level_text(level)]
    return select(node, **wanted)


def _text(value: Any) -> str:
    """Give a level of the cells' index, which may be numpy's, as text."""
    return level_text(value.item() if hasattr(value, "item") else value)
