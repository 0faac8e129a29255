"""What an execution is asked to do, and what it did."""

from __future__ import annotations

from attrs import define, field, frozen


@frozen
class Options:
    """How to execute; nothing here changes a result."""

    fail_fast: bool = False
    retry_failed: bool = False
    together: int = 1  # trainings of one model in one pass


@define
class Outcome:
    """What an execution did; cells are named by their index in the plan."""

    ran: list[tuple[int, str, dict[str, float]]] = field(factory=list)  # cell, stage, summary
    failed: list[tuple[int, str, str]] = field(factory=list)  # cell, stage, message
    left_failed: int = 0  # stages that failed in an earlier execution and were not tried again
    held: list[int] = field(factory=list)  # cells with a stage that another live process is running
    put_back: bool = False
    """Whether the experiment stays as it was: nothing was done of the cells that replace its own."""

    def add(self, other: Outcome) -> None:
        """Take in what another execution did; what is held is a state, and not added up.

        Args:
            other: the outcome of some of the cells.
        """
        self.ran += other.ran
        self.failed += other.failed
        self.left_failed += other.left_failed

    def _repr_html_(self) -> str:
        from engine.running.outcome_html import outcome_html

        return outcome_html(self)
