"""`engine status --watch`: how long it goes on, and why it ends.

It goes on while an execution or a worker is at work in the store, as its claims tell, or until all cells that
are asked for are done. Where nothing is at work at first, it waits a minute for an execution to begin.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

from attrs import define, field

from engine.quantities import count
from store.backend.locate import place_of
from store.backend.location import Root
from store.lease.claims import Claims

PATIENCE = 60.0  # seconds in which an execution has to begin


@define
class Watch:
    """Looks at a store again and again."""

    _claims: Claims
    _began: float | None = None
    _seen: bool = False
    at_work: bool = field(default=False, init=False)
    """Whether anything was at work at the last look."""

    @classmethod
    def of(cls, root: Root) -> Watch:
        """Give a watch of a store, which need not be there yet."""
        return cls(Claims(place_of(root)))

    def look(self) -> None:
        """Learn whether anything is at work; states that are read afterwards are at least as new."""
        self._began = time.monotonic() if self._began is None else self._began
        self.at_work = bool(self._claims.at_work())
        self._seen |= self.at_work

    def ended(self, cells: Iterable[dict[str, Any]], command: str) -> str:
        """Say why it ends, of the cells that are asked for; "" while it goes on.

        command: what would run those that are left.
        """
        states = Counter(cell["state"] for cell in cells)
        if states and not states.keys() - {"done"}:
            return f"all is done: {count(states['done'], 'cell')}"
        waits = not self._seen and states.keys() - {"done", "failed"}
        if self.at_work or (waits and time.monotonic() - (self._began or 0.0) < PATIENCE):
            return ""
        states["pending"] += states.pop("running", 0)  # claimed by a process that does not answer any more
        told = ", ".join(f"{number} {state}" for state, number in states.items() if number)
        advice = [f"`{command}` runs what is pending"] * bool(states["pending"])
        advice += ["--retry-failed runs what failed again"] * bool(states["failed"])
        begun = "nothing is at work any more" if self._seen else "nothing is at work"
        return "; ".join([f"{begun}: {told} of {count(states.total(), 'cell')}" if told else begun, *advice])
