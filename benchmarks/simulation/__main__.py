"""How well would 1,000 GPUs that fail be used, and what does scheduling itself cost?

Prints one table a question, medians over seeds, and keeps its rows in a JSON file, from which `--plot` draws.
Shares are of all GPU-time until the last unit's end.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import evolve

from benchmarks.simulation.pool import HOUR, Faults
from benchmarks.simulation.run import MODELS, Settings, planned, share, simulate
from benchmarks.simulation.work import Costs, Hardware
from store.plots.style import COLOURS, WIDE, save, styled

NODE = 8  # a node's mean time between failures, in those of one GPU
SHORT = ("qwen2.5-0.5b",)
BATCHES = (1, 2, 4, 8, 16)
INTERVALS = (60, 900, 3600, math.inf)
Row = dict[str, Any]


def failing(hours: float | None, **more: Any) -> Faults:
    """Give the failures of a pool whose GPUs fail so often, each alone and with its node."""
    return Faults(hours, hours and NODE * hours, **more)


def medians(costs: Costs, settings: Settings, seeds: int) -> Row:
    """Run a plan with several seeds; give the medians of what the tables show."""
    runs = [simulate(costs, evolve(settings, seed=seed)) for seed in range(seeds)]
    shown: dict[str, list[float]] = {
        "hours": [run.hours for run in runs],
        "over bound": [run.hours / run.bound for run in runs],
        "deaths": [run.deaths for run in runs],
        "cells not done": [len(costs.plan.cells) - run.done for run in runs],
        "units": [run.units for run in runs],
        "coordinator (s)": [run.coordinating for run in runs],
        "simulation (s)": [run.seconds for run in runs],
    }
    for kind in runs[0].spent:
        shown[f"{kind} %"] = [100 * run.spent[kind] / sum(run.spent.values()) for run in runs]
    return {name: statistics.median(values) for name, values in shown.items()}


def young(costs: Costs, hours: float) -> float:
    """Give the seconds between checkpoints that waste least, √(2·C·M), for a worker's M and the mean C.

    Young (CACM 17, 1974); Daly (Future Generation Computer Systems 22, 2006) adds terms that are small here.
    """
    trainings = {cell.keys["train"]: cell for cell in costs.plan.cells}.values()
    seconds = [costs.seconds(cell, "train") for cell in trainings]
    saving = [costs.saving(cell) for cell in trainings]
    mean = sum(s * c for s, c in zip(seconds, saving, strict=True)) / sum(seconds)
    between = HOUR / (1 / hours + 1 / (NODE * hours))
    return math.sqrt(2 * mean * between)


def failures(folder: Path, seeds: int) -> Iterator[Row]:
    """What do failures cost?"""
    costs = Costs.of(planned(folder, 17), Hardware())
    cases = {"none": Faults()} | {f"{hours} h": failing(hours) for hours in (5000, 500, 50)}
    cases["500 h, 2 % of the GPUs slow"] = failing(500, slow_share=0.02)
    cases["500 h, one GPU kills all its workers"] = failing(500, broken=1)
    for name, faults in cases.items():
        yield {"failures": name} | medians(costs, Settings(faults=faults), seeds)


def batch(folder: Path, seeds: int) -> Iterator[Row]:
    """How many trainings make a unit: long ones on lasting workers, short ones with a job for each unit?"""
    (folder / "short").mkdir()
    long = Costs.of(planned(folder, 17), Hardware())
    short = Costs.of(planned(folder / "short", 17 * len(MODELS), SHORT), Hardware())
    for name, costs, lasting, start in (("long", long, True, 30.0), ("short", short, False, 60.0)):
        for size in BATCHES:
            settings = Settings(batch=size, faults=failing(500), lasting=lasting, start=start)
            yield {"trainings": name, "batch": size} | medians(costs, settings, seeds)


def checkpoints(folder: Path, seeds: int) -> Iterator[Row]:
    """How often should a training save?"""
    costs = Costs.of(planned(folder, 17), Hardware())
    for hours in (500, 50):
        best = young(costs, hours)
        for interval in (*INTERVALS, best):
            settings = Settings(faults=failing(hours), interval=interval)
            row = {"failures": f"{hours} h", "interval (s)": interval, "best": interval == best}
            yield row | medians(costs, settings, seeds)


def retries(folder: Path, seeds: int) -> Iterator[Row]:
    """How often may a worker die at a stage before the stage is given up?"""
    costs = Costs.of(planned(folder, 17), Hardware())
    cases = {"50 h": failing(50), "5 h": failing(5), "taken away every hour": Faults(limit_hours=1)}
    for name, faults in cases.items():
        for size, count in ((1, 0), (1, 2), (8, 2)):
            settings = Settings(faults=faults, retries=count, batch=size)
            yield {"failures": name, "batch": size, "retries": count} | medians(costs, settings, seeds)


def cost(folder: Path, seeds: int) -> Iterator[Row]:
    """What does the coordinator itself take?"""
    for times in (2, 20, 200):
        (folder / str(times)).mkdir()
        costs = Costs.of(planned(folder / str(times), times), Hardware())
        row = medians(costs, Settings(faults=failing(500)), seeds)
        yield row | {"per unit (ms)": 1000 * row["coordinator (s)"] / row["units"]}


def launchers(folder: Path, seeds: int) -> Iterator[Row]:
    """What do launchers without a coordinator, started together on one store, make of 1,000 trainings?"""
    costs = Costs.of(planned(folder, 2), Hardware())
    for count in (1, 10, 100):
        run = share(costs, count, Settings())
        row = {"launchers": count, "hours": run.hours, "over bound": run.hours / run.bound}
        row |= {"useful %": 100 * run.spent["useful"] / sum(run.spent.values())}
        yield row | {"looks per launcher": run.looks / count, "simulation (s)": run.seconds}


QUESTIONS = {each.__name__: each for each in (failures, batch, checkpoints, retries, cost, launchers)}


def plot(rows: dict[str, list[Row]], path: Path) -> None:
    """Draw what `batch` and the interval between checkpoints do."""
    from matplotlib import pyplot as plt

    with styled():
        figure, (left, right) = plt.subplots(1, 2, figsize=(WIDE, 2.4), layout="constrained")
        for colour, name in zip(COLOURS, ("long", "short"), strict=False):
            points = [(row["batch"], row["useful %"]) for row in rows["batch"] if row["trainings"] == name]
            left.plot(*zip(*points, strict=True), marker="o", markersize=3, color=colour, label=name)
        left.set(xlabel="executor.batch (trainings per unit)", ylabel="useful GPU-time (%)", ylim=(0, 100))
        left.set_xscale("log", base=2)
        left.set_xticks(BATCHES, labels=[str(size) for size in BATCHES])
        left.legend(title="trainings")
        for colour, hours in zip(COLOURS, (500, 50), strict=False):
            points = sorted(
                (row["interval (s)"], row["lost %"] + row["save %"], row["best"])
                for row in rows["checkpoints"]
                if row["failures"] == f"{hours} h" and row["interval (s)"] < math.inf
            )
            seconds, waste, _ = zip(*points, strict=True)
            right.plot(seconds, waste, marker="o", markersize=3, color=colour, label=f"{hours} h")
            best = next(point for point in points if point[2])
            right.plot(*best[:2], marker="*", markersize=9, color=colour)
        right.set(xlabel="seconds between checkpoints", ylabel="lost or spent on saving (%)", xscale="log")
        right.set_xticks([60, 300, 900, 3600], labels=["60", "300", "900", "3,600"])
        right.minorticks_off()
        right.set_ylim(bottom=0)
        right.legend(title="a GPU fails every (star: √(2CM))")
        save(figure, path)
        plt.close(figure)


def main() -> None:
    """Answer the questions named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("questions", nargs="*", help=f"of {', '.join(QUESTIONS)}; default: all")
    parser.add_argument("--seeds", type=int, default=3, help="runs of every row")
    parser.add_argument("--out", type=Path, default=Path("simulated-cluster.json"), help="the rows")
    parser.add_argument("--plot", type=Path, help="draw the rows there are to this file")
    arguments = parser.parse_args()
    known = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    for name in arguments.questions or ([] if arguments.plot else QUESTIONS):
        print(f"\n{QUESTIONS[name].__doc__}")
        known[name] = []
        with tempfile.TemporaryDirectory() as folder:
            for row in QUESTIONS[name](Path(folder), arguments.seeds):
                known[name].append(row)
                cells = [f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()]
                print("  ".join(f"{key}={cell}" for key, cell in zip(row, cells, strict=True)), flush=True)
        arguments.out.write_text(json.dumps(known, indent=1) + "\n")
    if arguments.plot:
        plot(known, arguments.plot)


if __name__ == "__main__":
    main()
