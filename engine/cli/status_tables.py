"""What is done, running and failed, in all of a store or of a plan: for a person and for a program."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import frozen
from rich.text import Text

from engine.cli.cell_tables import cell_table, no_cell
from engine.cli.grids import Grid, varying
from engine.cli.output import FORMAT
from engine.cli.progress_lines import Line, drawn
from engine.planning.levels import describe
from engine.planning.plan import Plan
from engine.quantities import count
from engine.running.at_work import STAGE
from engine.running.run_log import under_way
from engine.terminal import joined, styled
from store import Ledger, StoreError, read_manifests
from store.backend.locate import place_of
from store.backend.location import Place, Root
from store.ledger.lost_records import check_data, check_records
from store.ledger.manifests import key_states, unnamed, with_status
from store.ledger.overview import fetch_records, overview
from store.ledger.version import check_store

Facts = dict[str, Any]
STATES = ("done", "running", "failed", "pending")
# Looking for signatures reads what the cells hold; above this many cells the report does it.
SCREENED_CELLS = 500
WIDE = 120  # characters of a line on what is at work


@frozen
class Asked:
    """Cells that are to be listed, and the states by which they were asked for."""

    chosen: Callable[[Facts], bool]
    failed: bool = False
    pending: bool = False


def status_facts(root: Root, plan: Plan | None = None) -> Facts:
    """Give the state of every experiment of a store, or of a plan's."""
    root = overview(root)
    if plan is None:
        check_store(root)
    manifests = read_manifests(root)
    if not manifests and (trouble := unnamed(place_of(root))):
        raise StoreError(trouble)
    experiments = []
    if plan is not None:
        name = plan.matrix.experiment.name
        if name not in manifests:
            experiments.append(_planned(name, plan))
        # What the spec consists of, whatever was executed last.
        own = {"cells": plan.listed(), "data": plan.data_keys()}
        manifests = {name: manifests[name] | own} if name in manifests else {}
    experiments += [_executed(Ledger(root), name, manifest) for name, manifest in manifests.items()]
    return {"format": FORMAT, "store": str(root), "experiments": experiments}


def status_rows(facts: Facts, chosen: Callable[[Facts], bool]) -> Iterator[Facts]:
    """Yield a row per chosen cell: its levels, the state of each stage, and what failed ones said."""
    for experiment in facts["experiments"]:
        for cell in filter(chosen, experiment["cells"]):
            errors = "; ".join(f"{stage}: {error}" for stage, error in cell["errors"].items())
            yield {
                "experiment": experiment["name"],
                "cell": cell["cell"],
                **cell["levels"],
                "state": cell["state"],
                **cell["stages"],
                "error": errors,
            }


def status_tables(
    facts: Facts, *, tracebacks: bool = False, asked: Asked | None = None, width: int = 80
) -> Iterator[Grid | Text | str]:
    """Yield what is done, running and failed, with the errors.

    asked: cells that are listed, too. width: of the lines on what is at work.
    """
    if not any(experiment["executed"] for experiment in facts["experiments"]):
        for experiment in facts["experiments"]:
            total = count(len(experiment["cells"]), "cell")
            yield _counts(f"{experiment['name']}: {total} for {facts['store']}", experiment["stages"])
            yield from _listed(experiment, asked)
        yield f"{facts['store']}: nothing has been executed yet"
        return
    for experiment in facts["experiments"]:
        total = count(len(experiment["cells"]), "cell")
        yield _counts(f"{experiment['name']}: {total} in {facts['store']}", experiment["stages"])
        yield from _at_work(experiment, width)
        yield from _listed(experiment, asked)
        yield from _notes(experiment)
        for failure in experiment["failures"]:
            # First what happened, for a person who reads no further.
            error = styled(f"failed: {failure['error']}", "red", lines=True)
            where = f" ({failure['stage']} {failure['key']}, {describe(failure['levels'])})"
            yield joined([error, styled(where, "red")])
            if tracebacks:
                yield styled(failure["traceback"].rstrip(), lines=True)
        if experiment["failures"] and not tracebacks:
            yield "--traceback shows where in the code"


def _listed(experiment: Facts, asked: Asked | None) -> Iterator[Grid | str]:
    if asked is None:
        return
    listed = [cell for cell in experiment["cells"] if asked.chosen(cell)]
    if listed:
        yield cell_table((cell["cell"] - 1, cell["levels"], cell["stages"]) for cell in listed)
    else:
        of_data = asked.failed and not asked.pending and experiment["failures"]
        none = no_cell(failed=asked.failed, pending=asked.pending)
        yield f"{experiment['name']}: {'no stage of these cells failed' if of_data else none}"


def _at_work(experiment: Facts, width: int) -> Iterator[Text]:
    """Yield a line for each stage that an execution says to be at work at."""
    names, _ = varying([cell["levels"] for cell in experiment["cells"]])
    lines = []
    for event in experiment["at_work"]:
        name = describe({factor: event["levels"][factor] for factor in names if factor in event["levels"]})
        number = f"{event['cell']}/{len(experiment['cells'])}"
        lines.append(Line(number, name, event["stage"], event["done"], event["total"], event["text"]))
    yield from drawn(lines, min(width, WIDE)) if lines else ()


