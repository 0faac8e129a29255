"""The command `logs`: what executions have said, event by event."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click

from engine.cli.parameters import EXPERIMENT, RESULTS, Results
from engine.errors import UsageError
from engine.terminal import say
from store.backend.locate import place_of

SECONDS = 1.0  # between two looks for new lines


@click.command()
@click.argument("of", type=RESULTS, metavar="SPEC|STORE")
@click.option("--cell", multiple=True, metavar="FACTOR=LEVEL,…", help="Only these cells; repeatable.")
@click.option("--all", "every", is_flag=True, help="All executions, not the newest alone.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written, until Ctrl-C.")
@EXPERIMENT
def logs(of: Results, cell: tuple[str, ...], every: bool, follow: bool, experiment: str | None) -> None:
    """Show what executions have logged: stages as they begin, go on, end or fail."""
    from engine.api import levels_of
    from engine.planning.levels import parted
    from engine.running.run_log import log_names, read_events

    wanted = levels_of([part for text in cell for part in parted(text)], "--cell")
    place = place_of(of.store)
    names = log_names(place, experiment or of.experiment)
    if not names:
        raise UsageError(f"{of.store}: holds no log; `engine execute` writes one")
    for name in names if every else names[-1:]:
        read = 0
        while True:
            events, read = read_events(place, name, read)
            for record in events:
                if _is_of(record, wanted):
                    say(_line(record))
            if not follow or name != names[-1]:
                break
            time.sleep(SECONDS)


def _is_of(record: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    from engine.planning.levels import is_level

    return all(
        factor in record["levels"] and any(is_level(record["levels"][factor], text) for text in texts)
        for factor, texts in wanted.items()
    )


def _line(record: Mapping[str, Any]) -> str:
    from engine.planning.levels import describe

    where = f"cell {record['cell']} {describe(record['levels'])}"
    return f"{record['time']}  {record['event']:<7}{where}: {record['stage']}  {record['text']}".rstrip()
