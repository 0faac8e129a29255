"""The commands that read a store's results: `results`, `report`, `compare`, `export`, `show`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from engine.cli.output import CSV, FORMAT, JSON, check_one, say_csv, say_json
from engine.cli.parameters import CELL, EXPERIMENT, NEW_STORE
from engine.cli.spec_or_store import OF_CELLS, Results, results_of
from engine.errors import UsageError
from engine.terminal import Terminal, followed, say
from specs.common.names import EXPORT_FORMATS
from store.backend.location import Place, Root


@click.command()
@OF_CELLS
@EXPERIMENT
@JSON
@CSV
def results(of: Results, experiment: str | None, as_json: bool, as_csv: bool) -> None:
    """Print results per condition and contrasts, and save the entropy figure."""
    from engine.cli import session
    from engine.cli.results import results_rows

    check_one(as_json=as_json, as_csv=as_csv)
    name = experiment or of.experiment
    if as_json:
        say_json(session.results_for_programs(of.store, name))
    elif as_csv:
        say_csv(row for facts in session.condition_facts(of.store, name) for row in results_rows(facts))
    else:
        session.show_results(of.store, Terminal(), name, contrasts=True)


@click.command()
@OF_CELLS
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The file (default: STORE/report.html)."
)
@EXPERIMENT
@click.option("--serve", is_flag=True, help="Show it at an address of this machine, drawn anew as cells end.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Of the address; by default any.")
def report(of: Results, output: Path | None, experiment: str | None, serve: bool, port: int) -> None:
    """Write a report as one HTML file, which needs no network: what changed, in which layer, how sure."""
    from store.report import keep_report, write_report

    name = experiment or of.experiment
    if serve:
        from engine.cli.report_server import LiveReport
        from engine.cli.report_server import serve as serve_report

        if output:
            raise UsageError("--serve and -o: expected one of the two")
        serve_report(LiveReport(of.store, name, lambda: _record_looks(of.store, name)), port)
        return
    if port:
        raise UsageError("--port: is of the address that --serve shows; expected --serve beside it")
    with followed("report") as follow:
        if output:
            written = str(write_report(of.store, output, name, follow=follow))
        else:
            written = keep_report(of.store, name, follow=follow)
    say(written)
    _record_looks(of.store, name)


@click.command()
@click.argument("target_a", type=NEW_STORE, metavar="SPEC_A|STORE_A")
@click.argument("target_b", type=NEW_STORE, metavar="SPEC_B|STORE_B")
@EXPERIMENT
@click.option("--cells", is_flag=True, help="List the differences of every cell.")
@click.option("--all", "every", is_flag=True, help="Show all rows of long tables.")
@JSON
@CSV
def compare(
    target_a: Path | Place,
    target_b: Path | Place,
    experiment: str | None,
    cells: bool,
    every: bool,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Compare two stores: cells, results, settings and versions."""
    from engine.cli.compare import compare_stores
    from engine.cli.compare_tables import comparison_rows, comparison_tables
    from store.ledger.history import record_look

    check_one(as_json=as_json, as_csv=as_csv)
    of_a, of_b = (results_of(target).check().told_apart() for target in (target_a, target_b))
    named = {of.experiment for of in (of_a, of_b)} - {None}
    if len(named) > 1 and experiment is None:
        raise UsageError(f"compare: expected specs of one experiment, found {' and '.join(map(str, named))}")
    name = experiment or next(iter(named), None)
    compared = []
    for comparison in compare_stores(of_a.store, of_b.store, name):
        compared.append(comparison.facts(cells=cells))
        for store in (of_a.store, of_b.store):
            if said := record_look(store, comparison.name, "compare", [("store", "A")]):
                say(said, error=True)
    if as_json:
        stores = {"a": str(of_a.store), "b": str(of_b.store)}
        say_json({"format": FORMAT, **stores, "experiments": compared})
    elif as_csv:
        say_csv(row for facts in compared for row in comparison_rows(facts))
    else:
        for facts in compared:
            for part in comparison_tables(facts, every=every):
                Terminal().print(part, soft_wrap=isinstance(part, str))


@click.command()
@OF_CELLS
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
def export(of: Results, form: Any, experiment: str | None, output: Path | None, raw: bool) -> None:
    """Write what a store holds as netCDF files or tidy tables."""
    from store.export import export

    store = of.store
    if output is None and isinstance(store, Place) and store.distant:
        raise UsageError(f"{store}: expected -o FOLDER, in which to write what a bucket's store holds")
    folder = output or Path(str(store)) / "export"
    with followed("export") as follow:
        files = export(store, form, folder, experiment or of.experiment, raw=raw, follow=follow)
    for file in files:
        say(file)


@click.command()
@OF_CELLS
@CELL
@click.option("--example", metavar="ID", help="A test example; by default the first.")
@click.option("--position", help="Only this watch position, with the ranks of the watched tokens.")
@EXPERIMENT
def show(
    of: Results, cell: tuple[str, ...], example: str | None, position: str | None, experiment: str | None
) -> None:
    """Show what every layer of one cell predicts for one example."""
    from engine.cli.show import show

    console = Terminal()
    for part in show(of.store, cell, example, experiment or of.experiment, position, console.width):
        console.print(part)


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
