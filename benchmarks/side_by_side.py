"""How much faster are trainings side by side (`executor.together`) than one after another?

    python -m benchmarks.side_by_side [--cells N …] [--layers N] [--batch N] [--tokens N] [--steps N]
                                      [--rounds N]

A model with the shapes of SmolLM2-135M and random weights, LoRA on all linear modules in float32, and drawn
examples of about so many tokens, a tenth of them the completion. Each run is so many whole trainings, the
set-up and the saved adapters included, one after another or side by side; runs take turns in one process.

Then the operators of a step, those that only look at memory otherwise left out: of a training alone, and of
one side by side, its share of the common passes and what it does by itself (gradients are clipped, weights
moved, numbers logged). On a GPU each is a launch.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch
from transformers import LlamaForCausalLM

from benchmarks.encoding import smollm2
from benchmarks.measure import interleaved
from benchmarks.operators import Operators
from benchmarks.smollm2_config import smollm2_config
from engine.progress import StopRequest, silent
from engine.stages.training.together.side_by_side import Beside, side_by_side
from engine.stages.training.train import train_adapter
from engine.text.targets import Encoded
from specs.tables.experiment import Lora, Train
from store.backend.locate import place_of

LORA = Lora(r=8, alpha=16)
EXAMPLES = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[3, 6])
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=51)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(0)
    base = LlamaForCausalLM(smollm2_config(options.layers)).requires_grad_(False).eval()
    rows = drawn(options.tokens)
    for cells in options.cells:
        print(f"\n{cells} trainings of {options.steps} steps, batch {options.batch}")
        report_times(base, rows, cells, options)
        report_operators(base, rows, cells, options.batch)


def drawn(tokens: int) -> list[Encoded]:
    """Draw examples of about so many tokens: within a tenth."""
    rng = random.Random(0)
    found = []
    for _ in range(EXAMPLES):
        size, completion = round(tokens * rng.uniform(0.9, 1.1)), max(2, tokens // 10)
        ids = [rng.randrange(10, 49_000) for _ in range(size)]
        found.append(Encoded(ids[:-completion], ids[-completion:], size - completion))
    return found


def report_times(base: Any, rows: Sequence[Encoded], cells: int, options: argparse.Namespace) -> None:
    """Print the times of both, and trainings per hour side by side over those one after another."""
    settings = Train(steps=options.steps, batch_size=options.batch, precision="float32")
    runs = {
        "side by side": partial(together, base, rows, cells, settings),
        "one by one": partial(one_by_one, base, rows, cells, settings),
    }
    found = interleaved(runs, options.rounds)
    alone = found["one by one"]
    print(f"{'':<14}{'seconds':>9}{'CPU s':>8}")
    for name, run in found.items():
        print(f"{name:<14}{run['seconds']:>9.2f}{run['cpu']:>8.2f}")
    quartiles = f"{alone['ratio_low']:.2f}–{alone['ratio_high']:.2f}"
    print(f"side by side {alone['ratio']:.2f} × ({quartiles}), by CPU time {alone['cpu_ratio']:.2f} ×")


def one_by_one(base: Any, rows: Sequence[Encoded], cells: int, settings: Train) -> None:
    """Do trainings that differ in their seeds."""
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(cells):
            training(base, rows, settings, seed, Path(folder), None)


def together(base: Any, rows: Sequence[Encoded], cells: int, settings: Train) -> None:
    """Do the same trainings side by side."""
    with tempfile.TemporaryDirectory() as folder:
        side_by_side(
            base, [partial(training, base, rows, settings, seed, Path(folder)) for seed in range(cells)]
        )


def training(
    base: Any, rows: Sequence[Encoded], settings: Train, seed: int, folder: Path, beside: Beside | None
) -> None:
    """Train as a study does."""
    train_adapter(
        base,
        smollm2(),
        rows,
        [],
        lora=LORA,
        settings=settings,
        seed=seed,
        home=place_of(folder / str(seed)),
        report=silent,
        stop=StopRequest(),
        beside=beside,
    )


def report_operators(base: Any, rows: Sequence[Encoded], cells: int, batch: int) -> None:
    """Print the operators of a step and training: all of them, and those of the passes."""
    alone, _ = per_step(partial(counted_alone, base, rows, cells, batch))
    beside, passes = per_step(partial(counted_together, base, rows, cells, batch))
    print(
        f"operators of a step and training: alone {alone / cells:,.0f}, side by side {beside / cells:,.0f} "
        f"({beside / alone:.2f} ×), of which {passes / cells:,.0f} in common passes"
    )


def per_step(count: Callable[[int], tuple[int, int]]) -> tuple[float, float]:
    """Give operators of a step by the difference of two lengths: all, and those of common passes."""
    short, long = count(2), count(6)
    return (long[0] - short[0]) / 4, (long[1] - short[1]) / 4


def counted_alone(base: Any, rows: Sequence[Encoded], cells: int, batch: int, steps: int) -> tuple[int, int]:
    """Count the operators of trainings one by one."""
    with Operators() as counted:
        one_by_one(base, rows, cells, Train(steps=steps, batch_size=batch, precision="float32"))
    return counted.number, 0


def counted_together(
    base: Any, rows: Sequence[Encoded], cells: int, batch: int, steps: int
) -> tuple[int, int]:
    """Count the operators of trainings side by side, each of which has a thread of its own."""
    own = []
    settings = Train(steps=steps, batch_size=batch, precision="float32")

    def counting(seed: int, folder: Path, beside: Beside) -> None:
        with Operators() as counted:
            training(base, rows, settings, seed, folder, beside)
        own.append(counted.number)

    with tempfile.TemporaryDirectory() as folder, Operators() as passes:
        side_by_side(base, [partial(counting, seed, Path(folder)) for seed in range(cells)])
    return sum(own) + passes.number, passes.number


if __name__ == "__main__":
    main()
