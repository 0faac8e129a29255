"""What a simulated worker does in place of computing, and the ledger in which it says so.

The order of stages, claims, commits and failures are the engine's own (`Execution`, `Stages`).
"""

from __future__ import annotations

import gc
import math
import random
from collections.abc import Mapping
from functools import cached_property
from statistics import NormalDist
from typing import Any

import torch
from attrs import define, field, frozen

from benchmarks.simulation.pool import Clock, Gpu, Process
from engine.models.base_model import BaseModel
from engine.planning.estimate import BYTES, CHECKPOINTS, estimate
from engine.planning.plan import Plan, PlannedCell
from engine.planning.sizes import model_card
from engine.progress import Report
from engine.stages.cell_stages import Stages
from engine.stages.measured_examples import Stage
from store.lease.claims import LEASE

_NORMAL = NormalDist()
PROBE_BATCHES = 20  # of which one is lost with its worker


@frozen
class Hardware:
    """How fast the simulated machines are."""

    flops: float = 200e12  # per second that a GPU reaches in training, of an H100's 990e12 in bfloat16
    measuring: float = 0.5  # of that in evaluation and probing
    reading: float = 1e9  # bytes per second at which weights are loaded
    loading: float = 10.0  # seconds beside reading
    writing: float = 0.5e9  # bytes per second at which checkpoints are written
    saving: float = 1.0  # seconds beside writing
    noise: float = 0.2  # sigma of the log-normal factor of a stage's time


@frozen(slots=False)
class Costs:
    """Seconds of every stage by the plan's estimate, and of loading models and saving checkpoints."""

    plan: Plan
    noise: float
    _by_condition: dict[Any, dict[str, float]]
    _loads: dict[Any, float]
    seed: int = 0

    @classmethod
    def of(cls, plan: Plan, hardware: Hardware) -> Costs:
        """Estimate each condition and each model once."""
        conditions = {cell.choice[:-1]: cell for cell in plan.cells}
        models = {plan.matrix.choice("model", cell.choice): cell for cell in plan.cells}
        costs = {condition: _seconds(plan, cell, hardware) for condition, cell in conditions.items()}
        loads = {model: _load(plan, cell, hardware) for model, cell in models.items()}
        return cls(plan, hardware.noise, costs, loads)

    def seconds(self, cell: PlannedCell, stage: str) -> float:
        """Give the seconds of one of the cell's stages; the same whenever it is tried."""
        drawn = (int(cell.keys[stage], 16) ^ self._mask) % 2**52  # a key is a hash, and so random
        normal = _NORMAL.inv_cdf((drawn + 0.5) / 2**52)
        factor = math.exp(self.noise * normal - self.noise**2 / 2)
        return self._by_condition[cell.choice[:-1]][stage] * factor

    @cached_property
    def _mask(self) -> int:
        return random.Random(self.seed).getrandbits(52)

    def saving(self, cell: PlannedCell) -> float:
        """Give the seconds that a checkpoint of the cell's training takes."""
        return self._by_condition[cell.choice[:-1]]["checkpoint"]

    def load(self, cell: PlannedCell) -> float:
        """Give the seconds that loading the cell's model takes."""
        return self._loads[self.plan.matrix.choice("model", cell.choice)]

    def work(self) -> float:
        """Give the seconds of all stages together."""
        names = ("base", "train", "evaluate", "probe")
        stages = {(name, c.keys[name]): c for c in self.plan.cells for name in names if name in c.keys}
        return sum(self.seconds(cell, stage) for (stage, _), cell in stages.items())

    def longest(self) -> float:
        """Give the seconds of the longest chain of stages that cannot be shared out: a training's cells."""
        trainings: dict[str, float] = {}
        for cell in self.plan.cells:
            key = cell.keys["train"]
            before = trainings.get(key) or self.load(cell) + self.seconds(cell, "train")
            trainings[key] = before + sum(self.seconds(cell, stage) for stage in ("evaluate", "probe"))
        return max(trainings.values())


def _seconds(plan: Plan, cell: PlannedCell, hardware: Hardware) -> dict[str, float]:
    costs = estimate(plan, [cell])
    assert costs is not None  # the models' headers are here
    found = {
        stage: cost.flops / hardware.flops / (1 if stage == "train" else hardware.measuring)
        for stage, cost in costs.items()
    }
    bytes_saved = costs["train"].scratch / CHECKPOINTS
    return found | {"checkpoint": hardware.saving + bytes_saved / hardware.writing}


def _load(plan: Plan, cell: PlannedCell, hardware: Hardware) -> float:
    settings = plan.matrix.table("model", cell.choice)
    card = model_card(settings)
    assert card is not None
    weights = (card.parameters + card.unembedding) * BYTES[settings.dtype]
    return hardware.loading + weights / hardware.reading


@define
class Records:
    """What the simulated store holds, for all processes."""

    kept: dict[tuple[str, str, str], dict[str, Any]] = field(factory=dict)  # stage, key, done or failed
    claims: dict[tuple[str, str], Process] = field(factory=dict)
    trained: dict[str, float] = field(factory=dict)  # seconds of a training, or probe, that are on disk


