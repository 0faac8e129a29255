"""From a plan to units of work, and from what an executor makes of them to one outcome."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable

from attrs import define, evolve, field, frozen

from engine.execute import Display, Outcome, by_training
from engine.executors.base import Executor, Finished, Resources, Work
from engine.plan import Plan, PlannedCell
from engine.progress import StopRequest
from specs.model import STAGES
from store import Ledger


@frozen
class Policy:
    """What to do about units that are held, or lost."""

    wait: bool = True  # for stages that other processes hold
    poll: float = 1.0  # seconds between looks at them
    retries: int = 0  # of a unit whose worker died
    fail_fast: bool = False


def _unknown(_cells: Iterable[PlannedCell]) -> None:
    return None


@define
class Coordinator:
    """Hands units to an executor until every cell is done, has failed, or is left to another process."""

    plan: Plan
    ledger: Ledger
    executor: Executor
    policy: Policy
    display: Display  # silent where the executor itself says what happens
    stop: StopRequest
    memory: Callable[[Iterable[PlannedCell]], float | None] = _unknown  # bytes that cells need
    sleep: Callable[[float], None] = time.sleep
    outcome: Outcome = field(factory=Outcome)
    _lost: Counter[int] = field(factory=Counter)  # how often a unit was lost, by its first cell

    def run(self, cells: Iterable[PlannedCell], batch: int = 1) -> Outcome:
        """Run what is pending in these cells, `batch` trainings a unit. Raises Interrupted after Ctrl-C."""
        try:
            self._submit(units(self.plan, cells, batch))
            held = self._round()
            while held and not self._ends_early() and (free := self._left_free(held)):
                self._submit(free)
                held = [work for work in held if work not in free] + self._round()
        finally:
            self.executor.cancel()
        self.outcome.held = [cell.index for work in held for cell in work.cells]
        return self.outcome

    def _submit(self, works: Iterable[Work]) -> None:
        silent = self.ledger.claims.silent()
        for work in works:
            resources = Resources(self.memory(work.cells))
            self.executor.submit(evolve(work, silent=silent), resources)

    def _round(self) -> list[Work]:
        """Run what is submitted to its end; give what other processes hold of it."""
        held = []
        for finished in self.executor.as_completed():
            if finished.outcome is None:
                self._submit(self._after_loss(finished))
            else:
                self._add(finished.outcome)
                if waiting := set(finished.outcome.held):
                    cells = tuple(cell for cell in finished.work.cells if cell.index in waiting)
                    held.append(evolve(finished.work, cells=cells))
            if self._ends_early():
                break
        return held

    def _ends_early(self) -> bool:
        return bool(self.policy.fail_fast and self.outcome.failed)

    def _left_free(self, held: list[Work]) -> list[Work]:
        """Give the units that can go on; if that is the policy, wait for other processes until one can.

        Units that had to wait for their donors' trainings wait for no other process.
        """
        if not self.policy.wait:
            held = [work for work in held if any(cell.donors for cell in work.cells)]
        while not (free := [work for work in held if self._is_free(work)]) and self.policy.wait:
            self.stop.check()
            self.sleep(self.policy.poll)
        return free

    def _is_free(self, work: Work) -> bool:
        stages = [(stage, cell.keys[stage]) for cell in work.cells for stage in STAGES if stage in cell.keys]
        due = [(stage, key) for stage, key in stages if not self.ledger.has(stage, key)]
        free = [self.ledger.free(stage, key) for stage, key in due]  # all, so that all are watched
        return all(free) and all(self._ended("train", donor) for cell in work.cells for donor in cell.donors)

    def _add(self, outcome: Outcome) -> None:
        self.outcome.add(outcome)
        for index, stage, summary in outcome.ran:
            self.display.done(self.plan.cells[index], stage, summary)
        for index, stage, message in outcome.failed:
            self.display.failed(self.plan.cells[index], stage, message)

    def _after_loss(self, finished: Finished) -> list[Work]:
        """Give a lost unit again; after its last attempt, what does not need the stage it was lost at."""
        cells = finished.work.cells
        self._lost[cells[0].index] += 1
        if self._lost[cells[0].index] <= self.policy.retries:
            return [finished.work]
        stages = ((cell, stage) for cell in cells for stage in STAGES if stage in cell.keys)
        at = next(((cell, stage) for cell, stage in stages if not self._ended(stage, cell.keys[stage])), None)
        if at is None:
            return []
        cell, stage = at
        message = f"lost {self._lost[cells[0].index]} times, the last time: {finished.error}"
        record = {"error": message, "traceback": message, "levels": self.plan.levels(cell)}
        self.ledger.fail(stage, cell.keys[stage], record)
        self._add(Outcome(failed=[(cell.index, stage, message)]))
        name = "train" if stage in ("data", "train") else stage
        rest = tuple(each for each in cells if each.keys.get(name) != cell.keys[name])
        return [evolve(finished.work, cells=rest)] if rest else []

    def _ended(self, stage: str, key: str) -> bool:
        return self.ledger.has(stage, key) or self.ledger.has(stage, key, "failed")


def units(plan: Plan, cells: Iterable[PlannedCell], batch: int) -> list[Work]:
    """Give the units of work: cells that share a training, up to `batch` trainings of one model together."""
    works: list[Work] = []
    trainings = 0
    for group in by_training(plan, cells):
        model = plan.matrix.choice("model", group[0].choice)
        if works and works[-1].model == model and trainings < batch:
            works[-1] = evolve(works[-1], cells=(*works[-1].cells, *group))
            trainings += 1
        else:
            works.append(Work(tuple(group), model))
            trainings = 1
    return works
