"""The command `engine`. Nothing here imports torch, so that planning answers at once."""

from __future__ import annotations

import json
import os
import sys
import warnings
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from engine.cli.init_command import init
from engine.cli.parameters import JSON, NEW_STORE, SET, SPEC, STORE
from engine.cli.power_command import power
from engine.cli.store_upkeep import gc, verify
from engine.cpu_share import set_threads
from engine.errors import DataError, EngineError, Interrupted, UsageError, told
from engine.quantities import count
from engine.terminal import Terminal, say, shown, styled
from specs.common.names import EXPORT_FORMATS
from store.backend.location import Place, Root

if TYPE_CHECKING:
    from engine.planning.plan import Plan

EXPERIMENT = click.option("--experiment", metavar="NAME", help="This experiment alone.")
AT = click.option("--store", type=NEW_STORE, help="Folder or URL of the store.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ablation-engine")
def cli() -> None:
    """Ablation studies of language-model fine-tuning, from one TOML spec to one store."""


@cli.command()
@SPEC
@SET
@AT
@click.option("--cells", "show_cells", is_flag=True, help="List every cell with its state.")
@click.option("--resolved", is_flag=True, help="Print the spec with every default filled in.")
@click.option("--diff", type=click.Path(path_type=Path), metavar="OTHER", help="Compare with another spec.")
@click.option("--pilot", type=STORE, help="Store that tells how results vary; by default the spec's own.")
@click.option("--exact", is_flag=True, help="Count the memory of trainings, too; imports torch.")
@JSON
def plan(
    spec: Path,
    overrides: tuple[str, ...],
    store: Root | None,
    pilot: Root | None,
    show_cells: bool,
    resolved: bool,
    diff: Path | None,
    exact: bool,
    as_json: bool,
) -> None:
    """Show what a spec amounts to: cells, what is cached, what the rest will cost and what it would find."""
    from engine.cli import plan_tables as render
    from engine.cli import power_tables

    console = Terminal()
    planned = _plan(spec, overrides, store, checked=True)
    if resolved:
        console.print(styled(render.resolved(planned), lines=True), soft_wrap=True)
    elif diff is not None:
        from engine.cli.diff import compare

        comparison = compare(planned, _plan(diff, (), store))  # so that --set answers "what would it change?"
        if as_json:
            say(json.dumps(comparison.as_json(), indent=2), lines=True)
        else:
            console.print(comparison.table())
    elif as_json:
        plan_data = render.plan_json(planned, cells=show_cells, exact=exact)
        plan_data |= {"power": power_tables.rows(planned, pilot)}
        say(json.dumps(plan_data, indent=2), lines=True)
    else:
        for part in render.plan_tables(planned, cells=show_cells, exact=exact):
            console.print(part)
        for part in power_tables.plan_lines(power_tables.rows(planned, pilot)):
            console.print(part)


@cli.command()
@SPEC
@SET
@AT
@click.option("--only", multiple=True, metavar="FACTOR=LEVEL", help="Run only these cells; repeatable.")
@click.option("--max-cells", type=click.IntRange(min=1), help="Run at most so many cells.")
@click.option("--keep-going/--fail-fast", default=True, help="Go on after a failed cell (default), or stop.")
@click.option("--retry-failed", is_flag=True, help="Run failed stages again.")
@click.option("--no-wait", is_flag=True, help="Leave to another process what it is running.")
@click.option("--executor", metavar="KIND", help="Where the work runs: local, ray, slurm, or a plug-in.")
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes, or units at a time.")
@click.option("--ignore-space", is_flag=True, help="Begin even if the disk seems too small.")
@click.option("--dry-run", is_flag=True, help="Only say what would run.")
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
) -> None:
    """Run what is pending: train, evaluate, probe; results go to the store."""
    from engine.api import choose, due, levels_of
    from engine.planning.plan import describe

    planned = _plan(spec, overrides, store, checked=True)
    chosen = choose(planned, levels_of(only, "--only"))
    pending = due(planned, chosen, retry_failed=retry_failed)[:max_cells]
    console = Terminal()
    if dry_run:
        for cell in pending:
            console.print(f"would run  {describe(planned.levels(cell))}")
        console.print(
            f"{len(pending)} of {count(len(planned.cells), 'cell')} would run; store: {planned.root}"
        )
        return
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
    code = run(planned, pending, console, request) if pending else nothing_to_do(planned, chosen, console)
    sys.exit(code)


@cli.command()
@click.argument("target", type=NEW_STORE, metavar="SPEC|STORE")
@SET
@AT
@click.option("--traceback", is_flag=True, help="Show where in the code failed stages failed.")
def status(target: Path | Place, overrides: tuple[str, ...], store: Root | None, traceback: bool) -> None:
    """Show what is done, running or failed, and why."""
    from engine.cli import plan_tables as render

    root: Root = target
    planned = None
    if not (isinstance(target, Place) or target.is_dir()):
        planned = _plan(target, overrides, store)
        root = planned.root
    for part in render.status_tables(root, planned, tracebacks=traceback):
        Terminal().print(part, soft_wrap=isinstance(part, Text))


@cli.command()
@click.argument("store", type=STORE)
def results(store: Root) -> None:
    """Print results per condition and contrasts, and save the entropy figure."""
    from engine.cli.session import show_results

    show_results(store, Terminal(), contrasts=True)


@cli.command()
@click.argument("store", type=STORE)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The file (default: STORE/report.html)."
)
@EXPERIMENT
def report(store: Root, output: Path | None, experiment: str | None) -> None:
    """Write a report as one HTML file, which needs no network: what changed, in which layer, how sure."""
    from store.report import keep_report, write_report

    say(write_report(store, output, experiment) if output else keep_report(store, experiment))
    _record_looks(store, experiment)


