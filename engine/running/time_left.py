"""How far an execution has come over all its stages, and the time it has left by what stages have taken."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence

from attrs import define, field, frozen

from engine.planning.estimate import likeness, stage_costs
from engine.planning.plan import Plan, PlannedCell
from engine.quantities import count, duration
from specs.tables.executor import Executor
from specs.tables.experiment import STAGES
from store import Ledger, StoreError

PACE = 3.0  # seconds of a stage's own progress that tell how long it will take
READ = 4  # records of stages alike that are read: seconds of one and the same work differ little
CONSUMERS = {
    "data": STAGES,
    "train": (
        "train",
        "evaluate",
        "neutral",
        "tasks",
        "inspect",
        "lens",
        "jacobian",
        "probe",
        "along",
        "differences",
        "intervene",
    ),
    "lens": ("lens", "probe", "along"),
    "jacobian": ("jacobian", "probe", "along"),
    "differences": ("differences", "intervene"),
}


@frozen
class Run:
    """A stage's run that is to be done, once for all cells that share it."""

    stage: str
    key: str
    kind: Hashable  # runs of one kind do the same work
    training: str  # one worker does what belongs to a training
    flops: float  # 0 where that is unknown
    seconds: float  # on the device that the spec names, 0 where it names none


@define
class Going:
    """A run that has begun: when it did, and the first and the newest report on its progress."""

    began: float
    first: tuple[float, int] | None = None  # time, units done: not 0 where it goes on where it was stopped
    last: tuple[float, int] | None = None
    total: int = 0

    def report(self, now: float, done: int, total: int) -> None:
        """Take in how far it is."""
        self.first, self.last, self.total = self.first or (now, done), (now, done), total

    @property
    def pace(self) -> float | None:
        """Seconds that a unit takes; None as long as too little is known."""
        if self.first is None or self.last is None:
            return None
        seconds, units = (self.last[at] - self.first[at] for at in (0, 1))
        return seconds / units if units > 0 and seconds >= PACE else None

    @property
    def whole(self) -> float | None:
        """Seconds that such a run takes from its start, by its own pace."""
        return None if self.pace is None else self.pace * self.total

    def rest(self, expected: float | None, now: float) -> float | None:
        """Seconds until it ends, by its own pace, or else by what such a run is expected to take."""
        if self.pace is not None and self.last is not None:
            return max(0.0, self.pace * (self.total - self.last[1]) - (now - self.last[0]))
        return None if expected is None else max(0.0, expected - (now - self.began))


