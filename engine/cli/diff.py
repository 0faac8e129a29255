"""What two specs share: which stage results one can take from the other, and what differs where not."""

from __future__ import annotations

from typing import Any

import attrs
from attrs import frozen
from rich.table import Table

from engine.planning.plan import Plan, PlannedCell
from engine.quantities import count
from engine.terminal import joined
from specs.tables.experiment import STAGES, TABLE_STAGES

MAX_REASONS = 6


@frozen
class SpecComparison:
    """Cells of one plan compared with those of another."""

    shared: list[dict[str, Any]]
    changed: list[dict[str, Any]]  # levels, stages whose keys differ, and the settings behind that
    added: list[dict[str, Any]]  # only in the first plan
    removed: list[dict[str, Any]]  # only in the other

    def as_json(self) -> dict[str, Any]:
        """Give the comparison as JSON values."""
        return attrs.asdict(self)

    def table(self) -> Table:
        """Give the comparison as a table."""
        table = Table(
            title=f"{count(len(self.shared), 'cell')} shared, {len(self.changed)} changed, "
            f"{len(self.added)} only here, {len(self.removed)} only there"
        )
        for column in ("cell", "what", "stages", "why"):
            table.add_column(column)
        for entry in self.changed:
            table.add_row(_name(entry), "changed", ", ".join(entry["stages"]), joined(entry["why"], "\n"))
        for what, entries in (("only here", self.added), ("only there", self.removed)):
            for entry in entries:
                table.add_row(_name(entry), what, "", "")
        return table


def _name(entry: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in entry["levels"].items())


def compare(here: Plan, other_plan: Plan) -> SpecComparison:
    """Match cells by all stage keys first, then by levels; say which settings part the latter."""
    known = {_signature(cell): cell for cell in other_plan.cells}
    by_levels = {_levels(other_plan, cell): cell for cell in other_plan.cells}
    shared, changed, added = [], [], []
    met: set[int] = set()
    for cell in here.cells:
        entry: dict[str, Any] = {"levels": here.levels(cell)}
        twin = known.get(_signature(cell))
        if twin is not None:
            shared.append(entry)
            met.add(twin.index)
            continue
        other = by_levels.get(_levels(here, cell))
        if other is None:
            added.append(entry)
            continue
        met.add(other.index)
        stages = [stage for stage in STAGES if cell.keys.get(stage) != other.keys.get(stage)]
        changed.append(entry | {"stages": stages, "why": _reasons(here, cell, other_plan, other)})
    removed = [{"levels": other_plan.levels(cell)} for cell in other_plan.cells if cell.index not in met]
    return SpecComparison(shared, changed, added, removed)


def _signature(cell: PlannedCell) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(cell.keys.items()))


def _levels(plan: Plan, cell: PlannedCell) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, repr(level)) for name, level in plan.levels(cell).items()))


def _reasons(here: Plan, cell: PlannedCell, other_plan: Plan, other: PlannedCell) -> list[str]:
    reasons = []
    for table in TABLE_STAGES:
        ours, theirs = here.matrix.table(table, cell.choice), other_plan.matrix.table(table, other.choice)
        for field in attrs.fields(type(ours)):
            mine, yours = getattr(ours, field.name), getattr(theirs, field.name)
            if mine != yours and field.metadata.get("stages") != ():
                reasons.append(f"{table}.{field.name}: {mine!r} here, {yours!r} there")
    seeds = here.matrix.seed(cell.choice), other_plan.matrix.seed(other.choice)
    if seeds[0] != seeds[1]:
        reasons.append(f"seed: {seeds[0]} here, {seeds[1]} there")
    return reasons[:MAX_REASONS] or ["the content of the model or data files"]
