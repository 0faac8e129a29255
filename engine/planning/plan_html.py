"""A plan in a notebook: factors and levels, the states of stages, and a square for each cell."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from engine.planning.levels import describe
from engine.quantities import count
from specs.common.markup import Markup, counted, element, lines, quiet, state, table
from specs.tables.experiment import STAGES
from store.ledger.levels import level_text

if TYPE_CHECKING:
    from engine.planning.plan import Plan, PlannedCell

MOST_CONDITIONS, MOST_FAILURES = 60, 20
_NAMES = {"cached": "done"}


def plan_html(plan: Plan) -> str:
    """Give a plan as HTML."""
    name = plan.matrix.experiment.name
    factors = [
        (axis.name, str(len(axis.levels)), ", ".join(level_text(level.label) for level in axis.levels))
        for axis in plan.matrix.axes
    ]
    stages = [
        (stage, counted(_NAMES.get(value, value) for value in plan.states[stage].values()))
        for stage in STAGES
        if plan.states[stage]
    ]
    return element(
        "div",
        element("p", element("b", name), f": {count(len(plan.cells), 'cell')} → {plan.root}"),
        table(("factor", "levels", ""), factors),
        table(("stage", "runs"), stages),
        state_matrix((plan.levels(cell), _state(plan, cell), _told(plan, cell)) for cell in plan.cells),
    )


def state_matrix(cells: Iterable[tuple[dict[str, Any], str, str]]) -> Markup:
    """Give the state of every cell, conditions by seeds.

    Args:
        cells: the levels of each, its state, and what is said of it.
    """
    rows: dict[str, dict[str, Markup]] = {}
    for levels, name, said in cells:
        condition = describe({factor: level for factor, level in levels.items() if factor != "seed"})
        rows.setdefault(condition or "all", {})[level_text(levels.get("seed", ""))] = state(name, said)
    seeds = list(dict.fromkeys(seed for row in rows.values() for seed in row))
    header = ["condition", *(f"seed {seed}" if seed else "cell" for seed in seeds)]
    shown = list(rows.items())[:MOST_CONDITIONS]
    body = [(condition, *(row.get(seed, "") for seed in seeds)) for condition, row in shown]
    rest = len(rows) - len(shown)
    more = [quiet(f"and {count(rest, 'condition')} more")] if rest else []
    return element("div", table(header, body), *more)


def failure_table(failures: Iterable[tuple[str, str, str]], title: str = "failed") -> Markup:
    """Give what failed.

    Args:
        failures: which cell, which stage, and what was said.
        title: of the column of cells.
    """
    rows = [(cell, stage, lines(error)) for cell, stage, error in failures]
    rest = len(rows) - MOST_FAILURES
    more = [quiet(f"and {count(rest, 'failure')} more")] if rest > 0 else []
    return element("div", table((title, "stage", "error"), rows[:MOST_FAILURES]), *more)


def _state(plan: Plan, cell: PlannedCell) -> str:
    whole = plan.state(cell)
    return _NAMES.get(whole, whole)


def _told(plan: Plan, cell: PlannedCell) -> str:
    """Say the state of each stage of a cell, for a pointer."""
    states = plan.stage_states(cell)
    return ", ".join(f"{stage} {_NAMES.get(value, value)}" for stage, value in states.items())
