"""How far an execution has come over all its stages, and the time it has left by what stages have taken."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence

from attrs import define, field, frozen

from engine.planning.estimate import likeness, stage_costs
from engine.planning.plan import Plan, PlannedCell
from engine.quantities import count, duration
from specs.tables.executor import Executor
from specs.tables.experiment import STAGES
from store import Ledger, StoreError

READ = 4  # records of stages alike that are read: seconds of one and the same work differ little
CONSUMERS = {
    "data": STAGES,
    "train": ("train", "evaluate", "neutral", "tasks", "lens", "probe", "along", "intervene"),
    "lens": ("lens", "probe"),
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
class TimeLeft:
    """The stages of an execution, what they are expected to take, and those that have ended."""

    workers: int | None  # None: nobody knows how many there will be
    _cells: Sequence[PlannedCell]
    _due: dict[tuple[str, str], Run]
    _total: int = 0
    _seconds: dict[Hashable, list[float]] = field(factory=lambda: defaultdict(list))
    _work: dict[str, list[tuple[float, float]]] = field(factory=lambda: defaultdict(list))  # FLOPs, seconds

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

    def done(self, cell: PlannedCell, stage: str, summary: Mapping[str, float]) -> None:
        """Note that a stage has ended, and its seconds."""
        key = next((key for key in _keys(cell, stage) if (stage, key) in self._due), None)
        if key is not None:
            self._measure(self._due.pop((stage, key)), summary.get("seconds"))

    def failed(self, cell: PlannedCell, stage: str) -> None:
        """Note that a stage has failed, and with it what needs its result."""
        lacking = [each for each in self._cells if set(_keys(each, stage)) & set(_keys(cell, stage))]
        for name in CONSUMERS.get(stage, (stage,)):
            for key in (key for each in lacking for key in _keys(each, name)):
                self._due.pop((name, key), None)

    @property
    def seconds(self) -> float | None:
        """Give the seconds until all is done; None where nothing is known of some stage.

        The longest unit of work goes to the first free worker, as when units are handed out.
        """
        units: dict[str, float] = defaultdict(float)
        for run in self._due.values():
            seconds = self._expected(run)
            if seconds is None:
                return None
            units[run.training] += seconds
        if self.workers is None:
            return None
        busy = [0.0] * self.workers
        for unit in sorted(units.values(), reverse=True):
            busy[busy.index(min(busy))] += unit
        return max(busy)

    def _expected(self, run: Run) -> float | None:
        """Give a run's seconds: by runs of its kind, by those of its stage or of all, or by the estimate."""
        if known := self._seconds.get(run.kind):
            return sum(known) / len(known)
        if run.stage == "data":
            return 0.0  # next to the others
        work = self._work.get(run.stage) or [pair for pairs in self._work.values() for pair in pairs]
        if work and run.flops:
            return run.flops * sum(seconds for _, seconds in work) / sum(flops for flops, _ in work)
        return run.seconds or None

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
