"""What an execution says while it runs, to a terminal, a notebook, a log or a tracker."""

from __future__ import annotations

from engine.planning.plan import PlannedCell
from engine.progress import Report, silent

LOADING = "load"
"""What `begin` names beside the stages: the base model is being loaded. It always ends by `left`."""


class Display:
    """What an execution says while it runs; this one says nothing."""

    def begin(self, cell: PlannedCell, stage: str) -> Report:
        """Say that a stage begins; give its progress report.

        Args:
            cell: the cell, with its levels and keys.
            stage: the stage's name, as `train`; or `load`, while a base model is loaded.

        Returns:
            what is told of the stage's progress.
        """
        return silent

    def done(self, cell: PlannedCell, stage: str, summary: dict[str, float]) -> None:
        """Say that a stage is done.

        Args:
            cell: the cell.
            stage: the stage's name.
            summary: the stage's single numbers, as its record has them.
        """

    def failed(self, cell: PlannedCell, stage: str, message: str) -> None:
        """Say that a stage failed.

        Args:
            cell: the cell.
            stage: the stage's name.
            message: the error, in one line.
        """

    def lost(self, cell: PlannedCell, stage: str, message: str) -> None:
        """Say that the process that ran a stage has died, and what comes of it.

        Args:
            cell: the cell.
            stage: the stage's name.
            message: how the process ended, and whether its work is tried again.
        """

    def left(self, cell: PlannedCell, stage: str) -> None:
        """Say that a stage that had begun is not at work here any more: the last that is said of it.

        It comes after `done` or `failed`; alone where the process stops, or another one has the stage.

        Args:
            cell: the cell.
            stage: the stage's name.
        """

    def waits(self, why: str) -> None:
        """Say why nothing is at work.

        Args:
            why: what is waited for, in a few words.
        """


class Relay(Display):
    """Passes everything on to another display."""

    def __init__(self, display: Display) -> None:
        self.display = display

    def begin(self, cell: PlannedCell, stage: str) -> Report:
        """Pass on that a stage begins."""
        return self.display.begin(cell, stage)

    def done(self, cell: PlannedCell, stage: str, summary: dict[str, float]) -> None:
        """Pass on a stage's numbers."""
        self.display.done(cell, stage, summary)

    def failed(self, cell: PlannedCell, stage: str, message: str) -> None:
        """Pass on a failure."""
        self.display.failed(cell, stage, message)

    def lost(self, cell: PlannedCell, stage: str, message: str) -> None:
        """Pass on how a worker died."""
        self.display.lost(cell, stage, message)

    def left(self, cell: PlannedCell, stage: str) -> None:
        """Pass on that a stage is not at work any more."""
        self.display.left(cell, stage)

    def waits(self, why: str) -> None:
        """Pass on what is waited for."""
        self.display.waits(why)


class Waits(Display):
    """Passes on what is waited for alone: of stages somebody else tells."""

    def __init__(self, display: Display) -> None:
        self.waits = display.waits  # type: ignore[method-assign]
