"""How long does `engine plan` take, for a small spec and for 100,000 cells, and in which parts?

Targets on two cores: 0.3 s for a small spec, 2 s and 500 MB for 100,000 cells.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from engine.planning.estimate import estimate
from engine.planning.plan import make_plan
from specs import load_spec, resolve

BASE = """
name = "bench"
seeds = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
model.id = "model"
data.source = "rated.jsonl"
"""
PATHS = ("train.steps", "lora.r", "train.batch_size", "data.train")
PRODUCT = BASE + "".join(
    f'[factors.f{i}]\npath = "{path}"\nvalues = {list(range(1, 11))}\n' for i, path in enumerate(PATHS)
)
RULES = """
[rules]
exclude = [{ f0 = [2, 3], f1 = [1, 2] }, { f2 = 1 }, { f2 = 2, f3 = 10 }]
include = [{ seed = [0, 1] }]
[factors.conditional]
path = "train.epochs"
values = [1, 2]
only_when = { f0 = 1, f1 = [1, 2, 3] }
[[contrasts]]
factor = "f0"
baseline = 1
"""
SPECS = {"small": BASE, "product": PRODUCT, "rules": PRODUCT + RULES}
REPEATS = 5


def seconds(action: Callable[[], object]) -> float:
    """Give the median of several runs."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def command(path: Path) -> float:
    """Give the seconds of the whole command, start of the interpreter included."""
    line = [sys.executable, "-c", "from engine.cli.main import main; main()", "plan", str(path)]
    return seconds(lambda: subprocess.run(line, check=True, capture_output=True))


def main() -> None:
    """Print one row per spec."""
    print(f"{'spec':<8}{'cells':>9}{'command':>9}{'load':>8}{'resolve':>8}{'keys':>8}{'costs':>8}   seconds")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model").mkdir()
        config = {"num_hidden_layers": 1, "hidden_size": 4, "vocab_size": 16}
        (folder / "model" / "config.json").write_text(json.dumps(config))
        block = {"model.layers.0.mlp.up_proj.weight": np.zeros((4, 4), np.float32)}
        save_file(block, folder / "model" / "model.safetensors")
        row = {"context": "c", "response": "r", "label": "1"}
        (folder / "rated.jsonl").write_text(json.dumps(row) + "\n")
        for name, text in SPECS.items():
            path = folder / f"{name}.toml"
            path.write_text(text)
            spec = load_spec(path)
            matrix = resolve(spec)
            plan = make_plan(matrix)
            times = (
                command(path),
                seconds(lambda path=path: load_spec(path)),
                seconds(lambda spec=spec: resolve(spec)),
                seconds(lambda matrix=matrix: make_plan(matrix)),
                seconds(lambda plan=plan: estimate(plan)),
            )
            print(
                f"{name:<8}{len(matrix.cells):>9,}{times[0]:>9.3f}" + "".join(f"{t:>8.3f}" for t in times[1:])
            )
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000
    print(f"peak memory of the largest command: {peak:.0f} MB")


if __name__ == "__main__":
    main()
