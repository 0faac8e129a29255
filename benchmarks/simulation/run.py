"""A plan run on simulated GPUs that fail; `__main__` asks the questions.

The plan, its units, the coordinator and each worker's order of stages are the engine's own code; what
computes takes simulated time (`work`) on simulated GPUs (`pool`).
"""

from __future__ import annotations

import gc
import json
import math
import os
import random
import struct
import time
from collections import Counter
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen
from greenlet import greenlet

from benchmarks.simulation.pool import HOUR, Clock, Faults, Gpu, Pool, Process
from benchmarks.simulation.work import Costs, Records, SimulatedLedger, SimulatedStages
from engine.planning.estimate import estimator
from engine.planning.plan import Plan, PlannedCell, make_plan
from engine.progress import StopRequest
from engine.running.cell_runner import CellRunner
from engine.running.display import Display
from engine.running.executors.in_process import InProcess
from engine.running.executors.worker import Worker
from engine.running.outcome import Options
from engine.running.scheduler import Policy, Scheduler, units
from specs import load_spec, resolve
from specs.tables.experiment import STAGES

# Decoder layers, hidden and intermediate size, width of keys and values, vocabulary.
MODELS = {
    "qwen2.5-0.5b": (24, 896, 4864, 128, 151_936),
    "qwen2.5-1.5b": (28, 1536, 8960, 256, 151_936),
    "llama-3.2-3b": (28, 3072, 8192, 1024, 128_256),
    "llama-3.1-8b": (32, 4096, 14_336, 1024, 128_256),
}
SPEC = """
name = "simulated"
seeds = {seeds}
data.source = "rated.jsonl"
data.columns = {{ label = "label", explanation = "why" }}
data.test = 2000
train.epochs = 3
train.batch_size = 16
evaluate.scoring = ["loglikelihood", "generation"]
probe.positions = ["prompt_end", "label"]
model.id = "llama-3.1-8b"
[factors.model]
path = "model.id"
values = {models}
[factors.target]
path = "target.content"
values = ["label", "label+explanation", "label+shuffled", "label+filler", "label+bag_of_words"]
[factors.rank]
path = "lora.r"
values = [4, 8, 16, 32, 64]
[factors.training_examples]
path = "data.train"
values = [5000, 7500, 10000, 15000, 20000]
[factors.testing_examples]
path = "evaluate.data.test"
values = [1000, 2000]
only_when = {{ training_examples = 10000 }}
"""


@frozen
class Settings:
    """One simulated run."""

    gpus: int = 1000
    per_node: int = 8
    batch: int = 1
    retries: int = 2
    interval: float = 600.0  # seconds of training between two checkpoints
    lasting: bool = True  # workers live on from unit to unit, as with `local` and `ray`
    start: float = 30.0  # seconds until a new worker takes a unit: interpreter, torch, CUDA
    faults: Faults = field(factory=Faults)
    poll: float = 10.0  # seconds between looks at what others hold, of launchers
    seed: int = 0


@frozen
class Result:
    """What became of a run; GPU-time is in hours."""

    hours: float  # from the first unit to the last one's end
    spent: dict[str, float]  # GPU-hours by what they served, see `_hours`
    bound: float  # hours that no schedule can undercut: work shared out evenly, or the longest training
    done: int
    units: int
    seconds: float  # real seconds of the whole simulation
    failed: int = 0  # cells with a failed stage
    held: int = 0
    deaths: int = 0
    coordinating: float = 0.0  # processor seconds of the coordinator's own code
    looks: int = 0  # at records and claims, by launchers

    @property
    def utilisation(self) -> float:
        """The share of all GPU-time that counted."""
        return self.spent["useful"] / sum(self.spent.values())


def write_spec(folder: Path, seeds: int, models: tuple[str, ...]) -> Path:
    """Write a spec of 150 cells and 125 trainings per seed and model, its models' headers and some data."""
    for name in models:
        layers, hidden, inner, narrow, vocabulary = MODELS[name]
        home = folder / name
        home.mkdir()
        config = {"num_hidden_layers": layers, "hidden_size": hidden, "vocab_size": vocabulary}
        (home / "config.json").write_text(json.dumps(config))
        parts = {
            "q": (hidden, hidden), "k": (narrow, hidden), "v": (narrow, hidden), "o": (hidden, hidden),
            "gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner),
        }  # fmt: skip
        header, end = {}, 0
        for n in range(layers):
            for part, shape in parts.items():
                begin, end = end, end + math.prod(shape) // 2  # four bits each: read once, for their hash
                entry = {"dtype": "F4", "shape": shape, "data_offsets": [begin, end]}
                header[f"model.layers.{n}.{part}.weight"] = entry
        text = json.dumps(header).encode()
        file = home / "model.safetensors"
        file.write_bytes(struct.pack("<Q", len(text)) + text)
        os.truncate(file, 8 + len(text) + end)  # zeros, which take no room
    row = {"context": "c" * 800, "response": "r" * 800, "label": "1", "why": "w" * 400}
    (folder / "rated.jsonl").write_text(json.dumps(row) + "\n")
    path = folder / "spec.toml"
    ids = [str(folder / name) for name in models]
    path.write_text(SPEC.format(seeds=list(range(seeds)), models=json.dumps(ids)))
    return path