@cli.command()
@click.argument("store_a", type=STORE)
@click.argument("store_b", type=STORE)
@EXPERIMENT
@click.option("--cells", is_flag=True, help="List the differences of every cell.")
def compare(store_a: Root, store_b: Root, experiment: str | None, cells: bool) -> None:
    """Compare two stores: cells, results, settings and versions."""
    from engine.cli.compare import compare_stores
    from store.ledger.history import record_look

    for comparison in compare_stores(store_a, store_b, experiment):
        for part in comparison.tables(cells=cells):
            Terminal().print(part, soft_wrap=isinstance(part, str))
        for store in (store_a, store_b):
            if said := record_look(store, comparison.name, "compare", [("store", "A")]):
                say(said, error=True)


@cli.command()
@click.argument("store", type=STORE)
@click.option(
    "--to",
    "form",
    required=True,
    type=click.Choice(EXPORT_FORMATS),
    help="Format of the files.",
)
@EXPERIMENT
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder; by default STORE/export.")
@click.option("--raw", is_flag=True, help="In CSV leave text that spreadsheets would run as it is.")
def export(store: Root, form: Any, experiment: str | None, output: Path | None, raw: bool) -> None:
    """Write what a store holds as netCDF files or tidy tables."""
    from store.export import export

    if output is None and isinstance(store, Place):
        raise UsageError(f"{store}: expected -o FOLDER, in which to write what a bucket's store holds")
    for file in export(store, form, output or Path(str(store)) / "export", experiment, raw=raw):
        say(file)


@cli.command()
@click.argument("store", type=STORE)
@click.option("--cell", multiple=True, metavar="FACTOR=LEVEL,…", help="The cell to show; repeatable.")
@click.option("--example", metavar="ID", help="A test example; by default the first.")
@click.option("--position", help="Only this watch position, with the ranks of the watched tokens.")
@EXPERIMENT
def show(
    store: Root, cell: tuple[str, ...], example: str | None, position: str | None, experiment: str | None
) -> None:
    """Show what every layer of one cell predicts for one example."""
    from engine.cli.show import show

    console = Terminal()
    for part in show(store, cell, example, experiment, position, console.width):
        console.print(part)


@cli.command()
@SPEC
@SET
def data(spec: Path, overrides: tuple[str, ...]) -> None:
    """Show the data of a spec: splits, labels, quality of the explanations, token lengths by condition."""
    from engine.cli.data_report import data_tables

    console = Terminal()
    for table in data_tables(_plan(spec, overrides, None)):
        console.print(table)


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
    from specs import load_spec, resolve

    if only_plan and only_report:
        raise UsageError("--plan and --report: expected one of the two")
    console, loaded = Terminal(), load_spec(spec, overrides)
    for job in (sources_to_rate := jobs(loaded, resolve(loaded))):
        if only_plan or only_report:
            (show_plan if only_plan else show_report)(job, console)
    if not (only_plan or only_report):
        sys.exit(max(run(job, console) for job in sources_to_rate))


@cli.command()
def doctor() -> None:
    """Show what this machine can use; check every probe backend, and write and read a small store."""
    from engine.cli import doctor
    from engine.cli.adapter_check import adapter_trouble
    from engine.cli.store_check import store_trouble
    from engine.running.kernels_owner import check_kernels

    check_kernels()
    console = Terminal()
    console.print(doctor.machine())
    checks = doctor.self_check()
    console.print(doctor.backends_table(checks))
    console.print(doctor.choice())
    troubles = store_trouble(), adapter_trouble()
    for name, trouble, said in (
        ("store", troubles[0], "written and read back, and reported on"),
        ("adapter", troubles[1], "saved and loaded"),
    ):
        console.print(styled(f"{name}: FAILED {trouble}", "red") if trouble else f"{name}: {said}")
    sys.exit(0 if all(check.passed for check in checks) and not any(troubles) else 1)


@cli.command()
def schema() -> None:
    """Print the JSON Schema of spec files, for completion in editors."""
    from specs import json_schema

    say(json.dumps(json_schema(), indent=2), lines=True)


for command in (init, power, gc, verify):
    cli.add_command(command)


def _plan(spec: Path, overrides: tuple[str, ...], store: Root | None, *, checked: bool = False) -> Plan:
    from engine.api import plan
    from engine.planning.plan import make_plan
    from specs import load_spec, resolve

    if checked:  # before anything runs: what the files at hand tell to be wrong
        return plan(spec, overrides, store=store)
    return make_plan(resolve(load_spec(spec, overrides)), store)


def _record_looks(store: Root, experiment: str | None) -> None:
    """Record in a store that a report showed its contrasts; say where that cannot be."""
    from store import open_store
    from store.analysis.declared import chosen_contrasts
    from store.analysis.nodes import spec_of, stage_node
    from store.ledger.history import record_look

    for name, node in open_store(store, experiment).children.items():
        if "summary" in node.children:
            contrasts = chosen_contrasts(spec_of(node), stage_node(node, "summary"))
            looked_at = [(contrast.factor, contrast.baseline) for contrast in contrasts]
            if said := record_look(store, name, "report", looked_at):
                say(said, error=True)


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
        say(told_by_click.getvalue().rstrip(), error=True, lines=True)
        sys.exit(2)
    except click.Abort:
        sys.exit(Interrupted.exit_code)
    except SpecError as error:
        for problem in error.problems:
            say(problem, error=True)
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
