"""The run matrix: every combination of factor levels and seeds that the rules leave, and its settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from math import prod
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from specs.axes import Axis, Label, Level, read_axes
from specs.checks.analysis import analysis_problems
from specs.checks.annotate import annotate_problems
from specs.checks.interventions import intervention_problems
from specs.checks.settings import RULES, prompt_problems, settings_problems
from specs.common.names import LENS
from specs.errors import Problem, SpecError
from specs.rules import ContrastPair, Pattern, ResolvedRules, read_rules
from specs.tables.by_name import TableOf
from specs.tables.experiment import OVERLAID, TABLE_STAGES
from specs.tables.interventions import Intervention
from specs.toml import keys, overlay
from specs.toml.convert import structure
from specs.toml.describe import value as spell
from specs.toml.known_keys import tables
from specs.toml.paths import anchor, holds_path, store_problems

if TYPE_CHECKING:
    from specs.load import Spec

__all__ = ["Axis", "Label", "Level", "Matrix", "resolve"]

Cell = tuple[int, ...]

# Above this, a product is a slip rather than a study, and would only fill the memory.
MAX_COMBINATIONS = 2_000_000


class Matrix:
    """All cells of an experiment. A cell is a tuple of level indices, one per axis; -1: does not apply."""

    def __init__(self, spec: Spec, axes: Sequence[Axis], rules: ResolvedRules, cells: list[Cell]) -> None:
        self.spec = spec
        self.experiment = spec.experiment
        self.axes = tuple(axes)
        self.cells = cells
        self._raw = spec.raw
        self.rules = rules
        self._seeds = spec.experiment.seeds
        self._touching = _touching(axes, overlay.existing(spec.raw))
        self._choosers = {name: _chooser(positions) for name, positions in self._touching.items()}
        self._tables: dict[tuple[str, Cell], Any] = {}
        self._places = {cell: place for place, cell in enumerate(cells)}

    def levels(self, cell: Cell) -> dict[str, Label | None]:
        """Return the level of every factor, seed included; None where a factor does not apply.

        Args:
            cell: one of `cells`.
        """
        return {
            axis.name: axis.levels[index].label if index >= 0 else None
            for axis, index in zip(self.axes, cell, strict=True)
        }

    def seed(self, cell: Cell) -> int:
        """Return the run seed.

        Args:
            cell: one of `cells`.
        """
        return self._seeds[cell[-1]]

    def distinct(self, *tables: str) -> list[Cell]:
        """Return one cell for every distinct setting of some tables, in the order of the cells.

        Args:
            *tables: names of tables, as `model`.
        """
        choose = self.chooser(*tables)
        if not choose(self.cells[0]):
            return self.cells[:1]
        first_cells: dict[Cell, Cell] = {}
        for cell in self.cells:
            first_cells.setdefault(choose(cell), cell)
        return list(first_cells.values())

    def written(self, key: str, cell: Cell) -> str:
        """Return where the spec sets a key of a cell: the last level that does, or the key itself.

        Args:
            key: a dotted key, as `train.lr`.
            cell: one of `cells`.
        """
        path = keys.split(key)
        place = key
        for axis, index in zip(self.axes, cell, strict=True):
            overrides = axis.levels[index].overrides if index >= 0 else ()
            for other in map(keys.split, overrides):
                shared = min(len(path), len(other))
                if path[:shared] == other[:shared]:
                    place = keys.join(self._level_place(axis, index))
        return place

    def _level_place(self, axis: Axis, index: int) -> keys.Path:
        table = self._raw["factors"][axis.name]
        at = ("factors", axis.name)
        return (*at, "levels", str(axis.levels[index].label)) if "levels" in table else (*at, "values", index)

    def choice(self, table: str, cell: Cell) -> Cell:
        """Return the levels of the axes that touch a table: cells that agree in it share the table.

        Args:
            table: its name, as `model`.
            cell: one of `cells`.
        """
        return self._choosers[table](cell)

    def chooser(self, *tables: str) -> Callable[[Cell], Cell]:
        """Return a function from a cell to the levels that touch some tables; cells that agree share them.

        Args:
            *tables: their names.
        """
        return _chooser(tuple(sorted({axis for table in tables for axis in self._touching[table]})))

    @property
    def table(self) -> TableOf[Cell]:
        """A function from a table's name and a cell to the cell's settings of it, as the table's class."""
        return self._table

    def _table(self, name: str, cell: Cell) -> Any:
        key = (name, self.choice(name, cell))
        if key not in self._tables:
            self._tables[key] = self._build(name, cell)
        return self._tables[key]

    def _build(self, name: str, cell: Cell) -> Any:
        raw: Any = {table: self._raw.get(table, {}) for table in (name, *OVERLAID)}
        raw = anchor(raw, self.spec.folder)
        for position in self._touching[name]:
            axis = self.axes[position]
            if cell[position] >= 0:
                for key, value in axis.levels[cell[position]].overrides.items():
                    path = keys.split(key)
                    changes = keys.nest(path, value)
                    if holds_path(path):
                        changes = anchor(changes, partial(self._factor_folder, axis.name))
                    raw = keys.merge(raw, changes)
        settings, problems = structure(overlay.expand(raw)[name], tables()[name], name)
        if problems:
            raise SpecError(problems)
        return settings

    def _factor_folder(self, factor: str, key: keys.Path) -> Path:
        """Return the folder to which paths in a factor's levels are relative, whatever key they are of."""
        return self.spec.folder(("factors", factor))

    def pairs(self) -> list[tuple[str, int, int]]:
        """(contrast, condition, baseline) for every two cells that a contrast compares, as cell indices.

        All else is equal, seed included, but for factors that follow the contrasted one: zipped with it,
        or not applying at the baseline.
        """
        return [pair for comparison in self.rules.comparisons for pair in self._pairs_of(comparison)]

    def interventions(self, cell: Cell) -> list[tuple[Intervention, Cell | None]]:
        """Return the interventions on a cell, each with the cell that it takes from; None: no other cell.

        Args:
            cell: one of `cells`.
        """
        on_cell = []
        for settings, scope in zip(self.experiment.interventions, self.rules.scopes, strict=True):
            if _matches(cell, scope.cells):
                on_cell.append((settings, self._donor(cell, scope.donor) if scope.donor else None))
        return on_cell

    def references(self, cell: Cell) -> dict[str, Cell | None]:
        """Return the cells that `probe.against` names for one, by name; None: the model without adapter.

        Those that the spec leaves out are left out.

        Args:
            cell: one of `cells`.
        """
        named: dict[str, Cell | None] = {}
        for levels in self.rules.references:
            words = (
                f"{self.axes[axis].name}={self.axes[axis].levels[level].label}" for axis, level in levels
            )
            other = self._donor(cell, levels) if levels else None
            if other is None or other in self._places:
                named[", ".join(words) or "base"] = other
        return named

    def donor_name(self, cell: Cell, donor: Cell | None) -> str:
        """Return what an intervention takes from, in words: base, or the levels in which the donor differs.

        Args:
            cell: the cell that is changed.
            donor: the cell that is taken from, if another.
        """
        if donor is None:
            return "base"
        own_levels, other = self.levels(cell), self.levels(donor)
        differing = [name for name in own_levels if own_levels[name] != other[name]] or list(own_levels)
        return ", ".join(f"{name}={other[name]}" for name in differing if other[name] is not None)

    def _donor(self, cell: Cell, wanted: Sequence[tuple[int, int]]) -> Cell:
        levels = dict(wanted)
        for group in self.rules.zips:  # factors that vary together move together
            moved = [levels[axis] for axis in group if axis in levels]
            levels |= dict.fromkeys(group, moved[0]) if moved else {}
        return self._partner(cell, levels)

    def _pairs_of(self, comparison: ContrastPair) -> Iterator[tuple[str, int, int]]:
        axis = self.axes[comparison.axis]
        baseline = axis.levels[comparison.baseline].label
        moving = next((group for group in self.rules.zips if comparison.axis in group), (comparison.axis,))
        for level in comparison.levels:
            name = f"{axis.name}: {_plain(axis.levels[level].label)} vs {_plain(baseline)}"
            for index, cell in enumerate(self.cells):
                if cell[comparison.axis] == level:
                    partner = self._partner(cell, dict.fromkeys(moving, comparison.baseline))
                    if partner in self._places:
                        yield name, index, self._places[partner]

    def _partner(self, cell: Cell, levels: Mapping[int, int]) -> Cell:
        """The cell with other levels on some axes, and the same on all others that apply there."""
        moved = list(cell)
        for axis, level in levels.items():
            moved[axis] = level
        for axis, pattern in self.rules.conditions:
            if not _matches(moved, pattern):
                moved[axis] = -1
        return tuple(moved)


