"""How well would 1,000 GPUs that fail be used, and what does scheduling itself cost?

The plan, its units, the coordinator and each worker's order of stages are the engine's own code; what
computes takes simulated time (`simulated_work`) on simulated GPUs (`simulated_pool`).
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import struct
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen

from benchmarks.simulated_pool import HOUR, Clock, Faults, Gpu, Pool, Process
from benchmarks.simulated_work import Costs, Hardware, Records, SimulatedLedger, SimulatedStages
from engine.coordinate import Coordinator, Policy, units
from engine.estimate import estimator
from engine.execute import Display, Execution, Options
from engine.executors.worker import Worker
from engine.plan import Plan, make_plan
from engine.progress import StopRequest
from specs import load_spec, resolve
from specs.model import STAGES

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
[factors.examples]
path = "data.train"
values = [5000, 7500, 10000, 15000, 20000]
[factors.test]
path = "evaluate.data.test"
values = [1000, 2000]
only_when = {{ examples = 10000 }}
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
    seed: int = 0


@frozen
class Result:
    """What became of a run; GPU-time is in hours."""

    hours: float  # from the first unit to the last one's end
    spent: dict[str, float]  # GPU-hours by what they served, see `_hours`
    bound: float  # hours that no schedule can undercut: work shared out evenly, or the longest training
    done: int
    failed: int  # cells with a failed stage
    held: int
    deaths: int
    units: int
    coordinating: float  # real seconds of the coordinator's own code
    seconds: float  # real seconds of the whole simulation

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
        header = {
            f"model.layers.{n}.{part}.weight": {"dtype": "BF16", "shape": shape, "data_offsets": [0, 0]}
            for n in range(layers)
            for part, shape in parts.items()
        }
        text = json.dumps(header).encode()
        (home / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
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
    began, clock, records, spent = time.perf_counter(), Clock(), Records(), Counter[str]()
    costs, draw, plan = evolve(costs, seed=settings.seed), random.Random(settings.seed), costs.plan
    for cell in plan.cells:
        for name in ("data", "test_data"):
            records.kept["data", cell.keys[name], "done"] = {"summary": {}, "seconds": 0.0}
    slow = settings.faults.slow_share
    slowness = [settings.faults.slow_factor if draw.random() < slow else 1.0 for _ in range(settings.gpus)]
    gpus = [Gpu(n // settings.per_node, factor, clock, spent) for n, factor in enumerate(slowness)]

    def make_worker(gpu: Gpu) -> Worker:
        own = Plan(plan.matrix, plan.root, [], {stage: {} for stage in STAGES})
        ledger: Any = SimulatedLedger(records, clock, gpu.process)
        parts: Any = (own, ledger, None, {}, StopRequest(), costs, gpu, records, settings.interval)
        return Worker(Execution(own, SimulatedStages(*parts), Options(), Display(), StopRequest()))

    pool = Pool(clock, gpus, settings.faults, make_worker, settings.start, settings.lasting, draw)
    ledger: Any = SimulatedLedger(records, clock, Process())
    policy = Policy(retries=settings.retries)
    coordinator = Coordinator(plan, ledger, pool, policy, Display(), StopRequest(), estimator(plan))
    coordinator.clock, coordinator.sleep = (lambda: clock.now), clock.sleep
    try:
        outcome = coordinator.run(plan.cells, settings.batch)
    finally:
        gc.unfreeze()
    pool.close()
    stages = [(cell, s) for cell in plan.cells for s in ("train", "evaluate", "probe")]
    whole = {s: {key for stage, key, kind in records.kept if (stage, kind) == (s, "done")} for s in STAGES}
    lacking = {cell.index for cell, stage in stages if cell.keys[stage] not in whole[stage]}
    return Result(
        hours=clock.now / HOUR,
        spent=_hours(spent, whole),
        bound=max(costs.work() / sum(1 / factor for factor in slowness), costs.longest()) / HOUR,
        done=len(plan.cells) - len(lacking),
        failed=len({index for index, _, _ in outcome.failed}),
        held=len(outcome.held),
        deaths=sum(pool.deaths.values()),
        units=len(units(plan, plan.cells, settings.batch)),
        coordinating=pool.coordinating,
        seconds=time.perf_counter() - began,
    )


def _hours(spent: Counter[str], whole: dict[str, set[str]]) -> dict[str, float]:
    """Add up what GPU-time served; work on a stage that was never done has been lost, too."""
    kinds = ("useful", "save", "load", "start", "lost", "slow", "idle", "away")
    found = dict.fromkeys(kinds, 0.0)
    for what, seconds in spent.items():
        kind, *of = what.split()
        if of and of[1] not in whole[of[0]]:
            kind = "lost"
        found[kind] += seconds / HOUR
    return found


def medians(costs: Costs, settings: Settings, seeds: int) -> dict[str, float]:
    """Give the medians over seeds of what the tables show."""
    runs = [simulate(costs, evolve(settings, seed=seed)) for seed in range(seeds)]
    shown = {
        "hours": [run.hours for run in runs],
        "bound": [run.bound for run in runs],
        "utilisation": [run.utilisation for run in runs],
        "deaths": [run.deaths for run in runs],
        "failed": [len(costs.plan.cells) - run.done for run in runs],
        "coordinator (s)": [run.coordinating for run in runs],
        "real (s)": [run.seconds for run in runs],
    }
    for kind in runs[0].spent:
        shown[kind] = [run.spent[kind] / sum(run.spent.values()) for run in runs]
    return {name: statistics.median(values) for name, values in shown.items()}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="runs of every row, of which medians are shown")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        plan = planned(Path(name), 17)
        print(len(plan.cells), "cells")
        costs = Costs.of(plan, Hardware())
        for hours in (None, 5000, 500, 50):
            faults = Faults(hours, hours and 8 * hours)
            for batch in (1, 4):
                row = medians(costs, Settings(faults=faults, batch=batch), arguments.seeds)
                print(hours, batch, {name: round(value, 4) for name, value in row.items()})


if __name__ == "__main__":
    main()
