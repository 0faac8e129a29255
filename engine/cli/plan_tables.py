"""Plans and states as tables for a person and as JSON for a program."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
from rich.table import Table
from rich.text import Text

from engine.cli.plan_costs import cost_lines, costs_json, hours
from engine.planning.estimate import Cost, estimate
from engine.planning.plan import STATES, Plan, describe
from engine.planning.warnings import plan_warnings
from engine.quantities import count, si
from engine.terminal import joined, styled
from specs.tables.experiment import STAGES
from specs.toml.paths import near_file
from store import Ledger, StoreError, cells, read_manifests
from store.backend.locate import place_of
from store.backend.location import Root
from store.ledger.lost_records import check_data, check_records
from store.ledger.manifests import key_states, unnamed
from store.ledger.overview import fetch_records, overview
from store.ledger.version import check_store

STATE_STYLES = {"cached": "green", "done": "green", "pending": "", "failed": "red", "running": "yellow"}
MAX_LEVELS = 12  # levels listed in a table before it is cut


def plan_tables(plan: Plan, *, cells: bool, exact: bool = False) -> Iterator[Table | Text | str]:
    """Yield the factors, the stages with their states and costs, and with `cells` every cell.

    exact: count the memory of trainings, too.
    """
    yield _factor_table(plan)
    costs = estimate(plan)
    yield _stage_table(plan, costs)
    yield from cost_lines(plan, costs)
    if exact:
        from engine.cli.exact_memory import exact_memory

        yield from (counted.line() for counted in exact_memory(plan))
    for path in plan.missing():
        near = near_file(Path(path))
        hint = f'; did you mean "{near}"?' if near else ""
        yield f"not there yet: {path} (`engine execute` needs it; `engine annotate` makes such files){hint}"
    for path in plan.remembered:
        yield f"not there any more: {path} (its content is as the store noted it)"
    pairs = Counter(name for name, _, _ in plan.matrix.pairs())
    for name, number in pairs.items():
        yield f"contrast  {name}  ({number} pairs)"
    for warning in plan_warnings(plan):
        yield styled(f"warning: {warning}", "yellow")
    for model in plan.trusted():
        yield styled(f"model.trust_remote_code is on: {model}'s own code will run here.", "red")
    if cells:
        yield _cell_table(plan)


def _factor_table(plan: Plan) -> Table:
    table = Table(title=f"{plan.matrix.experiment.name}: {count(len(plan.cells), 'cell')} → {plan.root}")
    table.add_column("factor")
    table.add_column("levels", justify="right")
    table.add_column("")
    for axis in plan.matrix.axes:
        names = [str(level.label) for level in axis.levels]
        shown = ", ".join(names[:MAX_LEVELS]) + (", …" if len(names) > MAX_LEVELS else "")
        table.add_row(axis.name, str(len(names)), shown)
    return table


def _stage_table(plan: Plan, costs: dict[str, Cost] | None) -> Table:
    table = Table(title="stages and estimates of what is left (cells of one key share one run)")
    table.add_column("stage")
    table.add_column("runs")
    timed = bool(costs and any(cost.seconds for cost in costs.values()))
    for column in ("tokens", "FLOPs", "peak memory", "store", *["GPU time"] * timed):
        table.add_column(column, justify="right")
    counts = plan.counts()
    for stage in (stage for stage in STAGES if counts[stage]):
        table.add_row(
            stage, _states(counts[stage]), *_cost_cells(costs.get(stage) if costs else None, timed=timed)
        )
    if costs:
        table.add_section()
        total = sum(costs.values(), Cost())
        cost_cells = _cost_cells(total, timed=timed)
        table.add_row("total", _states(sum(counts.values(), Counter())), *cost_cells)
    return table


def _states(counts: Counter[str]) -> Text:
    parts = (joined([f"{counts[state]:,} ", _styled(state)]) for state in STATES if counts[state])
    return joined(parts, ", ")


def _cost_cells(cost: Cost | None, *, timed: bool) -> list[str]:
    if cost is None or cost == Cost():
        return [""] * (4 + timed)
    shown = [si(cost.tokens), si(cost.flops), si(cost.memory, "B"), si(cost.stored, "B")]
    return shown + [hours(cost.seconds)] * timed


def _cell_table(plan: Plan) -> Table:
    table = Table(title="cells")
    table.add_column("cell", justify="right")
    for axis in plan.matrix.axes:
        table.add_column(axis.name)
    for stage in STAGES:
        table.add_column(stage)
    for cell in plan.cells:
        levels = ["-" if level is None else str(level) for level in plan.levels(cell).values()]
        states = [
            _styled(plan.states[stage][cell.keys[stage]]) if stage in cell.keys else styled("off")
            for stage in STAGES
        ]
        table.add_row(str(cell.index + 1), *levels, *states)
    return table


def _styled(state: str) -> Text:
    return styled(state, STATE_STYLES[state])


def plan_json(plan: Plan, *, cells: bool, exact: bool = False) -> dict[str, Any]:
    """Give the plan as JSON values: factors, states, costs and, with `cells`, every cell's keys."""
    costs = estimate(plan)
    content: dict[str, Any] = {
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
            for cell in plan.cells
        ]
    return content


