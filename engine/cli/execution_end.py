"""The end of `engine execute`: the person's own command, which is told how it ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from engine.planning.plan import Plan
from engine.running.notify import notify

if TYPE_CHECKING:
    from rich.console import Console


def tell_end(plan: Plan, state: str, summary: str, console: Console) -> None:
    """Run the person's own command; say where that did not work."""
    if trouble := notify(plan, state, summary):
        console.print(trouble, style="yellow", soft_wrap=True)


@contextmanager
def told_of_errors(plan: Plan, console: Console) -> Iterator[None]:
    """Run the person's own command where an execution ends by an error or Ctrl-C, and pass that on."""
    try:
        yield
    except Exception as error:
        told = str(error).strip().splitlines() or [type(error).__name__]
        tell_end(plan, "failed", told[0], console)
        raise
    except KeyboardInterrupt:
        tell_end(plan, "stopped", "Stopped.", console)
        raise
