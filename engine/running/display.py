"""What an execution says while it runs, to a terminal, a notebook, a log or a tracker."""

from __future__ import annotations

from engine.planning.plan import PlannedCell
from engine.progress import Report, silent


class Display:
    """What an execution says while it runs; this one says nothing."""

    def begin(self, cell: PlannedCell, stage: str) -> Report:
        """Say that a stage begins; give its progress report.

        Args:
            cell: the cell, with its levels and keys.
            stage: the stage's name, as `train`.

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
