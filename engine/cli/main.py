"""The command `engine`. Nothing here imports torch, so that planning answers at once."""

from __future__ import annotations

import json
import os
import sys
import warnings
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.text import Text

from engine.cli.completion import Group, completion
from engine.cli.demo_command import demo
from engine.cli.init_command import init
from engine.cli.logs_command import logs
from engine.cli.output import CSV, FORMAT, JSON, check_one, say_csv, say_json
from engine.cli.parameters import AT, FAILED, ONLY, PENDING, SET, SPEC, STORE
from engine.cli.power_command import power
from engine.cli.publish_command import publish
from engine.cli.status_command import status
from engine.cli.store_commands import compare, export, report, results, show
from engine.cli.store_upkeep import gc, verify
from engine.cpu_share import set_threads
from engine.errors import DataError, EngineError, Interrupted, UsageError, told
from engine.quantities import count
from engine.terminal import Terminal, say, shown, styled
from specs.common.spelling import alike, one_of
from store.backend.location import Root

if TYPE_CHECKING:
    from engine.planning.plan import Plan, PlannedCell


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ablation-engine")
def cli() -> None:
    """Ablation studies of language-model fine-tuning, from one TOML spec to one store."""


@cli.command()
@SPEC
@SET
@AT
@click.option("--cells", "show_cells", is_flag=True, help="List every cell with its state.")
@ONLY
@FAILED
@PENDING
@click.option("--resolved", is_flag=True, help="Print the spec with every default filled in.")
@click.option("--diff", type=click.Path(path_type=Path), metavar="OTHER", help="Compare with another spec.")
@click.option("--pilot", type=STORE, help="Store that tells how results vary; by default the spec's own.")
@click.option("--exact", is_flag=True, help="Count the memory of trainings, too; imports torch.")
@JSON
@CSV
def plan(
    spec: Path,
    overrides: tuple[str, ...],
    store: Root | None,
    pilot: Root | None,
    show_cells: bool,
    only: tuple[str, ...],
    failed: bool,
    pending: bool,
    resolved: bool,
    diff: Path | None,
    exact: bool,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Show what a spec amounts to: cells, what is cached, what the rest will cost and what it would find."""
    from engine.cli import plan_tables as render
    from engine.cli import power_tables
    from engine.cli.cell_tables import no_cell

    check_one(as_json=as_json, as_csv=as_csv)
    console = Terminal()
    planned = _plan(spec, overrides, store, checked=True)
    shown = _asked(planned, only, failed=failed, pending=pending)
    show_cells |= bool(only) or failed or pending
    if resolved:
        console.print(styled(render.resolved(planned), lines=True), soft_wrap=True)
    elif diff is not None:
        from engine.cli.diff import compare

        comparison = compare(planned, _plan(diff, (), store))  # so that --set answers "what would it change?"
        if as_json:
            say_json({"format": FORMAT} | comparison.as_json())
        else:
            console.print(comparison.table())
    elif as_json:
        plan_data = render.plan_json(planned, cells=show_cells, exact=exact, shown=shown)
        plan_data |= {"power": power_tables.rows(planned, pilot)}
        say_json(plan_data)
    elif as_csv:
        say_csv(render.plan_rows(planned, cells=show_cells, shown=shown))
    else:
        none = no_cell(failed=failed, pending=pending)
        for part in render.plan_tables(planned, cells=show_cells, exact=exact, shown=shown, none=none):
            console.print(part, soft_wrap=isinstance(part, (Text, str)))
        for part in power_tables.plan_lines(power_tables.rows(planned, pilot)):
            console.print(part, soft_wrap=isinstance(part, (Text, str)))


@cli.command()
@SPEC
@SET
@AT
@ONLY
@click.option("--max-cells", type=click.IntRange(min=1), help="Run at most so many cells.")
@click.option("--keep-going/--fail-fast", default=True, help="Go on after a failed cell (default), or stop.")
@click.option("--retry-failed", is_flag=True, help="Run failed stages again.")
@click.option("--no-wait", is_flag=True, help="Leave to another process what it is running.")
@click.option("--executor", metavar="KIND", help="Where the work runs: local, ray, slurm, or a plug-in.")
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes, or units at a time.")
@click.option("--ignore-space", is_flag=True, help="Begin even if the disk seems too small.")
@click.option("--dry-run", is_flag=True, help="Only say what would run.")
@click.option("-q", "--quiet", is_flag=True, help="Show what fails, and at the end what was run, alone.")
@click.option("-v", "--verbose", is_flag=True, help="Show each stage's numbers, and tracebacks.")
def execute(
    spec: Path,
    overrides: tuple[str, ...],
    store: Root | None,
    only: tuple[str, ...],
    max_cells: int | None,
    keep_going: bool,
    retry_failed: bool,
    no_wait: bool,
    executor: str | None,
    workers: int | None,
    ignore_space: bool,
    dry_run: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Run what is pending: train, evaluate, probe; results go to the store."""
    from engine.api import choose, due
    from engine.planning.levels import describe

    if quiet and verbose:
        raise UsageError("--quiet and --verbose: expected one of the two")
    planned = _plan(spec, overrides, store, checked=True)
    chosen = choose(planned, only, "--only")
    pending = due(planned, chosen, retry_failed=retry_failed)[:max_cells]
    console = Terminal()
    if dry_run:
        for cell in pending:
            console.print(f"would run  {describe(planned.levels(cell))}")
        console.print(
            f"{len(pending)} of {count(len(planned.cells), 'cell')} would run; store: {planned.root}"
        )
        return
    from engine.cli.execution_end import told_of_errors

    with told_of_errors(planned, console):
        if pending and not quiet:  # before what takes its time: torch, the model
            number = f"{len(pending):,} of {count(len(planned.cells), 'cell')}"
            console.print(f"{planned.matrix.experiment.name}: {number} to run; store: {planned.root}")
        from engine.cli.session import nothing_to_do, run
        from engine.running.execution import request_for

        request, warnings_found = request_for(
            planned,
            pending,
            executor=executor,
            workers=workers,
            fail_fast=not keep_going,
            retry_failed=retry_failed,
            wait=not no_wait,
            ignore_space=ignore_space,
        )
        for warning in warnings_found:
            say(f"warning: {warning}", error=True)
        if pending:
            code = run(planned, pending, console, request, quiet=quiet, verbose=verbose)
        else:
            code = nothing_to_do(planned, chosen, console, quiet=quiet)
    sys.exit(code)


@cli.command()
@SPEC
@SET
@JSON
@CSV
def data(spec: Path, overrides: tuple[str, ...], as_json: bool, as_csv: bool) -> None:
    """Show the data of a spec: splits, labels, quality of the explanations, token lengths by condition."""
    from engine.cli.data_report import data_facts, data_rows, data_tables
    from engine.planning.checks import too_few
    from engine.planning.missing_files import check_sources
    from specs import SpecError

    check_one(as_json=as_json, as_csv=as_csv)
    console = Terminal()
    planned = _plan(spec, overrides, None)
    check_sources(planned.matrix)
    facts_of_data = data_facts(planned)
    if as_json:
        say_json({"format": FORMAT, "data": list(facts_of_data)})
    elif as_csv:
        say_csv(row for facts in facts_of_data for row in data_rows(facts))
    else:
        for facts in facts_of_data:
            for table in data_tables(facts):
                console.print(table)
    if problems := list(too_few(planned)):
        raise SpecError(map(planned.matrix.spec.place, problems))


@cli.command()
@SPEC
@SET
@click.option(
    "--plan", "--dry-run", "only_plan", is_flag=True, help="Only say what would be asked, and its price."
)
@click.option("--report", "only_report", is_flag=True, help="Only show the tables of the answers so far.")
def annotate(spec: Path, overrides: tuple[str, ...], only_plan: bool, only_report: bool) -> None:
    """Rate and explain the conversations of a spec by an ensemble of language models."""
    from engine.annotation.run import run, show_plan, show_report
    from engine.annotation.sources import jobs
    from engine.planning.missing_files import check_sources
    from specs import load_spec, resolve

    if only_plan and only_report:
        raise UsageError("--plan and --report: expected one of the two")
    console, loaded = Terminal(), load_spec(spec, overrides)
    matrix = resolve(loaded)
    sources_to_rate = jobs(loaded, matrix)
    check_sources(matrix, tested=False)
    for job in sources_to_rate:
        if only_plan or only_report:
            (show_plan if only_plan else show_report)(job, console)
    if not (only_plan or only_report):
        sys.exit(max(run(job, console) for job in sources_to_rate))


@cli.command()
@click.option("--measure", is_flag=True, help="Measure what the machine computes, for the hours of `plan`.")
def doctor(measure: bool) -> None:
    """Show what this machine can use; check every probe backend, and write and read a small store."""
    from engine.cli import doctor
    from engine.cli.adapter_check import adapter_trouble
    from engine.cli.next_steps import next_steps
    from engine.cli.store_check import store_trouble
    from engine.running.kernels_owner import check_kernels

    check_kernels()
    console = Terminal()
    console.print(doctor.machine())
    if measure:
        from engine.cli.measured_rates import measured_rates, told_rates
        from engine.planning.own_machine import keep_rates

        rates = measured_rates()
        console.print("\n".join(told_rates(rates)))
        console.print(f"kept for the hours of `engine plan`: {keep_rates(rates)}", soft_wrap=True)
        return
    checks = doctor.self_check()
    console.print(doctor.backends_table(checks))
    console.print(doctor.choice())
    troubles = store_trouble(), adapter_trouble()
    for name, trouble, said in (
        ("store", troubles[0], "written and read back, and reported on"),
        ("adapter", troubles[1], "saved and loaded"),
    ):
        console.print(styled(f"{name}: FAILED {trouble}", "red") if trouble else f"{name}: {said}")
    console.print("next:")
    for command, purpose in next_steps():
        console.print(f"  {command}", soft_wrap=True)
        console.print(f"      {purpose}", soft_wrap=True)
    sys.exit(0 if all(check.passed for check in checks) and not any(troubles) else 1)


@cli.command()
@click.argument("of", default="spec", metavar="[COMMAND]")
def schema(of: str) -> None:
    """Print the JSON Schema of spec files, for editors, or of what a COMMAND prints with --json."""
    from engine.cli.output_schemas import SCHEMAS, schema_of
    from specs import json_schema

    if of != "spec" and of not in SCHEMAS:
        raise UsageError(f"schema: found {of}; expected spec, {one_of(SCHEMAS)}{alike(of, SCHEMAS)}")
    content = json_schema() if of == "spec" else schema_of(of)
    say(json.dumps(content, indent=2), lines=True)


for command in (
    init, demo, status, power, results, report, compare, export, publish, show, logs, gc, verify, completion,
):  # fmt: skip
    cli.add_command(command)


def _plan(spec: Path, overrides: tuple[str, ...], store: Root | None, *, checked: bool = False) -> Plan:
    from engine.api import plan
    from engine.planning.from_spec import plan_from_spec

    if checked:  # before anything runs: what the files at hand tell to be wrong
        return plan(spec, overrides, store=store)
    return plan_from_spec(spec, overrides, store)


def _asked(planned: Plan, only: tuple[str, ...], *, failed: bool, pending: bool) -> list[PlannedCell]:
    """Give the cells of these levels and states; all where none is named."""
    from engine.api import choose

    states = {"failed"} if failed else set()
    states |= {"pending", "running"} if pending else set()
    cells = choose(planned, only, "--only")
    return [cell for cell in cells if not states or planned.state(cell) in states]


def _warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Write a warning as one line: what it says, and which library says it, if it is not this one."""
    _, installed, behind = filename.rpartition("site-packages")
    where = f" ({behind[1:].replace(os.sep, '/').partition('/')[0]})" if installed else ""
    ours = where in (" (engine)", " (kernels)", " (store)", " (specs)")
    return f"warning{'' if ours else where}: {shown(str(message))}\n"


def main() -> None:
    """Run the command; every error a person can cause ends with a message and its exit code."""
    from specs import SpecError
    from store import StoreError

    warnings.formatwarning = _warning
    set_threads()
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show(told_by_click := StringIO())
        # Click lists choices on lines of their own.
        say(told_by_click.getvalue().rstrip().replace("\n\t", " "), error=True, lines=True)
        sys.exit(2)
    except click.Abort:  # Ctrl-C where nothing saves anything: while a spec is read, at a question
        say("Stopped.", error=True)
        sys.exit(Interrupted.exit_code)
    except SpecError as error:
        for line in error.lines():
            say(line, error=True)
        sys.exit(2)
    except (EngineError, StoreError) as error:
        # Of data, the first rows at fault are listed, a line each.
        say(f"error: {error}", error=True, lines=isinstance(error, DataError))
        sys.exit(getattr(error, "exit_code", 1))
    except Interrupted:
        sys.exit(Interrupted.exit_code)
    except BrokenPipeError:  # whoever read the output has had enough
        sys.stdout = None
        sys.exit(1)
    except OSError as error:
        say(f"error: {told(error)}", error=True)
        sys.exit(1)
    except RuntimeError as error:
        if "can't start new thread" not in str(error):
            raise
        say("error: can't start new thread: the system's limit is reached; use fewer workers", error=True)
        sys.exit(1)
