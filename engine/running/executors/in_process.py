"""The default executor: this process, one unit after another."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from attrs import define, field

from engine.running.cell_runner import CellRunner
from engine.running.executors.base import Finished, Resources, Work


@define
class InProcess:
    """Runs each unit in this process."""

    execution: CellRunner
    _queue: deque[Work] = field(factory=deque)

    def submit(self, work: Work, resources: Resources) -> None:
        """Take a unit."""
        self._queue.append(work)

    def as_completed(self) -> Iterator[Finished | None]:
        """Run the units in the order in which they came."""
        while self._queue:
            work = self._queue.popleft()
            yield Finished(work, self.execution.run(work.cells, together=work.together))

    def cancel(self) -> None:
        """Drop what has not begun."""
        self._queue.clear()