def resolved(plan: Plan) -> str:
    """Give the spec as TOML with every default filled in; a comment names each key that is unset."""
    import tomlkit

    document = tomlkit.document()
    _fill(document, plan.matrix.experiment)
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


# Looking for signatures reads what the cells hold; above this many cells the report does it.
SCREENED_CELLS = 500


def _signatures(root: Root, experiment: str, evaluated: int) -> Iterator[Text]:
    """Yield the failure signatures that are found among an experiment's cells."""
    if not 0 < evaluated <= SCREENED_CELLS:
        return
    from store import open_store
    from store.analysis import detect_failures

    tree = open_store(root, experiment).children[experiment]
    if "summary" not in tree.children:
        return
    failures = detect_failures(tree)
    for signature in failures["signature"].values:
        hits = failures.sel(signature=signature)
        cells = [str(text) for text in hits["sentence"].values[hits["found"].values]]
        if cells:
            yield styled(
                f"{signature} in {len(cells)} of {count(hits.sizes['cell'], 'cell')}; the first: {cells[0]}",
                "yellow",
            )


def status_tables(
    root: Root, plan: Plan | None = None, *, tracebacks: bool = False
) -> Iterator[Table | Text | str]:
    """Yield what is done, running and failed, with the errors: in all of a store, or of a plan."""
    root = overview(root)
    if plan is None:
        check_store(root)
    manifests = read_manifests(root)
    if not manifests and (trouble := unnamed(place_of(root))):
        raise StoreError(trouble)
    if plan is not None:
        name = plan.matrix.experiment.name
        if name not in manifests:
            states = {stage: by_key for stage, by_key in plan.states.items() if by_key}
            yield _counts(f"{name}: {count(len(plan.cells), 'cell')} for {root}", states)
        manifests = {experiment: manifest for experiment, manifest in manifests.items() if experiment == name}
    if not manifests:
        yield f"{root}: nothing has been executed yet"
    for name, manifest in manifests.items():
        yield from _status(Ledger(root), name, manifest, tracebacks=tracebacks)


def _counts(title: str, states: dict[str, dict[str, str]]) -> Table:
    """Give how many runs of each stage are in each state."""
    table = Table(title=title)
    table.add_column("stage")
    shown = ("done", "running", "failed", "pending")
    for state in shown:
        table.add_column(state, justify="right", style=STATE_STYLES[state])
    for stage, by_key in states.items():
        counts = Counter("done" if state == "cached" else state for state in by_key.values())
        if by_key:
            table.add_row(stage, *(str(counts[state]) for state in shown))
    return table


def _status(
    ledger: Ledger, name: str, manifest: dict[str, Any], *, tracebacks: bool
) -> Iterator[Table | Text | str]:
    root, listed = ledger.place, cells(ledger.place, name)
    done = [(s, cell["keys"][s]) for cell in listed for s, state in cell["status"].items() if state == "done"]
    if len(listed) <= SCREENED_CELLS:  # as `_signatures` reads them
        fetch_records(root, done)
    check_data(ledger, manifest)
    check_records(ledger, (cell for cell in listed if {*cell["status"].values()} - {"done"}))
    states = {"data": key_states(ledger, "data", manifest.get("data", ()))}
    for cell in listed:
        for stage, key in cell["keys"].items():
            states.setdefault(stage, {})[key] = cell["status"][stage]
    yield _counts(f"{name}: {count(len(listed), 'cell')} in {root}", states)
    probed = {key for key, state in states.get("probe", {}).items() if state == "done"}
    backends = {record["attributes"]["backend"] for record in ledger.records("probe", probed).values()}
    if backends:
        yield f"probe backend: {', '.join(sorted(map(str, backends)))}"
    yield from _signatures(root, name, sum(cell["status"].get("evaluate") == "done" for cell in listed))
    yield f"engine {manifest['packages']['ablation-engine']}, git {manifest['git'] or 'unknown'}"
    failed = [(stage, key) for stage, by_key in states.items() for key in by_key if by_key[key] == "failed"]
    for stage, key in failed:
        record = ledger.record(stage, key, "failed")
        # First what happened, for a person who reads no further.
        error = styled(f"failed: {record.get('error', '')}", "red", lines=True)
        yield joined([error, styled(f" ({stage} {key}, {describe(record['levels'])})", "red")])
        if tracebacks:
            yield styled(record["traceback"].rstrip(), lines=True)
    if failed and not tracebacks:
        yield "--traceback shows where in the code"
