"""One call of `engine execute`, from a plan to the results on the screen."""

from __future__ import annotations

import atexit
import json
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from engine.cli.kernels_owner import check_kernels
from engine.errors import DataError, Interrupted, told
from engine.planning.plan import Plan, PlannedCell
from engine.running.provenance import provenance
from specs.tables.executor import Executor
from specs.tables.experiment import STAGES
from store import Ledger, StoreError, StoreWriter, open_store, read_manifests, write_manifest
from store.backend.locate import place_of
from store.backend.location import Place, Root
from store.errors import FAULTS
from store.ledger.history import read_history, record_look
from store.ledger.manifests import lost_cells

if TYPE_CHECKING:
    from xarray import DataTree

    from engine.progress import StopRequest
    from engine.running.cell_runner import Display, Outcome


@frozen
class Request:
    """What the command line asks of an execution."""

    fail_fast: bool = False
    retry_failed: bool = False
    wait: bool = True
    executor: Executor = field(factory=Executor)


def run(plan: Plan, pending: list[PlannedCell], console: Any, request: Request) -> int:
    """Execute the pending cells and show the results; give the exit code."""
    from engine.cli.progress_bars import TerminalDisplay
    from engine.planning.checks import check_devices
    from engine.progress import ignore_terminal, stop_on_signal

    check_kernels()
    if request.executor.kind == "local":  # others compute elsewhere
        check_devices(plan, pending)
    where = provenance()
    described = manifest(plan, where)
    check_files(plan, described)
    write_manifest(plan.root, plan.matrix.experiment.name, described)
    plan.look_up()  # from here on `engine gc` spares what the plan finds
    with stop_on_signal() as stop, TerminalDisplay(console, plan, len(pending)) as display:
        said = ""
        try:
            outcome = _execute(plan, pending, request, display, stop, where)
        except Interrupted:
            said = "Stopped. What is done is safe; the same command goes on from here."
        except KeyboardInterrupt:
            said = "Stopped at once. The same command goes on from what was saved before."
    if said:
        atexit.register(
            ignore_terminal
        )  # the process is ending as it should; another Ctrl-C may not alter that
        console.print(said)
        return Interrupted.exit_code
    number = Counter(stage for _, stage, _ in outcome.ran)
    ran = ", ".join(f"{number[stage]} {stage}" for stage in STAGES if number[stage])
    console.print(f"Ran {ran or 'nothing'}; store: {plan.root}")
    if outcome.held:
        console.print(f"{len(outcome.held)} cells were left to another process that is running them")
    if outcome.left_failed:
        console.print(f"{outcome.left_failed} stages failed before; --retry-failed runs them again")
    for index, stage, message in outcome.failed:
        console.print(f"failed: cell {index + 1}, {stage}: {message}", style="red", soft_wrap=True)
    show_results(plan.root, console, plan.matrix.experiment.name)
    return 1 if outcome.failed or outcome.left_failed else 0


def _execute(
    plan: Plan,
    cells: list[PlannedCell],
    request: Request,
    display: Display,
    stop: StopRequest,
    where: dict[str, Any],
) -> Outcome:
    from engine.planning.estimate import estimator
    from engine.running import cell_runner as execute
    from engine.running.executors.base import Job, Resources
    from engine.running.executors.in_process import InProcess
    from engine.running.executors.make import make_executor
    from engine.running.lost_workers import loss
    from engine.running.resume_progress import reached
    from engine.running.scheduler import Coordinator, Policy
    from engine.stages.cell_stages import Stages

    settings = request.executor
    options = execute.Options(fail_fast=request.fail_fast, retry_failed=request.retry_failed)
    policy = Policy(request.wait, min(1.0, settings.lease / 10), settings.retries, request.fail_fast)
    ledger = Ledger(plan.root, settings.lease)
    stages = Stages(plan, ledger, StoreWriter(plan.root), where, stop)
    execution = execute.Execution(plan, stages, options, display, stop)
    if settings.kind == "local" and settings.workers is None and settings.ranks == 1:
        silent = execute.Display()
        return Coordinator(plan, ledger, InProcess(execution), policy, silent, stop).run(cells)
    root = plan.root.absolute()
    job = Job(plan.matrix.spec.anchored(), root, options, settings.lease, settings.ranks, settings.grace)
    whole = estimator(plan)(cells)
    # First of all, for what it refuses should not wait for data.
    executor = make_executor(job, settings, stop, Resources(whole.memory if whole else None))
    try:
        # Every unit needs its data: made here, it keeps no worker waiting.
        prepared = execution.prepare_data(cells)
    except BaseException:
        executor.cancel()
        raise
    failed = {key for key, state in plan.states["data"].items() if state == "failed"}
    ready = [cell for cell in cells if not failed & {cell.keys["data"], cell.keys["test_data"]}]
    if not ready or (request.fail_fast and prepared.failed):
        executor.cancel()
        return prepared
    lives_on = settings.kind == "local" and settings.ranks == 1  # a worker, from unit to unit
    batch = 1 if lives_on else settings.batch
    coordinator = Coordinator(
        plan,
        ledger,
        executor,
        policy,
        display,
        stop,
        estimator(plan),
        partial(reached, plan.root),
        partial(loss, plan, (settings.workers or 1) * settings.ranks),
    )
    outcome = coordinator.run(ready, batch)
    outcome.add(prepared)
    return outcome