def _notes(experiment: Facts) -> Iterator[Text | str]:
    if experiment["probe_backends"]:
        yield f"probe backend: {', '.join(experiment['probe_backends'])}"
    for failure in experiment["signatures"]:
        of = count(failure["of"], "cell")
        yield styled(
            f"{failure['signature']} in {failure['cells']} of {of}; the first: {failure['first']}", "yellow"
        )
    yield f"engine {experiment['engine']}, git {experiment['git'] or 'unknown'}"


def _counts(title: str, stages: Mapping[str, Mapping[str, int]]) -> Grid:
    """Give how many runs of each stage are in each state."""
    grid = Grid.of(title, ["stage"], STATES)
    for stage, counts in stages.items():
        grid.add(stage, *(str(counts[state]) for state in STATES))
    return grid


def _counted(states: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, int]]:
    """Count the distinct runs of each stage by state."""
    counted = {}
    for stage, by_key in states.items():
        counts = Counter("done" if state == "cached" else state for state in by_key.values())
        if by_key:
            counted[stage] = {state: counts[state] for state in STATES}
    return counted


def cell_state(stages: Mapping[str, str]) -> str:
    """Give the state of a cell: that of the stage that keeps it from being done."""
    known = set(stages.values())
    return next((state for state in ("failed", "running", "pending") if state in known), "done")


def _planned(name: str, plan: Plan) -> Facts:
    """Give the state of a plan that was never executed; some of its stages may be done by others."""
    listed = []
    for cell in plan.cells:
        states = {
            stage: "done" if state == "cached" else state for stage, state in plan.stage_states(cell).items()
        }
        listed.append(_cell(cell.index, plan.levels(cell), states, {}))
    return {
        "name": name,
        "executed": False,
        "stages": _counted({stage: by_key for stage, by_key in plan.states.items() if by_key}),
        "cells": listed,
        "failures": [],
        "at_work": [],
        "probe_backends": [],
        "signatures": [],
        "engine": None,
        "git": None,
    }


def _cell(
    index: int, levels: Mapping[str, Any], states: Mapping[str, str], errors: Mapping[str, str]
) -> Facts:
    return {
        "cell": index + 1,
        "levels": dict(levels),
        "state": cell_state(states),
        "stages": dict(states),
        "errors": dict(errors),
    }


def _executed(ledger: Ledger, name: str, manifest: dict[str, Any]) -> Facts:
    root, listed = ledger.place, with_status(ledger, manifest["cells"])
    done = [(s, cell["keys"][s]) for cell in listed for s, state in cell["status"].items() if state == "done"]
    if len(listed) <= SCREENED_CELLS:  # as `_signatures` reads them
        fetch_records(root, done)
    check_data(ledger, manifest)
    check_records(ledger, (cell for cell in listed if {*cell["status"].values()} - {"done"}))
    states = {"data": key_states(ledger, "data", manifest.get("data", ()))}
    for cell in listed:
        for stage, key in cell["keys"].items():
            states.setdefault(stage, {})[key] = cell["status"][stage]
    probed = {key for key, state in states.get("probe", {}).items() if state == "done"}
    backends = {record["attributes"]["backend"] for record in ledger.records("probe", probed).values()}
    failed = [(stage, key) for stage, by_key in states.items() for key in by_key if by_key[key] == "failed"]
    records = {(stage, key): ledger.record(stage, key, "failed") for stage, key in failed}
    evaluated = sum(cell["status"].get("evaluate") == "done" for cell in listed)
    return {
        "name": name,
        "executed": True,
        "stages": _counted(states),
        "cells": [
            _cell(number, cell["levels"], cell["status"], _errors(cell["keys"], records))
            for number, cell in enumerate(listed)
        ],
        "failures": [
            {
                "stage": stage,
                "key": key,
                "levels": record["levels"],
                "error": str(record.get("error", "")),
                "traceback": str(record.get("traceback", "")),
            }
            for (stage, key), record in records.items()
        ],
        "at_work": under_way(root, name, ledger.running(STAGE)),
        "probe_backends": sorted(map(str, backends)),
        "signatures": list(_signatures(root, name, evaluated)),
        "engine": manifest["packages"]["ablation-engine"],
        "git": manifest["git"],
    }


def _errors(keys: Mapping[str, str], records: Mapping[tuple[str, str], Facts]) -> dict[str, str]:
    by_stage = {stage: records.get((stage, key)) for stage, key in keys.items()}
    return {stage: str(record.get("error", "")) for stage, record in by_stage.items() if record is not None}


def _signatures(root: Place, experiment: str, evaluated: int) -> Iterator[Facts]:
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
        sentences = [str(text) for text in hits["sentence"].values[hits["found"].values]]
        if sentences:
            cells, of = len(sentences), hits.sizes["cell"]
            yield {"signature": str(signature), "cells": cells, "of": of, "first": sentences[0]}
