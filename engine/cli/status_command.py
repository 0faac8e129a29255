"""The command `status`: what is done, running or failed, once or again and again."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from engine.cli.output import CSV, JSON, check_one, say_csv, say_json
from engine.cli.parameters import AT, FAILED, NEW_STORE, ONLY, PENDING, SET, FiniteRange, is_spec
from engine.errors import UsageError
from engine.terminal import Terminal
from specs.common.spelling import hint
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
    help="Show it again every so many seconds (5), until nothing is left to run.",
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

    check_one(as_json=as_json, as_csv=as_csv)
    if watch is not None and (as_json or as_csv):
        raise UsageError("--watch: expected tables, without --json and --csv")
    planned = _plan(target, overrides, store)
    root = target if planned is None else planned.root
    listed = cells or bool(only) or failed or pending
    while True:
        facts = render.status_facts(root, planned)
        chosen = _chooser(facts, only, failed=failed, pending=pending)
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
            for part in render.status_tables(facts, tracebacks=traceback, chosen=chosen if listed else None):
                console.print(part, soft_wrap=isinstance(part, Text))
        if watch is None or not _going_on(facts):
            return
        time.sleep(watch)
        if planned is not None:
            planned.look_up()


def _plan(target: Path | Place, overrides: tuple[str, ...], store: Root | None) -> Plan | None:
    """Give the plan of a spec, None for a store."""
    from engine.planning.from_spec import plan_from_spec

    return plan_from_spec(Path(str(target)), overrides, store) if is_spec(target) else None


def _going_on(facts: dict[str, Any]) -> bool:
    """Tell whether a cell may still change."""
    cells = (cell for experiment in facts["experiments"] for cell in experiment["cells"])
    return any({"running", "pending"} & set(cell["stages"].values()) for cell in cells)


def _chooser(
    facts: dict[str, Any], only: tuple[str, ...], *, failed: bool, pending: bool
) -> Callable[[dict[str, Any]], bool]:
    """Give the function that tells whether a cell is asked for; UsageError for levels that no cell has."""
    from engine.api import levels_of
    from engine.planning.levels import is_level
    from store.ledger.levels import level_text

    wanted = levels_of(only, "--only")
    cells = [cell for experiment in facts["experiments"] for cell in experiment["cells"]]
    for factor, texts in wanted.items():
        known = dict.fromkeys(
            level_text(cell["levels"][factor]) for cell in cells if factor in cell["levels"]
        )
        if not known:
            factors = dict.fromkeys(name for cell in cells for name in cell["levels"])
            raise UsageError(f"--only {factor}={texts[0]}: no factor {factor!r}{hint(factor, factors)}")
        for text in texts:
            if not any(is_level(cell["levels"].get(factor), text) for cell in cells):
                raise UsageError(f"--only {factor}={text}: expected one of {', '.join(known)}")
    states = {"failed"} if failed else set()
    states |= {"pending", "running"} if pending else set()

    def chosen(cell: dict[str, Any]) -> bool:
        of_level = all(
            factor in cell["levels"] and any(is_level(cell["levels"][factor], text) for text in texts)
            for factor, texts in wanted.items()
        )
        return of_level and (not states or cell["state"] in states)

    return chosen