def resolve(spec: Spec) -> Matrix:
    """The matrix of a spec; SpecError names all that is wrong with its factors and rules."""
    axes, problems = read_axes(spec.raw)
    rules, more = read_rules(spec.raw, axes)
    problems += [*more, *annotate_problems(spec.experiment.annotate)]
    problems += intervention_problems(spec.experiment.interventions)
    problems += analysis_problems(spec.experiment.analysis, len(spec.experiment.seeds))
    problems += store_problems(spec.experiment.store)
    if problems:
        problems += settings_problems(overlay.expand(spec.raw))
    else:
        cells, problems = _cells(axes, rules)
    if not problems:
        matrix = Matrix(spec, axes, rules, cells)
        problems = [*_without_pairs(matrix, rules), *_unfit(matrix), *_without_donors(matrix)]
        problems += [*_without_references(matrix, rules), *_lens_twice(matrix)]
    if problems:
        raise SpecError(map(spec.place, problems))
    return matrix


def _cells(axes: Sequence[Axis], rules: ResolvedRules) -> tuple[list[Cell], list[Problem]]:
    """All combinations, less what does not apply and what is excluded."""
    first_of = {axis: min(group) for group in rules.zips for axis in group}
    moving = [axis for axis in range(len(axes)) if first_of.get(axis, axis) == axis]
    sizes = [len(axes[axis].levels) for axis in moving]
    if prod(sizes) > MAX_COMBINATIONS:
        message = f"{prod(sizes):,} combinations of levels and seeds; expected at most {MAX_COMBINATIONS:,}"
        return [], [Problem(None, "factors", message)]
    cells = list(product(*map(range, sizes)))
    if len(moving) < len(axes):
        cells = list(map(itemgetter(*(moving.index(first_of.get(i, i)) for i in range(len(axes)))), cells))
    for axis, pattern in rules.conditions:
        applies = set(_matching(cells, pattern))
        cells = [cell if cell in applies else (*cell[:axis], -1, *cell[axis + 1 :]) for cell in cells]
    if rules.conditions:
        cells = list(dict.fromkeys(cells))
    removed = [_matching(cells, pattern) for pattern in rules.exclude]
    kept = {cell for pattern in rules.include for cell in _matching(cells, pattern)}
    gone = set().union(*removed) - kept
    left = [cell for cell in cells if cell not in gone] if gone else cells
    if left:
        return left, []
    counts = ", ".join(f"exclude[{i}] removes {len(hits)}" for i, hits in enumerate(removed))
    return [], [Problem(None, "rules.exclude", f"no cell is left of {len(cells)}: {counts}")]


