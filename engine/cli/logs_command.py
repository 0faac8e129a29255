"""The command `logs`: what executions have said, event by event."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from engine.cli.parameters import EXPERIMENT, ONLY
from engine.cli.spec_or_store import OF_ANY, Results
from engine.errors import UsageError
from engine.terminal import say, until_ctrl_c
from store.backend.locate import place_of
from store.backend.location import Place

SECONDS, FAR = 1.0, 10.0  # between two looks for new lines, in a folder and in a bucket
Event = Mapping[str, Any]


@click.command()
@OF_ANY
@ONLY
@click.option("--all", "every", is_flag=True, help="All executions, not the newest alone.")
@click.option(
    "-f", "--follow", is_flag=True, help="Go on with what is written, also by later executions, until Ctrl-C."
)
@EXPERIMENT
def logs(of: Results, only: tuple[str, ...], every: bool, follow: bool, experiment: str | None) -> None:
    """Show what executions have logged: stages as they begin, go on, end or fail."""
    name = experiment or of.experiment
    if not follow:
        of.check()
    place = place_of(of.store)
    with until_ctrl_c(goes_on=follow):
        if not _names(of, name):
            if not follow:
                raise UsageError(f"{of.store}: holds no log; `engine execute` writes one")
            say(f"{of.store}: no log yet; waiting for `engine execute` (Ctrl-C ends this)", error=True)
            while not _names(of, name):
                time.sleep(SECONDS)
        names = _names(of, name)
        passed = set() if every else set(names[:-1])
        read: dict[str, int] = {}
        while True:
            for log in (log for log in names if log not in passed):
                events, read[log] = _events(place, log, read.get(log, 0), only)
                for event in events:
                    say(_line(event))
            if not follow:
                return
            time.sleep(FAR if place.distant else SECONDS)
            names = _names(of, name)


def _names(of: Results, experiment: str | None) -> list[str]:
    from engine.running.run_log import log_names

    return log_names(place_of(of.store), experiment) if of.is_there else []


def _events(place: Place, log: str, start: int, only: Sequence[str]) -> tuple[Iterator[Event], int]:
    """Give the new events of a log on these levels, and where the next will begin."""
    from engine.planning.levels import has_levels, known_levels, named_levels
    from engine.running.run_log import read_events
    from store import read_manifests

    events, end = read_events(place, log, start)
    if not only:
        return iter(events), end
    cells = (cell for manifest in read_manifests(place).values() for cell in manifest["cells"])
    named = named_levels(only, known_levels(one["levels"] for one in (*cells, *events)), "--only")
    return (event for event in events if has_levels(event["levels"], named)), end


def _line(event: Event) -> str:
    from engine.planning.levels import describe

    written = datetime.fromisoformat(event["time"]).astimezone().strftime("%m-%d %H:%M:%S")
    where = f"cell {event['cell']} {describe(event['levels'])}"
    return f"{written}  {event['event']:<7}{where}: {event['stage']}  {event['text']}".rstrip()
