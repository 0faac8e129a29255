"""What is at work in an execution and how far it is, for the displays that a person looks at."""

from __future__ import annotations

from attrs import define

from engine.planning.plan import Plan, PlannedCell
from engine.progress import Report
from engine.running.display import Display
from engine.running.time_left import TimeLeft


@define
class AtWork:
    """A stage that has begun and not ended: units of work done, of total (0: not known), and a short text."""

    cell: PlannedCell
    stage: str
    done: int = 0
    total: int = 0
    text: str = ""


class ProgressDisplay(Display):
    """Keeps what is at work, one entry for each worker, and the time left; what it shows is for others."""

    def __init__(self, plan: Plan, left: TimeLeft) -> None:
        self.plan, self.left_over_all = plan, left
        self._slots: list[AtWork | None] = []  # a worker's next stage takes the place of its last one
        self._waits = "starting"

    @property
    def at_work(self) -> list[AtWork]:
        """The stages at work, in an order that stays."""
        return [work for work in list(self._slots) if work is not None]

    @property
    def over_all(self) -> str:
        """How many stages have ended, the time left, and what is waited for."""
        return "; ".join(filter(None, [str(self.left_over_all), self._waits]))

    def changed(self) -> None:
        """Show what has begun or ended."""

    def moved(self) -> None:
        """Show that something has gone on; called for every step."""

    def begin(self, cell: PlannedCell, stage: str) -> Report:
        """Keep what has begun."""
        work = AtWork(cell, stage)
        free = next((place for place, other in enumerate(self._slots) if other is None), None)
        if free is None:
            self._slots.append(work)
        else:
            self._slots[free] = work
        self._waits = ""
        self.left_over_all.begin(cell, stage)
        self.changed()

        def report(done: int, total: int, text: str) -> None:
            work.done, work.total, work.text = done, total, text
            self.left_over_all.runs(cell, stage, done, total)
            self.moved()

        return report

    def done(self, cell: PlannedCell, stage: str, summary: dict[str, float]) -> None:
        """Count a stage."""
        self._drop(cell, stage)
        self.left_over_all.done(cell, stage, summary)
        self.changed()

    def failed(self, cell: PlannedCell, stage: str, message: str) -> None:
        """Count a failure, with what needs its result."""
        self._drop(cell, stage)
        self.left_over_all.failed(cell, stage)
        self.changed()

    def lost(self, cell: PlannedCell, stage: str, message: str) -> None:
        """Drop what a worker has left."""
        self.left(cell, stage)

    def left(self, cell: PlannedCell, stage: str) -> None:
        """Drop what is not at work any more."""
        if self._drop(cell, stage):
            self.left_over_all.stop(cell, stage)
            self.changed()

    def waits(self, why: str) -> None:
        """Keep what is waited for."""
        self._waits = why
        self.changed()

    def _drop(self, cell: PlannedCell, stage: str) -> bool:
        """Take a stage from its place; tell whether it was there."""
        for place, work in enumerate(self._slots):
            if work is not None and (work.cell.index, work.stage) == (cell.index, stage):
                self._slots[place] = None
                return True
        return False