def _matches(cell: Sequence[int], pattern: Pattern) -> bool:
    return all(cell[axis] in levels for axis, levels in pattern)


def _matching(cells: list[Cell], pattern: Pattern) -> list[Cell]:
    """The cells that match, narrowed one axis at a time; -1 is in no pattern."""
    for axis, levels in pattern:
        cells = [cell for cell in cells if cell[axis] in levels]
    return cells


def _without_pairs(matrix: Matrix, rules: ResolvedRules) -> Iterator[Problem]:
    for index, comparison in enumerate(rules.comparisons):
        if next(matrix._pairs_of(comparison), None) is None:
            name = matrix.axes[comparison.axis].name
            yield Problem(None, f"contrasts[{index}]", f"no two cells differ in `{name}` alone")


def _without_donors(matrix: Matrix) -> Iterator[Problem]:
    """Interventions that no cell has, and those whose donors or positions are none of some cell."""
    experiment = matrix.experiment
    if not experiment.interventions:
        return
    cells, used = set(matrix.cells), set()
    wrong: dict[str, tuple[str, str]] = {}
    for cell in matrix.cells:
        for settings, donor in matrix.interventions(cell):
            used.add(settings.name)
            if donor is not None and donor not in cells:
                name = matrix.donor_name(cell, donor)
                message = f"no other cell equal in all but {name}; name the cells that have one by `cells`"
                wrong.setdefault(settings.name, ("donor", message))
            elif donor is not None and matrix.table("model", donor) != matrix.table("model", cell):
                wrong.setdefault(settings.name, ("donor", "the donor has another model than the cell"))
            if settings.within_explanation and not matrix.table("target", cell).explains_first:
                message = "a cell has no explanation before its label; name those that have one by `cells`"
                wrong.setdefault(settings.name, ("positions", message))
    for index, settings in enumerate(experiment.interventions):
        if settings.name not in used:
            wrong[settings.name] = ("cells", "no cell has these levels")
        if settings.name in wrong:
            key, message = wrong[settings.name]
            yield Problem(None, f"interventions[{index}].{key}", message)


