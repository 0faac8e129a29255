"""The commands that look after a store: `gc`, `verify`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from engine.cli.spec_or_store import OF, Results
from engine.terminal import Terminal, styled

if TYPE_CHECKING:
    from engine.planning.plan import Plan


@click.command()
@OF
@click.option("--delete", is_flag=True, help="Delete what is listed; without this nothing is touched.")
@click.option(
    "--keep-spec", "specs", multiple=True, type=click.Path(path_type=Path), metavar="SPEC",
    help="Spare what this spec needs, too; repeatable.",
)  # fmt: skip
def gc(of: Results, delete: bool, specs: tuple[Path, ...]) -> None:
    """List, or delete, what neither an experiment of a store nor SPEC needs any more."""
    from engine.planning.from_spec import plan_from_spec
    from engine.quantities import si
    from store.upkeep.garbage import delete_garbage, find_garbage

    store = of.store
    named = (plan_from_spec(spec, store=store) for spec in specs)
    keep = _keys_of(planned for planned in (of.plan(), *named) if planned)
    garbage_found = (delete_garbage if delete else find_garbage)(store, keep)
    table = Table(box=None, pad_edge=False)
    for column in ("size", "path", "because"):
        table.add_column(column, overflow="fold", justify="right" if column == "size" else "left")
    for garbage in garbage_found:
        table.add_row(si(garbage.bytes, "B"), garbage.what, garbage.why)
    total = f"{len(garbage_found):,} items, {si(sum(garbage.bytes for garbage in garbage_found), 'B')}"
    console = Terminal()
    if garbage_found:
        console.print(table)
    if delete:
        console.print(f"deleted: {total}")
    else:
        hint = "; --delete removes them" if garbage_found else ""
        console.print(f"garbage: {total}{hint}")


@click.command()
@OF
@click.option("--fix", "fixing", is_flag=True, help="Mark broken stages as to be done again.")
def verify(of: Results, fixing: bool) -> None:
    """Read all results of a store and check them; exit code 1 where anything is wrong."""
    from store.upkeep.mend import fix
    from store.upkeep.verify import verify as check

    store = of.store
    verified, console = check(store), Terminal()
    for note in verified.notes:
        console.print(note, soft_wrap=True)
    for trouble in verified.troubles:
        parts = f"{trouble.stage} {trouble.key}".strip(), trouble.path, trouble.message
        console.print(styled(": ".join(filter(None, parts)), "red"), soft_wrap=True)
        console.print(f"  {trouble.remedy}", soft_wrap=True)
    for line in fix(store, verified.troubles) if fixing else ():
        console.print(line, soft_wrap=True)
    console.print(f"{verified.records:,} done stages read, {len(verified.troubles):,} problems")
    sys.exit(1 if verified.troubles else 0)


def _keys_of(plans: Iterable[Plan]) -> dict[str, set[str]]:
    """Give the stage keys of all cells of some plans, by stage."""
    keys: dict[str, set[str]] = {}
    for plan in plans:
        for stage, states in plan.states.items():
            keys.setdefault(stage, set()).update(states)
    return keys
