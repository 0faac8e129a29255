"""Plans and states as tables for a person and as JSON for a program."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
from rich.text import Text

from engine.cli.cell_tables import cell_table, state_text
from engine.cli.grids import Column, Grid
from engine.cli.output import FORMAT
from engine.cli.plan_costs import cost_lines, costs_json, hours
from engine.planning.cost import Cost
from engine.planning.data_labels import KEY, OF_DATA
from engine.planning.estimate import estimate
from engine.planning.places import misplaced
from engine.planning.plan import STATES, Plan, PlannedCell
from engine.planning.warnings import plan_warnings
from engine.quantities import count, si
from engine.terminal import joined, styled
from specs.tables.experiment import STAGES
from specs.toml.paths import near_file
from store.ledger.levels import level_text

MAX_LEVELS = 12  # levels listed in a table before it is cut


def plan_tables(
    plan: Plan,
    *,
    cells: bool,
    exact: bool = False,
    shown: Sequence[PlannedCell] | None = None,
    none: str = "",
) -> Iterator[Grid | Text | str]:
    """Yield the factors, the stages with their states and costs, and with `cells` every cell.

    exact: count the memory of trainings, too. shown: list these cells alone. none: what
    is said where there are none.
    """
    yield _factor_table(plan)
    costs = estimate(plan)
    yield _stage_table(plan, costs)
    yield from cost_lines(plan, costs)
    if exact:
        from engine.cli.exact_memory import exact_memory

        yield from (counted.line() for counted in exact_memory(plan))
    if plan.matrix.spec.arguments.get(KEY) == OF_DATA:
        yield f"labels, as the data have them: {', '.join(plan.matrix.experiment.evaluate.labels)}"
    for path in plan.missing():
        near = near_file(Path(path))
        hint = f'; did you mean "{near}"?' if near else ""
        if misplaced_file := misplaced(plan, path):
            hint = f"; paths are relative to the file in which they stand, and there is {misplaced_file}"
        yield f"not there yet: {path} (`engine execute` needs it; `engine annotate` makes such files){hint}"
    for path in plan.remembered:
        if Path(path).exists():
            yield f"changed: {path} (it gives the same examples, so nothing is made anew)"
        else:
            yield f"not there any more: {path} (its content is as the store noted it)"
    pairs = Counter(name for name, _, _ in plan.matrix.pairs())
    for name, number in pairs.items():
        yield f"contrast  {name}  ({number} pairs)"
    for warning in plan_warnings(plan):
        yield styled(f"warning: {warning}", "yellow", lines=True)
    if command := plan.matrix.experiment.executor.notify:
        yield styled(
            f"executor.notify is set: `engine execute` ends by running {command!r} in a shell.", "red"
        )
    for model in plan.trusted():
        yield styled(f"model.trust_remote_code is on: {model}'s own code will run here.", "red")
    if cells:
        chosen = plan.cells if shown is None else shown
        listed = ((cell.index, plan.levels(cell), plan.stage_states(cell)) for cell in chosen)
        yield cell_table(listed) if chosen else f"{plan.matrix.experiment.name}: {none}"


def _factor_table(plan: Plan) -> Grid:
    columns = [Column("factor", "name"), Column("levels"), Column("", "words")]
    title = f"{plan.matrix.experiment.name}: {count(len(plan.cells), 'cell')} → {plan.root}"
    grid = Grid(title, columns)
    for axis in plan.matrix.axes:
        names = [level_text(level.label) for level in axis.levels]
        shown = ", ".join(names[:MAX_LEVELS]) + (", …" if len(names) > MAX_LEVELS else "")
        grid.add(axis.name, str(len(names)), shown)
    return grid


def _stage_table(plan: Plan, costs: dict[str, Cost] | None) -> Grid:
    if costs and not any(cost != Cost() for cost in costs.values()):  # nothing is left to run
        costs = None
    timed = bool(costs and any(cost.seconds for cost in costs.values()))
    titles = ["tokens", "FLOPs", "peak memory", "store", *["GPU time"] * timed] if costs else []
    columns = [Column("stage", "name"), Column("runs", "words"), *map(Column, titles)]
    table = Grid("stages and estimates of what is left (cells of one key share one run)", columns)
    counts = plan.counts()
    for stage in (stage for stage in STAGES if counts[stage]):
        numbers = _cost_cells(costs.get(stage), timed=timed) if costs else []
        table.add(stage, _states(counts[stage]), *numbers)
    table.part()
    cost_cells = _cost_cells(sum(costs.values(), Cost()), timed=timed) if costs else []
    table.add("total", _states(sum(counts.values(), Counter())), *cost_cells)
    return table


def _states(counts: Counter[str]) -> Text:
    parts = (joined([f"{counts[state]:,} ", state_text(state)]) for state in STATES if counts[state])
    return joined(parts, ", ")


def _cost_cells(cost: Cost | None, *, timed: bool) -> list[str]:
    if cost is None or cost == Cost():
        return [""] * (4 + timed)
    shown = [si(cost.tokens), si(cost.flops), si(cost.memory, "B"), si(cost.stored, "B")]
    return shown + [hours(cost.seconds)] * timed


def plan_json(
    plan: Plan, *, cells: bool, exact: bool = False, shown: Sequence[PlannedCell] | None = None
) -> dict[str, Any]:
    """Give the plan as JSON values: factors, states, costs and, with `cells`, every cell's keys."""
    costs = estimate(plan)
    content: dict[str, Any] = {
        "format": FORMAT,
        "name": plan.matrix.experiment.name,
        "store": str(plan.root),
        "cells": len(plan.cells),
        "factors": {axis.name: [level.label for level in axis.levels] for axis in plan.matrix.axes},
        "stages": {
            stage: {state: counts[state] for state in STATES} for stage, counts in plan.counts().items()
        },
        "missing": plan.missing(),
        "warnings": plan_warnings(plan),
        **costs_json(plan, costs),
    }
    if exact:
        from engine.cli.exact_memory import exact_memory

        content["exact"] = [counted.as_json() for counted in exact_memory(plan)]
    if cells:
        content["matrix"] = [
            {
                "levels": plan.levels(cell),
                "keys": cell.keys,
                "state": plan.state(cell),
            }
            for cell in (plan.cells if shown is None else shown)
        ]
    return content