@define
class SimulatedLedger:
    """One process's view of the records: `store.Ledger` by the rules of `store.lease`, on simulated time."""

    records: Records
    clock: Clock
    process: Process
    lease: float = LEASE
    looks: int = 0  # at records and claims
    _seen: dict[int, float] = field(factory=dict)  # silent owner → when it was first seen so

    @property
    def claims(self) -> SimulatedLedger:
        """The claims are kept with the records."""
        return self

    def has(self, stage: str, key: str, status: str = "done") -> bool:
        """Tell whether a key has such a record."""
        self.looks += 1
        return (stage, key, status) in self.records.kept

    def record(self, stage: str, key: str, status: str = "done") -> dict[str, Any]:
        """Give a key's record."""
        return self.records.kept[stage, key, status]

    def start(self, stage: str, key: str) -> Process | None:
        """Claim a key; None while another process holds it."""
        if not self.free(stage, key):
            return None
        self.records.claims[stage, key] = self.process
        return self.process

    def free(self, stage: str, key: str) -> bool:
        """Tell whether `start` could succeed now."""
        self.looks += 1
        owner = self.records.claims.get((stage, key))
        if owner is None or owner is self.process or (owner.known_dead and owner.node == self.process.node):
            return True
        if owner.alive:
            self._seen.pop(owner.number, None)  # its beat goes on
            return False
        return self.clock.now - self._seen.setdefault(owner.number, self.clock.now) >= self.lease

    def silent(self) -> dict[str, str]:
        """Give the owners that have been silent for a lease."""
        now = self.clock.now
        return {str(owner): "" for owner, since in self._seen.items() if now - since >= self.lease}

    def believe(self, silent: Mapping[str, str]) -> None:
        """Take another process's word for who is silent."""
        self._seen |= {int(owner): -math.inf for owner in silent}

    def lost(self, stage: str, key: str) -> bool:
        """Tell whether another process has the claim by now."""
        return self.records.claims.get((stage, key), self.process) is not self.process

    def release(self, stage: str, key: str) -> None:
        """End the claim; one that has died ends nothing."""
        if self.process.alive and self.records.claims.get((stage, key)) is self.process:
            del self.records.claims[stage, key]

    def commit(self, stage: str, key: str, record: Mapping[str, Any]) -> None:
        """Make a key's results visible."""
        self.records.kept[stage, key, "done"] = dict(record)
        self.records.kept.pop((stage, key, "failed"), None)
        self.release(stage, key)

    def fail(self, stage: str, key: str, record: Mapping[str, Any]) -> None:
        """Record a failed attempt."""
        self.records.kept[stage, key, "failed"] = dict(record)
        self.release(stage, key)


@frozen(kw_only=True)
class SimulatedStages(Stages):
    """Stages that take their time and compute nothing. The data are there."""

    costs: Costs
    gpu: Gpu
    records: Records
    interval: float  # seconds of training between two checkpoints

    def base(self, cell: PlannedCell) -> BaseModel:
        """Load nothing, in the time that the model takes."""
        gc.freeze()  # garbage has just been collected: what is left need not be gone through again
        self.gpu.spend(self.costs.load(cell), lambda seconds: {"load": seconds})
        return BaseModel(torch.nn.Identity(), None)

    def load(self, cell: PlannedCell, base: BaseModel) -> Any:
        """An adapter is small."""
        return base.model

    def check(self, cell: PlannedCell, stage: Stage, base: Any) -> None:
        """Every stage can run."""

    def check_training(self, cell: PlannedCell) -> None:
        """Every example has what it needs."""

    def train(self, cell: PlannedCell, base: BaseModel, report: Report, *, beside: object = None) -> None:
        """Train from the last checkpoint on."""
        self._stage(cell, "train", self.interval, self.costs.saving(cell))

    def measure(self, stage: str, cell: PlannedCell, model: Any, base: BaseModel, report: Report) -> None:
        """Probe from the last batch on; whatever else is killed starts again."""
        batch = self.costs.seconds(cell, stage) / PROBE_BATCHES if stage == "probe" else math.inf
        self._stage(cell, stage, batch, 0.0)

    def _stage(self, cell: PlannedCell, stage: str, interval: float, saving: float) -> None:
        """Spend a stage's time, with a pause to save what is done after every interval."""
        key = cell.keys[stage]
        with self.committing(stage, key) as record:
            before = self.records.trained.get(key, 0.0)
            due = self.costs.seconds(cell, stage) - before
            saves = max(0, math.ceil(due / interval) - 1)
            whole = due + saves * saving

            def split(passed: float) -> dict[str, float]:
                if passed >= whole * (1 - 1e-9):
                    self.records.trained[key] = before + due
                    return {f"useful {stage} {key}": due, "save": saves * saving}
                saved = int(passed // (interval + saving))
                kept = saved * interval if saved else 0.0  # an infinite interval has no multiples
                self.records.trained[key] = before + kept
                lost = passed - kept - saved * saving
                return {f"useful {stage} {key}": kept, "save": saved * saving, "lost": lost}

            self.gpu.spend(whole, split)
            record["summary"] = {}
