"""In a notebook: what an execution did, and how far it is while it runs."""

from __future__ import annotations

import sys
import time
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

from engine.planning.levels import describe
from engine.planning.plan import Plan, PlannedCell
from engine.planning.plan_html import failure_table
from engine.quantities import count
from engine.running.progress_display import AtWork, ProgressDisplay
from engine.running.time_left import TimeLeft
from specs.common.markup import Markup, element, quiet, state, table
from specs.tables.experiment import STAGES

if TYPE_CHECKING:
    from engine.running.outcome import Outcome

SECONDS = 0.5  # between two updates: a notebook keeps up with a few a second


def outcome_html(outcome: Outcome) -> str:
    """Give what an execution did as HTML."""
    number = Counter(stage for _, stage, _ in outcome.ran)
    seconds: dict[str, float] = {}
    for _, stage, summary in outcome.ran:
        seconds[stage] = seconds.get(stage, 0.0) + summary.get("seconds", 0.0)
    rows = [(stage, str(number[stage]), f"{seconds[stage]:,.0f} s") for stage in STAGES if number[stage]]
    parts = [table(("stage", "ran", "time"), rows)] if rows else []
    if not (rows or outcome.failed or outcome.left_failed or outcome.held):
        parts.append(quiet("Nothing was left to run."))
    if outcome.failed:
        failed = [(str(cell + 1), stage, message) for cell, stage, message in outcome.failed]
        parts.append(failure_table(failed, "failed cell"))
    if outcome.left_failed:
        parts.append(
            quiet(f"{count(outcome.left_failed, 'stage')} failed before; retry_failed=True runs them again.")
        )
    if outcome.held:
        parts.append(quiet(f"{count(len(outcome.held), 'cell')} left to another process."))
    return element("div", *parts)


def in_notebook() -> bool:
    """Tell whether this is the kernel of a notebook, whose cells show HTML."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def import_tqdm() -> None:
    """Import tqdm in a notebook without its warning that ipywidgets are missing, which nothing here needs."""
    if not in_notebook():
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tqdm.auto  # noqa: F401


class NotebookDisplay(ProgressDisplay):
    """One output that says how far an execution is, and what failed."""

    def __init__(self, plan: Plan, left: TimeLeft) -> None:
        from IPython.display import display  # type: ignore[import-not-found]

        super().__init__(plan, left)
        self._failed: list[tuple[str, str, str]] = []
        self._last = 0.0
        self._handle: Any = display(self, display_id=True)

    def _repr_html_(self) -> str:
        return self.html()

    def html(self) -> Markup:
        """Give how far it is."""
        rows = [(state("running"), self._told(work)) for work in self.at_work]
        parts = [element("p", element("b", self.plan.matrix.experiment.name), f"  {self.over_all}")]
        parts += [table(("", "at work"), rows)] if rows else []
        parts += [failure_table(self._failed)] if self._failed else []
        return element("div", *parts)

    def changed(self) -> None:
        """Show what has begun or ended."""
        self._last = time.monotonic()
        self._handle.update(self)

    def moved(self) -> None:
        """Show now and then that something has gone on."""
        if time.monotonic() - self._last >= SECONDS:
            self.changed()

    def failed(self, cell: PlannedCell, stage: str, message: str) -> None:
        """Show a failure."""
        self._failed.append((describe(self.plan.levels(cell)), stage, message))
        super().failed(cell, stage, message)

    def lost(self, cell: PlannedCell, stage: str, message: str) -> None:
        """Show how a worker died."""
        self._failed.append((describe(self.plan.levels(cell)), stage, message))
        super().lost(cell, stage, message)
        self.changed()

    def _told(self, work: AtWork) -> str:
        levels = describe(self.plan.levels(work.cell))
        steps = f"{work.done:,}/{work.total:,}" if work.total else ""
        text = " ".join(filter(None, [steps, work.text]))
        return f"cell {work.cell.index + 1}/{len(self.plan.cells)} {levels}: {work.stage}  {text}"