def plan_rows(plan: Plan, *, cells: bool, shown: Sequence[PlannedCell]) -> Iterator[dict[str, Any]]:
    """Yield a row per stage: states and estimates; with `cells` a row per cell: levels and states."""
    if cells:
        for cell in shown:
            yield {"cell": cell.index + 1, **plan.levels(cell), **plan.stage_states(cell)}
        return
    estimates = costs_json(plan, estimate(plan))["estimate"] or {}
    for stage, counts in plan.counts().items():
        if counts:
            yield {"stage": stage, **{state: counts[state] for state in STATES}, **estimates.get(stage, {})}


def resolved(plan: Plan) -> str:
    """Give the spec as TOML with every default filled in; a comment names each key that is unset.

    Its paths are those of a file in the current folder.
    """
    import tomlkit

    from specs.relocation import from_current_folder

    document = tomlkit.document()
    _fill(document, from_current_folder(plan.matrix))
    return tomlkit.dumps(document)


def _fill(table: Any, settings: Any) -> None:
    """Put all keys of a table of the spec into a TOML table; tables go last, as TOML wants them."""
    import tomlkit

    from specs.toml.convert import unstructure

    plain = unstructure(settings)
    values = {field.name: getattr(settings, field.name) for field in attrs.fields(type(settings))}
    for name, value in sorted(values.items(), key=lambda item: isinstance(plain.get(item[0]), dict)):
        if value is None:
            table.add(tomlkit.comment(f"{name} is unset"))
        elif attrs.has(type(value)):
            inner = tomlkit.table()
            _fill(inner, value)
            table[name] = inner
        else:
            table[name] = plain[name]
