"""From a plan to units of work, and from what an executor makes of them to one outcome."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import define, evolve, field, frozen

from engine.planning.plan import Plan, PlannedCell
from engine.planning.training_groups import groups_memory, training_groups
from engine.progress import StopRequest
from engine.quantities import count
from engine.running.display import Display
from engine.running.executors.base import Finished, Resources, UnitExecutor, Work
from engine.running.outcome import Outcome
from engine.running.worker_events import WorkerEvents
from specs.tables.experiment import STAGES
from store import Ledger

if TYPE_CHECKING:
    from engine.planning.cost import Cost


@frozen
class Policy:
    """What to do about units that are held, or lost."""

    wait: bool = True  # for stages that other processes hold
    poll: float = 1.0  # seconds between looks at them
    retries: int = 0  # of a stage at which workers die without coming further
    fail_fast: bool = False


CostOf: TypeAlias = Callable[[Iterable[PlannedCell]], "Cost | None"]


def _unknown(_cells: Iterable[PlannedCell]) -> None:
    return None


def _as_told(finished: Finished, _cell: PlannedCell, _stage: str) -> str:
    return finished.error


def _unseen(_stage: str, _key: str) -> None:
    return None


@define
class Scheduler:
    """Hands units to an executor until every cell is done, has failed, or is left to another process."""

    plan: Plan
    ledger: Ledger
    executor: UnitExecutor
    policy: Policy
    display: Display  # told of no stage where the executor itself tells what happens
    stop: StopRequest
    cost: CostOf = _unknown  # of cells, by which long units go first and each gets its memory
    reached: Callable[[str, str], Hashable] = _unseen  # how far a stage and key have come on disk
    explain: Callable[[Finished, PlannedCell, str], str] = _as_told  # why a worker was lost at a stage
    events: WorkerEvents | None = None  # what workers tell of their stages meanwhile
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    together: int = 1  # trainings that go side by side
    outcome: Outcome = field(factory=Outcome)
    _held: list[Work] = field(factory=list)
    _next_look: float = -math.inf
    # By stage and key: the workers that died there since it came further, and how far that was.
    _lost: dict[tuple[str, str], tuple[int, Hashable]] = field(factory=dict)

    def run(self, cells: Iterable[PlannedCell], batch: int = 1) -> Outcome:
        """Run what is pending in these cells, `batch` trainings a unit. Raises Interrupted after Ctrl-C."""
        try:
            self._submit(units(self.plan, cells, batch, self.cost, self.together))
            self._round()
            while self._held and not self._ends_early() and self._wait_for_held():
                self._round()
        finally:
            self.executor.cancel()
        self.outcome.held = [cell.index for work in self._held for cell in work.cells]
        return self.outcome

    def _submit(self, works: Iterable[Work]) -> None:
        silent = self.ledger.claims.silent()
        donors = {donor for cell in self.plan.cells for donor in cell.donors}
        for work in works:
            donated = frozenset(donors & {cell.keys["train"] for cell in work.cells})
            cost, together = self.cost(work.cells), self.together if work.together else 1
            memory = max(cost.memory, groups_memory(self.plan, work.cells, together)) if cost else None
            self.executor.submit(evolve(work, silent=silent, donated=donated), Resources(memory))

    def _round(self) -> None:
        """Run what is submitted to its end, and what is held as soon as it can go on."""
        for finished in self.executor.as_completed():
            if self.events:
                self.events.look(now=finished is not None)
            if finished is not None:
                self._take(finished)
            if self._ends_early():
                break
            if self._held and self.clock() >= self._next_look:
                self._submit_free()

    def _take(self, finished: Finished) -> None:
        if self.events:
            self.events.end(finished.work.cells)
        if finished.outcome is None:
            for work in self._after_loss(finished):
                # As a whole: were it to go on behind the stage that a dead worker's claim still holds, and
                # die again, that would count as another death at this stage.
                if self._is_free(work) or not self.policy.wait:
                    self._submit([work])
                else:
                    self._held.append(work)
            return
        self._add(finished.outcome)
        if waiting := set(finished.outcome.held):
            cells = tuple(cell for cell in finished.work.cells if cell.index in waiting)
            self._held.append(evolve(finished.work, cells=cells))

    def _ends_early(self) -> bool:
        return bool(self.policy.fail_fast and self.outcome.failed)

    def _wait_for_held(self) -> bool:
        """Submit held units that can go on; if that is the policy, wait for other processes until one can."""
        while not (submitted := self._submit_free()) and self.policy.wait:
            self.stop.check()
            held = count(sum(len(work.cells) for work in self._held), "cell")
            self.display.waits(f"waiting for {held} that another process has")
            self.sleep(self.policy.poll)
        return submitted

    def _submit_free(self) -> bool:
        """Submit the held units that can go on, and tell whether there are any.

        Units that had to wait for their donors' trainings wait for no other process.
        """
        began = self.clock()
        free, held = list[Work](), list[Work]()
        for work in self._held:
            asked = self.policy.wait or any(cell.donors for cell in work.cells)
            (free if asked and self._is_free(work) else held).append(work)
        self._held = held
        self._submit(free)
        took = self.clock() - began
        self._next_look = began + took + max(self.policy.poll, 9 * took)  # a tenth of the time at most
        return bool(free)

    def _is_free(self, work: Work) -> bool:
        stages = [(stage, cell.keys[stage]) for cell in work.cells for stage in STAGES if stage in cell.keys]
        due = [(stage, key) for stage, key in stages if not self.ledger.has(stage, key)]
        free = [self.ledger.free(stage, key) for stage, key in due]  # all, so that all are watched
        trainings = {cell.keys["train"] for cell in work.cells}  # donors that the unit trains itself
        donors = {donor for cell in work.cells for donor in cell.donors} - trainings
        return all(free) and all(self._ended("train", donor) for donor in donors)

    def _add(self, outcome: Outcome) -> None:
        self.outcome.add(outcome)
        told = self.events.told if self.events else ()
        for index, stage, summary in outcome.ran:
            if (index, stage) not in told:
                self.display.done(self.plan.cells[index], stage, summary)
        for index, stage, message in outcome.failed:
            if (index, stage) not in told:
                self.display.failed(self.plan.cells[index], stage, message)

    def _after_loss(self, finished: Finished) -> list[Work]:
        """Give a lost unit again; after the last attempt at a stage, what of the unit does not need it.

        Attempts count from where the stage last came further: a worker may be taken away at any time.
        Trainings go one by one then, so that one that kills its worker takes no other with it.
        """
        cells = finished.work.cells
        at = self._lost_at(cells)
        if at is None:
            return []
        cell, stage = at
        key = cell.keys[stage]
        deaths, before = self._lost.get((stage, key), (0, None))
        now = self.reached(stage, key)
        deaths = deaths + 1 if now == before else 1
        self._lost[stage, key] = deaths, now
        why = self.explain(finished, cell, stage)
        if deaths <= self.policy.retries:
            self.display.lost(cell, stage, f"{why}; trying again, {deaths} of {self.policy.retries}")
            return [evolve(finished.work, together=False)]
        message = f"lost {deaths} times, the last time: {why}"
        record = {"error": message, "traceback": message, "levels": self.plan.levels(cell)}
        self.ledger.fail(stage, key, record)
        self._add(Outcome(failed=[(cell.index, stage, message)]))
        name = "train" if stage in ("data", "train") else stage
        rest = tuple(each for each in cells if each.keys.get(name) != cell.keys[name])
        return [evolve(finished.work, cells=rest, together=False)] if rest else []

    def _lost_at(self, cells: Iterable[PlannedCell]) -> tuple[PlannedCell, str] | None:
        """Give the stage that the unit's worker died at: the first that can run and has not ended."""
        stages = ((cell, stage) for cell in cells for stage in STAGES if stage in cell.keys)
        return next(
            (
                (cell, stage)
                for cell, stage in stages
                if not self._ended(stage, cell.keys[stage]) and self._has_donors(cell, stage)
            ),
            None,
        )

    def _has_donors(self, cell: PlannedCell, stage: str) -> bool:
        return all(self._ended("train", donor) for donor in cell.donors_of(stage))

    def _ended(self, stage: str, key: str) -> bool:
        return self.ledger.has(stage, key) or self.ledger.has(stage, key, "failed")


