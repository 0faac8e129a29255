"""One call of `engine execute`, from a plan to the results on the screen."""

from __future__ import annotations

import atexit
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from engine.cli.execution_end import tell_end
from engine.cli.output import FORMAT
from engine.errors import Interrupted, told
from engine.planning.plan import Plan, PlannedCell
from engine.quantities import count
from engine.running.execution import ExecutionRequest, run_plan
from engine.running.manifest import note_plan
from engine.terminal import joined, styled
from specs.tables.experiment import STAGES
from store import Ledger, StoreError, open_store
from store.backend.locate import place_of
from store.backend.location import Place, Root
from store.errors import FAULTS
from store.ledger.history import read_history, record_look

if TYPE_CHECKING:
    from rich.console import Console
    from xarray import DataTree


def run(
    plan: Plan,
    pending: list[PlannedCell],
    console: Console,
    request: ExecutionRequest,
    *,
    quiet: bool = False,
    verbose: bool = False,
) -> int:
    """Execute the pending cells and show the results; give the exit code.

    quiet: show what fails and what was run alone. verbose: also each stage's numbers, and tracebacks.
    """
    from engine.cli.terminal_display import TerminalDisplay
    from engine.progress import ignore_terminal, stop_on_signal
    from engine.running.time_left import TimeLeft

    left = TimeLeft.of(plan, pending, request.executor, retry_failed=request.retry_failed)
    shown = TerminalDisplay(console, plan, left, quiet=quiet, verbose=verbose)
    with stop_on_signal(shown.stopping) as stop, shown as display:
        stop_text = ""
        try:
            outcome = run_plan(plan, pending, request, display, stop)
        except Interrupted:
            stop_text = "Stopped. What is done is safe; the same command goes on from here."
        except KeyboardInterrupt:
            stop_text = "Stopped at once. The same command goes on from what was saved before."
    if stop_text:
        atexit.register(
            ignore_terminal
        )  # the process is ending as it should; another Ctrl-C may not alter that
        console.print(stop_text)
        tell_end(plan, "stopped", stop_text, console)
        return Interrupted.exit_code
    number = Counter(stage for _, stage, _ in outcome.ran)
    ran = ", ".join(f"{number[stage]} {stage}" for stage in STAGES if number[stage])
    console.print(f"Ran {ran or 'nothing'}; store: {plan.root}")
    if outcome.held:
        console.print(f"{count(len(outcome.held), 'cell')} left to another process, which is at work there")
    if outcome.left_failed:
        console.print(
            f"{count(outcome.left_failed, 'stage')} failed before; --retry-failed runs what failed again"
        )
    for index, stage, message in outcome.failed:
        first, *more = message.splitlines() or [""]
        told_whole = " … (above in full)" * bool(more)
        line = joined([f"failed: cell {index + 1}, {stage}: ", first + told_whole])
        console.print(line, style="red", soft_wrap=True)
        if verbose:
            console.print(styled(_traceback(plan, index, stage), lines=True), soft_wrap=True)
    if outcome.put_back:
        console.print(_stays(plan), soft_wrap=True)
    elif not quiet:
        show_results(plan.root, console, plan.matrix.experiment.name)
    failed = len(outcome.failed) + outcome.left_failed
    summary = [f"ran {ran or 'nothing'}"]
    summary += [f"{count(len(outcome.held), 'cell')} left to another process"] * bool(outcome.held)
    summary += [f"{count(failed, 'stage')} failed"] * bool(failed)
    tell_end(plan, "failed" if failed else "done", "; ".join(summary), console)
    return 1 if failed else 0


def _stays(plan: Plan) -> str:
    """Say that finished cells of other settings are still what the experiment consists of."""
    name = plan.matrix.experiment.name
    return f"{name}: its finished cells, which have other settings, stay as they were; none of these is done"


