"""What `engine execute` shows: in a terminal a line for each worker, elsewhere plain lines now and then."""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import TracebackType

from rich.console import Console, ConsoleOptions
from rich.text import Text

from engine.cli.progress_lines import Line, drawn
from engine.planning.levels import describe, known_levels
from engine.planning.plan import Plan, PlannedCell
from engine.progress import Report
from engine.running.progress_display import AtWork, ProgressDisplay
from engine.running.time_left import TimeLeft
from engine.terminal import joined, live, styled

SECONDS = 60.0  # between two lines on what is at work, where no terminal is

# The numbers worth a place on a stage's closing line.
SHOWN = {
    "train": {"train_loss": "loss {:.3f}"},
    "lens": {"lens_kl": "KL {:.3f}"},
    "jacobian": {"jacobian_error": "standard error {:.1%}"},
    "evaluate": {"accuracy": "accuracy {:.1%}", "mae": "mean error {:.2f}"},
}
# What was not measured or trained as a person may think, where there is any.
NOTED = {
    "train_examples_too_long": "{:,.0f} training examples too long",
    "train_examples_label_alone": "{:,.0f} without explanation",
    "test_examples_too_long": "{:,.0f} test examples too long",
    "probed_examples_too_long": "{:,.0f} test examples too long",
    "probed_examples_label_alone": "{:,.0f} without explanation",
    "intervened_examples_too_long": "{:,.0f} test examples too long",
    "intervened_examples_label_alone": "{:,.0f} without explanation",
    "dropped_unexplained": "{:,.0f} rows without explanation left out",
}


STOPPING = "Stopping once what is at work is saved; Ctrl-C again ends at once."


class TerminalDisplay(ProgressDisplay):
    """Lines of what is at work, which stay at the foot; every finished stage leaves one above them.

    quiet: what fails alone. verbose: also when a stage begins, and all its numbers.
    """

    def __init__(
        self, console: Console, plan: Plan, left: TimeLeft, *, quiet: bool = False, verbose: bool = False
    ) -> None:
        super().__init__(plan, left)
        self._console, self._quiet, self._verbose = console, quiet, verbose
        stays = console.is_terminal and not console.is_dumb_terminal and not quiet
        self._live = live(console, self._lines) if stays else None
        known = known_levels(map(plan.levels, plan.cells))
        self._varying = [factor for factor, levels in known.items() if len(levels) > 1]
        self._told = time.monotonic()

    def __enter__(self) -> TerminalDisplay:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def stopping(self) -> None:
        """Say that a stop was asked for, which takes until what is at work has been saved."""
        if not self._quiet:
            self._console.print(STOPPING, soft_wrap=True)

    def moved(self) -> None:
        """Print now and then what is at work, where no lines show it."""
        if self._live or self._quiet or time.monotonic() - self._told < SECONDS:
            return
        self._told = time.monotonic()
        for work in self.at_work:
            line = self._line(work)
            text = " ".join(filter(None, [line.steps, line.text]))
            self._console.print(f"runs    {self._name(work.cell)}: {work.stage}  {text}", soft_wrap=True)
        self._console.print(f"        {self.over_all}", soft_wrap=True)

    def begin(self, cell: PlannedCell, stage: str) -> Report:
        """Show what begins."""
        if self._verbose:
            self._console.print(f"begins  {self._name(cell)}: {stage}", soft_wrap=True)
        return super().begin(cell, stage)

    def done(self, cell: PlannedCell, stage: str, summary: dict[str, float]) -> None:
        """Print the stage's closing line."""
        super().done(cell, stage, summary)
        if self._quiet:
            return
        shown = [form.format(summary[name]) for name, form in SHOWN.get(stage, {}).items() if name in summary]
        shown += [form.format(summary[name]) for name, form in NOTED.items() if summary.get(name)]
        if self._verbose:
            shown = [f"{name} {value:.6g}" for name, value in summary.items() if name != "seconds"]
        seconds = f"{summary['seconds']:.0f} s" if "seconds" in summary else ""
        over_all = "" if self._live else self.over_all
        text = "; ".join(filter(None, [", ".join(filter(None, [*shown, seconds])), over_all]))
        line = joined([styled("done", "green"), f"    {self._name(cell)}: {stage}  {text}"])
        self._console.print(line, soft_wrap=not self._live)

    def failed(self, cell: PlannedCell, stage: str, message: str) -> None:
        """Print the failure; its traceback is in the store."""
        super().failed(cell, stage, message)
        line = joined(
            [styled("failed", "red"), f"  {self._name(cell)}: {stage}  ", styled(message, lines=True)]
        )
        self._console.print(line, soft_wrap=True)

    def lost(self, cell: PlannedCell, stage: str, message: str) -> None:
        """Print how a worker died, and that its stage is given again."""
        super().lost(cell, stage, message)
        line = joined([styled("lost", "yellow"), f"    {self._name(cell)}: {stage}  {message}"])
        self._console.print(line, soft_wrap=True)

    def _name(self, cell: PlannedCell) -> str:
        return f"cell {cell.index + 1}/{len(self.plan.cells)} {describe(self.plan.levels(cell))}"

    def _line(self, work: AtWork) -> Line:
        levels = self.plan.levels(work.cell)
        name = describe({factor: levels[factor] for factor in self._varying if factor in levels})
        number = f"{work.cell.index + 1}/{len(self.plan.cells)}"
        return Line(number, name, work.stage, work.done, work.total, work.text)

    def _lines(self, options: ConsoleOptions) -> Iterable[Text]:
        """Give the lines at the foot, by the room that there is; the last says how far all of it is."""
        works = self.at_work
        room = max(1, options.max_height - 3)
        yield from drawn([self._line(work) for work in works[:room]], options.max_width)
        over_all = styled(self.over_all)
        if len(works) > room:
            over_all = joined([f"… and {len(works) - room} more at work; ", over_all])
        over_all.truncate(options.max_width, overflow="ellipsis")
        yield over_all