def planned(folder: Path, seeds: int, models: tuple[str, ...] = tuple(MODELS)) -> Plan:
    """Give the plan of the generated spec."""
    return make_plan(resolve(load_spec(write_spec(folder, seeds, models))), folder / "store")


def simulate(costs: Costs, settings: Settings) -> Result:
    """Run a plan on simulated GPUs to its end."""
    began, clock, records, spent = time.perf_counter(), Clock(), _stocked(costs.plan), Counter[str]()
    costs, draw, plan = evolve(costs, seed=settings.seed), random.Random(settings.seed), costs.plan
    slow = settings.faults.slow_share
    slowness = [settings.faults.slow_factor if draw.random() < slow else 1.0 for _ in range(settings.gpus)]
    gpus = [Gpu(n // settings.per_node, factor, clock, spent) for n, factor in enumerate(slowness)]

    def make_worker(gpu: Gpu) -> Worker:
        return Worker(_execution(costs, gpu, records, settings.interval))

    pool = Pool(clock, gpus, settings.faults, make_worker, settings.start, settings.lasting, draw)
    ledger: Any = SimulatedLedger(records, clock, Process())
    policy = Policy(retries=settings.retries)
    coordinator = Scheduler(plan, ledger, pool, policy, Display(), StopRequest(), estimator(plan))
    coordinator.reached = lambda _stage, key: records.trained.get(key)
    coordinator.clock, coordinator.sleep = (lambda: clock.now), clock.sleep
    pool.heard = time.process_time()
    try:
        outcome = coordinator.run(plan.cells, settings.batch)
    finally:
        gc.unfreeze()
    pool.close()
    return Result(
        hours=clock.now / HOUR,
        spent=_hours(spent, records),
        bound=max(costs.work() / sum(1 / factor for factor in slowness), costs.longest()) / HOUR,
        done=sum(_is_done(cell, records) for cell in plan.cells),
        failed=len({index for index, _, _ in outcome.failed}),
        held=len(outcome.held),
        deaths=sum(pool.deaths.values()),
        units=len(units(plan, plan.cells, settings.batch)),
        coordinating=pool.coordinating,
        seconds=time.perf_counter() - began,
    )


def share(costs: Costs, launchers: int, settings: Settings) -> Result:
    """Run a plan by so many `engine execute` started together on one store, a GPU each, without failures."""
    began, clock, records, spent = time.perf_counter(), Clock(), _stocked(costs.plan), Counter[str]()
    costs, plan = evolve(costs, seed=settings.seed), costs.plan
    gpus = [Gpu(node, 1.0, clock, spent, Process(node)) for node in range(launchers)]
    looks = 0

    def launch(gpu: Gpu) -> None:
        nonlocal looks
        execution = _execution(costs, gpu, records, settings.interval)
        ledger, pool = execution.stages.ledger, InProcess(execution)
        policy = Policy(poll=settings.poll)
        coordinator = Scheduler(plan, ledger, pool, policy, Display(), StopRequest())
        coordinator.clock, coordinator.sleep = (lambda: clock.now), clock.sleep
        coordinator.run(plan.cells)
        gpu.since, looks = clock.now, looks + ledger.looks

    running = [greenlet(launch) for _ in gpus]
    for each, gpu in zip(running, gpus, strict=True):
        each.switch(gpu)
    while any(running):
        clock.step()
    gc.unfreeze()
    hours = clock.now / HOUR
    found = _hours(spent, records)
    found["idle"] = launchers * hours - sum(found.values())  # walking and waiting take no GPU
    return Result(
        hours=hours,
        spent=found,
        bound=max(costs.work() / launchers, costs.longest()) / HOUR,
        done=sum(_is_done(cell, records) for cell in plan.cells),
        units=len(units(plan, plan.cells, 1)),
        looks=looks,
        seconds=time.perf_counter() - began,
    )


def _stocked(plan: Plan) -> Records:
    """Give the records of a store that holds the plan's data and nothing else."""
    keys = {cell.keys[name] for cell in plan.cells for name in ("data", "test_data")}
    return Records({("data", key, "done"): {"summary": {}, "seconds": 0.0} for key in keys})


def _execution(costs: Costs, gpu: Gpu, records: Records, interval: float) -> CellRunner:
    """Give what a process on a GPU runs cells with."""
    own = Plan(costs.plan.matrix, costs.plan.root, [], {stage: {} for stage in STAGES})
    ledger = SimulatedLedger(records, gpu.clock, gpu.process)
    parts: Any = (own, ledger, None, {}, StopRequest())
    stages = SimulatedStages(*parts, costs=costs, gpu=gpu, records=records, interval=interval)
    return CellRunner(own, stages, Options(), Display(), StopRequest())


def _is_done(cell: PlannedCell, records: Records) -> bool:
    return all((stage, cell.keys[stage], "done") in records.kept for stage in STAGES if stage in cell.keys)


def _hours(spent: Counter[str], records: Records) -> dict[str, float]:
    """Add up what GPU-time served; work on a stage that was never done has been lost, too."""
    kinds = ("useful", "save", "load", "start", "lost", "slow", "idle", "away")
    found = dict.fromkeys(kinds, 0.0)
    for what, seconds in spent.items():
        kind, *of = what.split()
        if of and (of[0], of[1], "done") not in records.kept:
            kind = "lost"
        found[kind] += seconds / HOUR
    return found