def _traceback(plan: Plan, index: int, stage: str) -> str:
    """Give the traceback of a failed stage, as the store has it."""
    record = Ledger(plan.root).record(stage, plan.cells[index].keys[stage], "failed")
    return str(record.get("traceback", ""))


def nothing_to_do(plan: Plan, chosen: list[PlannedCell], console: Console, *, quiet: bool = False) -> int:
    """Say that no work is left in these cells, and what failed before; give the exit code."""
    failed = [cell for cell in chosen if plan.state(cell) == "failed"]
    done = f"{count(len(chosen) - len(failed), 'cell')} done"
    console.print(f"Nothing to do: {done} in {plan.root}")
    before = f"{count(len(failed), 'cell')} failed before" if failed else ""
    if failed:
        console.print(f"{before}; --retry-failed runs what failed again")
    if not note_plan(plan):
        console.print(_stays(plan), soft_wrap=True)
    elif not quiet:
        show_results(plan.root, console, plan.matrix.experiment.name)
    summary = "; ".join(filter(None, [f"nothing to do: {done}", before]))
    tell_end(plan, "failed" if failed else "done", summary, console)
    return 1 if failed else 0


def show_results(
    root: Root, console: Console, experiment: str | None = None, *, contrasts: bool = False
) -> None:
    """Print the table of results of each experiment and save its figure of entropy by layer.

    contrasts: print those, too, and record in the store that they were looked at.
    """
    from engine.cli.results import entropy_figure, results_facts, results_tables

    for name, node in open_store(root, experiment).children.items():
        if "summary" not in node.children:
            console.print(f"{name}: no cell is complete yet")
            continue
        if (complete := node.attrs["cells_complete"]) < (total := node.attrs["cells_total"]):
            console.print(f"{name}: {complete} of {count(total, 'cell')} complete")
        for table in results_tables(results_facts(node)):
            console.print(table)
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


def condition_facts(root: Root, experiment: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the means by condition of each experiment that has any."""
    from engine.cli.results import results_facts

    for node in open_store(root, experiment).children.values():
        if "summary" in node.children:
            yield results_facts(node)


def results_for_programs(root: Root, experiment: str | None = None) -> dict[str, Any]:
    """Give results and contrasts of each experiment; what cannot be compared says why.

    Contrasts that are given are recorded as looked at; where that cannot be, a note says so.
    """
    from engine.cli.results import contrast_facts, results_facts

    experiments = []
    for name, node in open_store(root, experiment).children.items():
        if "summary" not in node.children:
            continue
        facts = results_facts(node) | {"contrasts": [], "notes": [], "versions_mixed": None}
        facts["versions_mixed"] = node.attrs.get("versions_mixed")
        try:
            told = contrast_facts(node, read_history(root, name))
        except FAULTS:
            raise
        except StoreError as error:
            facts["notes"] = [f"no contrasts: {error}"]
        else:
            said = record_look(root, name, "results", told["looked_at"])
            facts |= {"contrasts": told["contrasts"], "notes": [*told["notes"], *filter(None, [said])]}
        experiments.append(facts)
    return {"format": FORMAT, "store": str(root), "experiments": experiments}


def _show_contrasts(root: Root, name: str, node: DataTree, console: Console) -> None:
    from engine.cli.results import contrast_facts, contrasts_table

    try:
        told = contrast_facts(node, read_history(root, name))
    except FAULTS:
        raise
    except StoreError as error:
        console.print(f"no contrasts: {error}", soft_wrap=True)
        return
    console.print(contrasts_table(told["contrasts"]))
    for note in filter(None, [*told["notes"], record_look(root, name, "results", told["looked_at"])]):
        console.print(note, soft_wrap=True)


def _keep_figure(place: Place, file: str, figure: bytes, console: Console) -> None:
    try:
        place.write(file, figure)
    except OSError as error:  # the store may be for reading alone
        console.print(f"no figure of entropy: {told(error)}", soft_wrap=True)
    else:
        console.print(f"figure: {place}/{file}")
