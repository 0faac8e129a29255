"""Cells of a store's experiments: the one training that some levels name, and its settings as recorded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import UsageError
from engine.planning.levels import describe, is_level, parted
from specs import Matrix, resolve
from store import StoreError, cells, read_manifests
from store.backend.location import Place
from store.ledger.levels import level_text

if TYPE_CHECKING:
    from xarray import DataTree

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
    trainings: dict[str, tuple[str, dict[str, Any]]] = {}
    every: dict[str, tuple[str, dict[str, Any]]] = {}
    for name in [experiment] if experiment is not None else read_manifests(place):
        for known in cells(place, name):
            if unknown := [factor for factor in cell if factor not in known["levels"]]:
                raise UsageError(
                    f"{place}: no factor {unknown[0]!r}; expected levels of {', '.join(known['levels'])}, "
                    f"as in {describe(known['levels'])}"
                )
            if known["status"]["train"] == "done":
                every.setdefault(known["keys"]["train"], (name, known["levels"]))
            if all(is_level(known["levels"][factor], level) for factor, level in cell.items()):
                if known["status"]["train"] == "done":
                    trainings.setdefault(known["keys"]["train"], (name, known["levels"]))
                elif len(cell) == len(known["levels"]):
                    raise StoreError(
                        f"{place}: the training of {describe(known['levels'])} is {known['status']['train']}"
                    )
    if len(trainings) != 1:
        examples = "; ".join(describe(levels) for _, levels in list((trainings or every).values())[:3])
        raise UsageError(
            f"{place}: {describe(dict(cell)) or 'no level'} names {len(trainings)} finished trainings; "
            "expected one" + (f", such as {examples}" if examples else "; none is finished")
        )
    ((key, (name, levels)),) = trainings.items()
    return name, key, levels


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