@define
class TimeLeft:
    """The stages of an execution, what they are expected to take, and those that have ended."""

    workers: int | None  # None: nobody knows how many there will be
    _cells: Sequence[PlannedCell]
    _due: dict[tuple[str, str], Run]
    _total: int = 0
    _seconds: dict[Hashable, list[float]] = field(factory=lambda: defaultdict(list))
    _work: dict[str, list[tuple[float, float]]] = field(factory=lambda: defaultdict(list))  # FLOPs, seconds
    _going: dict[tuple[str, str], Going] = field(factory=dict)
    _most: int = 0  # stages at work at a time
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def of(
        cls, plan: Plan, cells: Sequence[PlannedCell], executor: Executor, *, retry_failed: bool
    ) -> TimeLeft:
        """Look up what is to be done in these cells, and how long the store says that the like of it took."""
        costs = {
            (stage, cell.keys[stage]): cost
            for stage, alike, cost in stage_costs(plan)
            if cost
            for cell in alike
        }
        runs: dict[tuple[str, str], Run] = {}
        for stage in STAGES:
            kind = likeness(plan, stage)
            for cell in cells:
                for key in _keys(cell, stage):
                    if plan.states[stage][key] != "cached":
                        cost = costs.get((stage, key))
                        work = (cost.flops, cost.seconds) if cost else (0.0, 0.0)
                        run = Run(stage, key, (stage, kind(cell)), cell.keys["train"], *work)
                        runs.setdefault((stage, key), run)
        left = cls(executor.workers or (1 if executor.kind == "local" else None), cells, runs)
        for cell in () if retry_failed else cells:
            for stage, state in plan.stage_states(cell).items():
                if state == "failed":
                    left.failed(cell, stage)
        left._total = len(runs)
        left._read(plan)
        return left

    def _read(self, plan: Plan) -> None:
        """Take the seconds of finished runs of the kinds that are due from their records."""
        ledger = Ledger(plan.root)
        for stage in STAGES:
            due = {run.kind: run for run in self._due.values() if run.stage == stage}
            if not due:
                continue
            kind, alike = likeness(plan, stage), defaultdict[Run, set[str]](set)
            for cell in plan.cells:
                for key in _keys(cell, stage):
                    run = due.get((stage, kind(cell)))
                    if run and plan.states[stage][key] == "cached" and len(alike[run]) < READ:
                        alike[run].add(key)
            try:
                records = ledger.records(stage, sorted(key for keys in alike.values() for key in keys))
            except (StoreError, OSError):  # an estimate is worth no failure
                continue
            for run, keys in alike.items():
                for key in keys:
                    self._measure(run, records[key].get("seconds"))

    def _measure(self, run: Run, seconds: float | None) -> None:
        if seconds:
            self._seconds[run.kind].append(seconds)
            if run.flops:
                self._work[run.stage].append((run.flops, seconds))

    def begin(self, cell: PlannedCell, stage: str) -> None:
        """Note that a stage has begun."""
        if (key := self._due_key(cell, stage)) is not None:
            self._going[stage, key] = Going(self.clock())
            self._most = max(self._most, len(self._going))

    def runs(self, cell: PlannedCell, stage: str, done: int, total: int) -> None:
        """Note how far a stage has come."""
        if going := self._going.get((stage, self._due_key(cell, stage) or "")):
            going.report(self.clock(), done, total)

    def stop(self, cell: PlannedCell, stage: str) -> None:
        """Note that a stage that had begun is not at work any more."""
        for key in _keys(cell, stage):
            self._going.pop((stage, key), None)

    def done(self, cell: PlannedCell, stage: str, summary: Mapping[str, float]) -> None:
        """Note that a stage has ended, and its seconds."""
        key = self._due_key(cell, stage)
        self.stop(cell, stage)
        if key is not None:
            self._measure(self._due.pop((stage, key)), summary.get("seconds"))

    def failed(self, cell: PlannedCell, stage: str) -> None:
        """Note that a stage has failed, and with it what needs its result."""
        self.stop(cell, stage)
        lacking = [each for each in self._cells if set(_keys(each, stage)) & set(_keys(cell, stage))]
        for name in CONSUMERS.get(stage, (stage,)):
            for each in lacking:
                if (stage, name) != ("differences", "intervene") or each.steered:
                    for key in _keys(each, name):
                        self._due.pop((name, key), None)

    @property
    def seconds(self) -> float | None:
        """Give the seconds until all is done; None where nothing is known of some stage.

        The longest unit of work goes to the first free worker, as when units are handed out.
        """
        units: dict[str, float] = defaultdict(float)
        now, paced = self.clock(), self._paced()
        for run in self._due.values():
            seconds = self._expected(run, paced)
            if going := self._going.get((run.stage, run.key)):
                seconds = going.rest(seconds, now)
            if seconds is None:
                return None
            units[run.training] += seconds
        workers = self.workers or self._most  # or those that were seen at work
        if not workers:
            return None
        busy = [0.0] * workers
        for unit in sorted(units.values(), reverse=True):
            busy[busy.index(min(busy))] += unit
        return max(busy)

    def _paced(self) -> list[tuple[Run, float]]:
        """Give the runs at work whose own pace says how long they take as a whole, and those seconds."""
        at_work = ((self._due.get(place), going.whole) for place, going in self._going.items())
        return [(run, seconds) for run, seconds in at_work if run is not None and seconds is not None]

    def _expected(self, run: Run, paced: Sequence[tuple[Run, float]] = ()) -> float | None:
        """Give a run's seconds: by runs of its kind, by those of its stage or of all, or by the estimate.

        Runs that have ended count, or where there are none those at work, by their pace.
        """
        if known := self._seconds.get(run.kind) or [s for other, s in paced if other.kind == run.kind]:
            return sum(known) / len(known)
        if run.stage == "data":
            return 0.0  # next to the others
        under_way = [(other.stage, (other.flops, seconds)) for other, seconds in paced if other.flops]
        work = (
            self._work.get(run.stage)
            or [pair for stage, pair in under_way if stage == run.stage]
            or [pair for pairs in self._work.values() for pair in pairs]
            or [pair for _, pair in under_way]
        )
        if work and run.flops:
            return run.flops * sum(seconds for _, seconds in work) / sum(flops for flops, _ in work)
        return run.seconds or None

    def _due_key(self, cell: PlannedCell, stage: str) -> str | None:
        """Give the key of a cell's stage that is to be done; None where there is none."""
        return next((key for key in _keys(cell, stage) if (stage, key) in self._due), None)

    def __str__(self) -> str:
        """Say how many stages have ended, and the time left where it is known."""
        ended = f"{self._total - len(self._due):,}/{count(self._total, 'stage')}"
        if not self._due or (seconds := self.seconds) is None:
            return ended
        time = duration(seconds)
        return f"{ended}, {time if time.startswith('less') else f'about {time}'} left"


def _keys(cell: PlannedCell, stage: str) -> list[str]:
    names = ("data", "test_data") if stage == "data" else (stage,)
    return [cell.keys[name] for name in names if name in cell.keys]
