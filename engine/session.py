"""One call of `engine execute`, from a plan to the results on the screen."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import kernels
from engine.errors import EngineError, Interrupted
from engine.plan import Plan, PlannedCell
from engine.provenance import provenance
from store import Ledger, StoreError, StoreWriter, open_store, read_manifests, write_manifest


def run(plan: Plan, pending: list[PlannedCell], console: Any, *, fail_fast: bool, retry_failed: bool) -> int:
    """Execute the pending cells and show the results; give the exit code."""
    from engine.display import TerminalDisplay
    from engine.execute import Execution, Options
    from engine.progress import stop_on_interrupt
    from engine.stages import Stages

    check_kernels()
    where = provenance()
    write_manifest(plan.root, plan.matrix.experiment.name, manifest(plan, where))
    options = Options(fail_fast=fail_fast, retry_failed=retry_failed)
    with stop_on_interrupt() as stop, TerminalDisplay(console, plan, len(pending)) as display:
        stages = Stages(plan, Ledger(plan.root), StoreWriter(plan.root), where, stop)
        execution = Execution(plan, stages, options, display, stop)
        try:
            outcome = execution.run(pending)
        except Interrupted:
            console.print("Stopped. What is done is safe; the same command goes on from here.")
            return Interrupted.exit_code
    ran = ", ".join(f"{number} {stage}" for stage, number in outcome.ran.items() if number)
    console.print(f"Ran {ran or 'nothing'}; store: {plan.root}")
    if outcome.held_elsewhere:
        console.print(f"{outcome.held_elsewhere} stages were left to another process that is running them")
    if outcome.left_failed:
        console.print(f"{outcome.left_failed} stages failed before; --retry-failed runs them again")
    for cell, stage, message in outcome.failed:
        console.print(
            f"failed: cell {cell.index + 1}, {stage}: {message}", markup=False, style="red", soft_wrap=True
        )
    show_results(plan.root, console, plan.matrix.experiment.name)
    return 1 if outcome.failed or outcome.left_failed else 0


def nothing_to_do(plan: Plan, chosen: list[PlannedCell], console: Any) -> int:
    """Say that no work is left in these cells, and what failed before; give the exit code."""
    failed = [cell for cell in chosen if plan.state(cell) == "failed"]
    console.print(f"Nothing to do: {len(chosen) - len(failed)} cells are done in {plan.root}")
    if failed:
        console.print(f"{len(failed)} cells failed before; --retry-failed runs them again")
    # An extended or renamed spec may consist of results that other specs have left here.
    if plan.matrix.experiment.name not in read_manifests(plan.root):
        write_manifest(plan.root, plan.matrix.experiment.name, manifest(plan, provenance()))
    show_results(plan.root, console, plan.matrix.experiment.name)
    return 1 if failed else 0


def manifest(plan: Plan, where: dict[str, Any]) -> dict[str, Any]:
    """Give the experiment's manifest: spec, factors, cells, contrasts and provenance."""
    from specs.convert import unstructure

    stages = ("train", "evaluate", "probe")
    return {
        "spec": unstructure(plan.matrix.experiment),
        "factors": [axis.name for axis in plan.matrix.axes],
        "cells": [
            {
                "levels": plan.levels(cell),
                "keys": {stage: cell.keys[stage] for stage in stages if stage in cell.keys},
            }
            for cell in plan.cells
        ],
        "contrasts": [list(pair) for pair in plan.matrix.pairs()],
        **where,
    }


def show_results(root: Path, console: Any, experiment: str | None = None) -> None:
    """Print the table of results of each experiment and save its figure of entropy by layer."""
    from engine.results import entropy_figure, results_table

    for name, node in open_store(root, experiment).children.items():
        if "summary" not in node.children:
            console.print(f"{name}: no cell is complete yet")
            continue
        summary = node["summary"].to_dataset()
        factors = [str(name) for name in summary["cell"].to_index().names]
        console.print(results_table(summary, factors))
        if "probe" in node.children:
            file = root / "figures" / f"{name}-entropy-by-layer.png"
            try:
                entropy_figure(node, file)
            except StoreError as error:
                console.print(f"no figure of entropy: {error}", markup=False, soft_wrap=True)
            else:
                console.print(f"figure: {file}")


def check_kernels() -> None:
    """Make sure that `kernels` is this project's package, not the hub client of the same name."""
    ours = resources.files("engine").joinpath("..", "kernels")
    if Path(str(kernels.__file__)).parent.resolve() != Path(str(ours)).resolve():
        raise EngineError(
            f"the package `kernels` at {kernels.__file__} is not this project's; "
            "uninstall the other one: pip uninstall kernels"
        )
