"""What `engine execute` shows in a terminal: progress bars, or plain lines where there is no terminal."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console

from engine.planning.levels import describe
from engine.planning.plan import Plan, PlannedCell
from engine.progress import Report
from engine.running.display import Display
from engine.running.time_left import TimeLeft
from engine.terminal import Words, joined, progress, styled

# The numbers worth a place on a stage's closing line.
SHOWN = {
    "train": {"train_loss": "loss {:.3f}"},
    "lens": {"lens_kl": "KL {:.3f}"},
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


class TerminalDisplay(Display):
    """A bar of the running stage; every finished stage leaves one line, with the time left over all.

    quiet: what fails alone. verbose: also when a stage begins, and all its numbers.
    """

    def __init__(
        self, console: Console, plan: Plan, left: TimeLeft, *, quiet: bool = False, verbose: bool = False
    ) -> None:
        self._console, self._plan, self._left = console, plan, left
        self._quiet, self._verbose = quiet, verbose
        self._progress = progress(console, Words("{task.fields[text]}"), shown=not quiet)
        self._stage = self._progress.add_task("", total=None, text="", visible=False)

    def __enter__(self) -> TerminalDisplay:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, cell: PlannedCell, stage: str) -> Report:
        """Show a fresh bar for the stage."""
        if self._verbose:
            self._console.print(f"begins  {self._name(cell)}: {stage}", soft_wrap=True)
        self._progress.reset(self._stage, description=f"{self._name(cell)}: {stage}", text="", visible=True)

        def report(done: int, total: int, text: str) -> None:
            shown = "; ".join(filter(None, [text, str(self._left)]))
            self._progress.update(self._stage, completed=done, total=total, text=shown)

        return report

    def done(self, cell: PlannedCell, stage: str, summary: dict[str, float]) -> None:
        """Print the stage's closing line."""
        self._left.done(cell, stage, summary)
        if self._quiet:
            return
        shown = [form.format(summary[name]) for name, form in SHOWN.get(stage, {}).items() if name in summary]
        shown += [form.format(summary[name]) for name, form in NOTED.items() if summary.get(name)]
        if self._verbose:
            shown = [f"{name} {value:.6g}" for name, value in summary.items() if name != "seconds"]
        seconds = f"{summary['seconds']:.0f} s" if "seconds" in summary else ""
        text = "; ".join(filter(None, [", ".join(filter(None, [*shown, seconds])), str(self._left)]))
        line = joined([styled("done", "green"), f"    {self._name(cell)}: {stage}  {text}"])
        self._console.print(line, soft_wrap=True)

    def failed(self, cell: PlannedCell, stage: str, message: str) -> None:
        """Print the failure; its traceback is in the store."""
        self._left.failed(cell, stage)
        line = joined(
            [styled("failed", "red"), f"  {self._name(cell)}: {stage}  ", styled(message, lines=True)]
        )
        self._console.print(line, soft_wrap=True)

    def lost(self, cell: PlannedCell, stage: str, message: str) -> None:
        """Print how a worker died, and that its stage is given again."""
        line = joined([styled("lost", "yellow"), f"    {self._name(cell)}: {stage}  {message}"])
        self._console.print(line, soft_wrap=True)

    def _name(self, cell: PlannedCell) -> str:
        return f"cell {cell.index + 1}/{len(self._plan.cells)} {describe(self._plan.levels(cell))}"
