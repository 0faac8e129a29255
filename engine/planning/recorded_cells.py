"""Cells of a store's experiments: the one training that some levels name, and its settings as recorded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import UsageError
from engine.planning.levels import Wanted, describe, has_levels, known_levels, named_levels
from engine.quantities import count
from specs import Matrix, resolve
from store import StoreError, cells, read_manifests
from store.backend.location import Place
from store.backend.records import Json
from store.ledger.levels import level_text

if TYPE_CHECKING:
    from xarray import DataTree

SHOWN = 3  # cells that an error names


def one_training(place: Place, wanted: Wanted, experiment: str | None) -> tuple[str, str, dict[str, Any]]:
    """Give experiment, train key and levels of the one training on these levels.

    Raises:
        UsageError: for levels that are not there or not single.
        StoreError: for a training that is not done.
    """
    experiments = [experiment] if experiment is not None else read_manifests(place)
    recorded = [(name, cell) for name in experiments for cell in cells(place, name)]
    named = named_levels(wanted, known_levels(cell["levels"] for _, cell in recorded), "cell")
    meant = [(name, cell) for name, cell in recorded if has_levels(cell["levels"], named)]
    trainings, every = _finished(meant), _finished(recorded)
    if not trainings and len(meant) == 1:
        ((_, cell),) = meant
        raise StoreError(f"{place}: the training of {describe(cell['levels'])} is {cell['status']['train']}")
    if len(trainings) != 1:
        found = list(trainings.values())
        if len({name for name, _ in found}) == len(found) > 1:  # each experiment has one
            raise UsageError(f"{place}: {_levels(named) or 'no level'} {_several_experiments(found)}")
        shown = dict.fromkeys(describe(levels) for _, levels in (trainings or every).values())
        examples = "; ".join(list(shown)[:SHOWN])
        told = _levels(named)
        if not examples:
            raise UsageError(
                f"{place}: no training is finished yet; expected one, which `engine execute` makes"
            )
        found_number = count(len(trainings), "finished training")
        asked = (
            f"{told} names {found_number}; expected one"
            if told
            else f"expected the levels of one of {found_number}"
        )
        raise UsageError(f"{place}: {asked}, such as {examples}")
    ((key, (name, levels)),) = trainings.items()
    return name, key, levels


def _levels(named: Mapping[str, Iterable[Any]]) -> str:
    return ", ".join(f"{factor}={','.join(map(level_text, of))}" for factor, of in named.items())


def _several_experiments(found: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """Say that experiments have a training each on the same levels, and how one is chosen."""
    names = [name for name, _ in found]
    listed = f"{', '.join(names[:-1])} and {names[-1]}"
    return (
        f"names {len(names)} finished trainings, of the experiments {listed}; expected one of them "
        f'by --experiment, or in Python experiment="{names[0]}"'
    )


def _finished(recorded: Iterable[tuple[str, Json]]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Give the finished trainings of cells: key → experiment, and the levels of the first that has it."""
    trainings: dict[str, tuple[str, dict[str, Any]]] = {}
    for name, cell in recorded:
        if cell["status"]["train"] == "done":
            trainings.setdefault(cell["keys"]["train"], (name, cell["levels"]))
    return trainings


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