def nothing_to_do(plan: Plan, chosen: list[PlannedCell], console: Any) -> int:
    """Say that no work is left in these cells, and what failed before; give the exit code."""
    failed = [cell for cell in chosen if plan.state(cell) == "failed"]
    console.print(f"Nothing to do: {len(chosen) - len(failed)} cells are done in {plan.root}")
    if failed:
        console.print(f"{len(failed)} cells failed before; --retry-failed runs them again")
    # An extended or renamed spec may consist of results that other specs have left here.
    name, described = plan.matrix.experiment.name, manifest(plan, {})
    known = read_manifests(plan.root).get(name, {})
    spec, asked = known.get("spec", {}), described["spec"]
    if any(known.get(part) != described[part] for part in ("cells", "data", "files")) or any(
        json.dumps(spec.get(part)) != json.dumps(asked[part]) for part in ("analysis", "contrasts")
    ):
        write_manifest(plan.root, name, described | provenance())
    show_results(plan.root, console, plan.matrix.experiment.name)
    return 1 if failed else 0


def manifest(plan: Plan, where: dict[str, Any]) -> dict[str, Any]:
    """Give the experiment's manifest: spec, factors, cells, contrasts and provenance."""
    from specs.toml.convert import unstructure

    stages = STAGES[1:]  # "data" below
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
        # By these alone the store knows whose the data are: a reader of cells needs none.
        "data": sorted({cell.keys[name] for cell in plan.cells for name in ("data", "test_data")}),
        # By these a later plan knows the content of files that are not there any more.
        "files": plan.files(),
        **where,
    }


def check_files(plan: Plan, described: dict[str, Any]) -> None:
    """Raise DataError where data files are missing, and finished cells would lose their names for that."""
    missing = plan.missing()
    lost = lost_cells(plan.root, plan.matrix.experiment.name, described) if missing else 0
    if lost:
        raise DataError(
            f"data.source: {missing[0]} is missing, and {lost} finished cells of this experiment were made "
            "before the store noted what such files held; expected the file, or another experiment's name"
        )


def show_results(root: Root, console: Any, experiment: str | None = None, *, contrasts: bool = False) -> None:
    """Print the table of results of each experiment and save its figure of entropy by layer.

    contrasts: print those, too, and record in the store that they were looked at.
    """
    from engine.cli.results import entropy_figure, results_table

    for name, node in open_store(root, experiment).children.items():
        if "summary" not in node.children:
            console.print(f"{name}: no cell is complete yet")
            continue
        if (complete := node.attrs["cells_complete"]) < (total := node.attrs["cells_total"]):
            console.print(f"{name}: {complete} of {total} cells are complete")
        console.print(results_table(node))
        if contrasts:
            _show_contrasts(root, name, node, console)
        if mixed := node.attrs.get("versions_mixed"):
            console.print(f"{name}: {mixed}", style="yellow", soft_wrap=True)
        if "probe" in node.children:
            try:
                figure = entropy_figure(node)
            except FAULTS:
                raise
            except StoreError as error:
                console.print(f"no figure of entropy: {error}", soft_wrap=True)
            else:
                _keep_figure(place_of(root), f"figures/{name}-entropy-by-layer.png", figure, console)


def _show_contrasts(root: Root, name: str, node: DataTree, console: Any) -> None:
    from engine.cli.results import contrasts_table

    try:
        table, notes, shown = contrasts_table(node, read_history(root, name))
    except FAULTS:
        raise
    except StoreError as error:
        console.print(f"no contrasts: {error}", soft_wrap=True)
        return
    console.print(table)
    for note in filter(None, [*notes, record_look(root, name, "results", shown)]):
        console.print(note, soft_wrap=True)


def _keep_figure(place: Place, file: str, figure: bytes, console: Any) -> None:
    try:
        place.write(file, figure)
    except OSError as error:  # the store may be for reading alone
        console.print(f"no figure of entropy: {told(error)}", soft_wrap=True)
    else:
        console.print(f"figure: {place}/{file}")
