"""The command `status`: what is done, running or failed, once or again and again."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from engine.cli.output import CSV, JSON, check_one, say_csv, say_json
from engine.cli.parameters import AT, FAILED, NEW_STORE, ONLY, PENDING, SET, FiniteRange
from engine.cli.spec_or_store import Results, check_alone, is_spec
from engine.errors import UsageError
from engine.terminal import Terminal, until_ctrl_c
from store.backend.location import Place, Root

if TYPE_CHECKING:
    from engine.planning.plan import Plan


@click.command()
@click.argument("target", type=NEW_STORE, metavar="SPEC|STORE")
@SET
@AT
@click.option("--cells", is_flag=True, help="List every cell with its state.")
@ONLY
@FAILED
@PENDING
@click.option("--traceback", is_flag=True, help="Show where in the code failed stages failed.")
@click.option(
    "--watch", type=FiniteRange(min=0.1), is_flag=False, flag_value=5.0, metavar="[SECONDS]",
    help="Show it again every so many seconds (5), until nothing is at work any more.",
)  # fmt: skip
@JSON
@CSV
def status(
    target: Path | Place,
    overrides: tuple[str, ...],
    store: Root | None,
    cells: bool,
    only: tuple[str, ...],
    failed: bool,
    pending: bool,
    traceback: bool,
    watch: float | None,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Show what is done, running or failed, and why."""
    from engine.cli import status_tables as render
    from engine.cli.status_watch import Watch
    from engine.planning.other_form import other_form

    check_one(as_json=as_json, as_csv=as_csv)
    if watch is not None and (as_json or as_csv):
        raise UsageError("--watch: expected tables, without --json and --csv")
    planned = _plan(target, overrides, store)
    root = target if planned is None else planned.root
    if planned is None and watch is None:
        Results(root).check()
    listed = cells or bool(only) or failed or pending
    repeated = Watch.of(root)
    with until_ctrl_c(goes_on=watch is not None):
        while True:
            if watch is not None:
                repeated.look()
            facts = render.status_facts(root, planned)
            of_levels = _on_levels(facts, only)
            chosen = _in_states(of_levels, failed=failed, pending=pending)
            if as_json:
                for experiment in facts["experiments"]:
                    experiment["cells"] = list(filter(chosen, experiment["cells"]))
                say_json(facts)
            elif as_csv:
                say_csv(render.status_rows(facts, chosen))
            else:
                console = Terminal()
                if watch is not None:
                    console.clear()
                asked = render.Asked(chosen, failed=failed, pending=pending) if listed else None
                parts = render.status_tables(facts, tracebacks=traceback, asked=asked, width=console.width)
                for part in parts:
                    console.print(part, soft_wrap=isinstance(part, Text))
                if planned is not None and (said := other_form(planned)):
                    console.print(said, soft_wrap=True)
            if watch is None:
                return
            everything = (cell for experiment in facts["experiments"] for cell in experiment["cells"])
            command = shlex.join(["engine", "execute", *[str(target)] * (planned is not None)])
            if why := repeated.ended(filter(of_levels, everything), command):
                console.print(why, soft_wrap=True)
                return
            at_work = "at work" if repeated.at_work else "waiting for `engine execute` to begin"
            console.print(f"{datetime.now():%H:%M:%S}  {at_work}; again in {watch:g} s, Ctrl-C ends this")
            time.sleep(watch)
            if planned is not None:
                planned.look_up()


def _plan(target: Path | Place, overrides: tuple[str, ...], store: Root | None) -> Plan | None:
    """Give the plan of a spec, None for a store."""
    from engine.planning.from_spec import plan_from_spec

    if not is_spec(target):
        check_alone(target, store, overrides)
        return None
    return plan_from_spec(Path(str(target)), overrides, store)


def _on_levels(facts: dict[str, Any], only: tuple[str, ...]) -> Callable[[dict[str, Any]], bool]:
    """Give the function that tells whether a cell is on levels; UsageError for some that no cell has."""
    from engine.planning.levels import has_levels, known_levels, named_levels

    cells = (cell["levels"] for experiment in facts["experiments"] for cell in experiment["cells"])
    named = named_levels(only, known_levels(cells), "--only")
    return lambda cell: has_levels(cell["levels"], named)


def _in_states(
    of_levels: Callable[[dict[str, Any]], bool], *, failed: bool, pending: bool
) -> Callable[[dict[str, Any]], bool]:
    """Give the function that tells whether such a cell is in a state that is asked for, too."""
    states = {"failed"} if failed else set()
    states |= {"pending", "running"} if pending else set()
    return lambda cell: of_levels(cell) and (not states or cell["state"] in states)