def _without_references(matrix: Matrix, rules: ResolvedRules) -> Iterator[Problem]:
    """What `probe.against` names and no cell has, or has with another model."""
    for index, levels in enumerate(rules.references):
        others = [(cell, matrix._donor(cell, levels)) for cell in matrix.cells] if levels else []
        pairs = [(cell, other) for cell, other in others if other in matrix._places]
        if levels and not pairs:
            message = "no cell has these levels and equals another in all else"
            yield Problem(None, f"probe.against[{index}]", message)
        if any(matrix.table("model", cell) != matrix.table("model", other) for cell, other in pairs):
            yield Problem(None, f"probe.against[{index}]", "expected levels that leave the model as it is")


def _lens_twice(matrix: Matrix) -> Iterator[Problem]:
    """A factor of the name of the dim that several lenses of one cell lie along."""
    several = (cell for cell in matrix.distinct("probe") if len(matrix.table("probe", cell).lenses) > 1)
    if any(axis.name == LENS for axis in matrix.axes) and any(several):
        message = "the lenses of a list in probe.lens lie along a dim of this name; expected another factor"
        yield Problem(None, f"factors.{LENS}", message)


def _unfit(matrix: Matrix) -> Iterator[Problem]:
    """What is wrong with the cells' tables beyond their types, each distinct one looked at once."""
    for name, problems in RULES.items():
        for cell in matrix.distinct(name):
            for problem in problems(matrix.table(name, cell)):
                yield attrs.evolve(problem, key=matrix.written(problem.key, cell))
    for cell in matrix.distinct("prompt", "data", "evaluate"):
        prompt, data, test = (
            matrix.table("prompt", cell), matrix.table("data", cell), matrix.table("evaluate", cell)
        )  # fmt: skip
        wrong = [*prompt_problems(prompt, data, "prompt")]
        if not wrong and (test.prompt or test.data):
            tested = "evaluate.prompt" if test.prompt else "prompt"
            wrong += prompt_problems(test.prompt or prompt, test.data or data, tested)
        for problem in wrong:
            yield attrs.evolve(problem, key=matrix.written(problem.key, cell))


def _touching(axes: Sequence[Axis], overlaid: set[str]) -> dict[str, tuple[int, ...]]:
    """Which axes set keys of each table (and `seed`)."""
    touching: dict[str, set[int]] = {name: set() for name in (*TABLE_STAGES, "seed")}
    overlaid = set(overlaid)
    for position, axis in enumerate(axes):
        for path in {key for level in axis.levels for key in level.overrides}:
            touching[str(keys.split(path)[0])].add(position)
            overlaid |= {table for table in OVERLAID if path.startswith(f"evaluate.{table}.")}
    for table in overlaid:  # whatever changes it changes the table that lies over it
        touching["evaluate"] |= touching[table]
    return {name: tuple(sorted(positions)) for name, positions in touching.items()}


def _chooser(positions: tuple[int, ...]) -> Callable[[Cell], Cell]:
    if len(positions) > 1:
        return itemgetter(*positions)
    if positions:
        (position,) = positions
        return lambda cell: (cell[position],)
    return lambda cell: ()


def _plain(label: Label) -> str:
    return label if isinstance(label, str) else spell(label)