def units(
    plan: Plan, cells: Iterable[PlannedCell], batch: int, cost: CostOf = _unknown, together: int = 1
) -> list[Work]:
    """Give the units of work: cells that share a training, up to `batch` trainings of one model in each.

    Trainings that go side by side, `together` at most, are of one unit, also where these are more.

    The model with the longest training comes first, and of each model the longest, but for those that take
    from others: what is left for the end is short (Graham, SIAM J. Appl. Math. 17, 1969).
    """
    groups = [_Group.of(plan, trainings, cost) for trainings in training_groups(plan, cells, together)]
    longest: dict[Hashable, float] = {}
    for group in groups:
        longest[group.model] = max(group.flops, longest.get(group.model, 0.0))

    def place(group: _Group) -> tuple[Any, ...]:
        takes = any(cell.donors for cell in group.cells)
        return -longest[group.model], group.model, takes, -group.flops

    works: list[Work] = []
    trainings = 0
    for group in sorted(groups, key=place):
        if works and works[-1].model == group.model and trainings + group.trainings <= batch:
            works[-1] = evolve(works[-1], cells=(*works[-1].cells, *group.cells))
            trainings += group.trainings
        else:
            works.append(Work(group.cells, group.model, rank=len(works)))
            trainings = group.trainings
    return works


@frozen
class _Group:
    """Cells of one unit in any case."""

    cells: tuple[PlannedCell, ...]
    model: tuple[str, str]
    trainings: int
    flops: float  # 0 where that is unknown

    @classmethod
    def of(cls, plan: Plan, trainings: list[list[PlannedCell]], cost: CostOf) -> _Group:
        cells = tuple(cell for training in trainings for cell in training)
        known = cost(cells)
        return cls(cells, plan.model(cells[0]), len(trainings), known.flops if known else 0.0)
