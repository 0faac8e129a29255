"""How fast is the probe core beside the bare product and other ways, and in how much memory?

`python -m benchmarks.probe_core` takes a quarter of an hour on two cores; `--full` adds rows up to 16,384 and
every contender everywhere. cut-cross-entropy and Liger give losses by Triton kernels and do not run on a CPU.
"""

import argparse
import json
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import real_rows
from benchmarks.contenders import BARE, bare, others, ours
from benchmarks.measure import (
    Action,
    compiled_peaks,
    interleaved,
    multiply_adds,
    peak_extra_mib,
    read_through,
)
from benchmarks.plot import plot
from benchmarks.shapes import MODELS, data
from kernels import Unembedding, cpu_paths
from kernels.lens_c_weights import pack

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
QUICK = {
    "SmolLM2-135M": (1, 8, 64, 448, 2048),
    "Qwen2.5-0.5B": (1, 64, 448),
    "Llama-3.1-8B": (1, 8, 448),
}
FULL = (1, 4, 16, 64, 256, 448, 1024, 2048, 4096, 16_384)
OURS = (BARE, "c", "c + KL, JS")
QUICK_WORK = 40e9  # operations above which the quick run measures ours and the bare product alone
LARGEST_LOGITS = 3 << 30  # bytes of float32 logits above which no contender that keeps them is run


def limits(weight: Tensor, rows: int, dtype: str) -> dict[str, Action]:
    """The least that the work costs this CPU: its multiply-adds where rows are many, else one read."""
    library = compiled_peaks()
    if library is None:
        return {}
    if rows <= 64:
        return {"read the weight once": read_through(library, weight)}
    if dtype == "bfloat16" and ("amx" in cpu_paths() or "avx512bf16" not in cpu_paths()):
        return {}  # AMX multiplies faster than vectors do
    return {"multiply-adds alone": multiply_adds(library, dtype, 2 * rows * weight.numel())}


def case(model: str, dtype: str, rows: int, *, full: bool, alone: bool) -> dict[str, object]:
    """Measure one shape, in 3 to 31 rounds as time allows; large ones beside the bare product alone."""
    hidden, weight, watched, final = data(model, rows, TYPES[dtype])
    actions = {BARE: partial(bare, hidden, weight)} | ours(hidden, weight, watched, final)
    work = 2 * rows * weight.numel()
    if rows * len(weight) * 4 > LARGEST_LOGITS:
        del actions[BARE]
    elif rows > 1:
        slow = full or (model == "SmolLM2-135M" and rows == 448)
        actions |= others(hidden, weight, watched, slow=slow)
    if alone or (not full and work > QUICK_WORK):
        actions = {name: action for name, action in actions.items() if name in OURS}
    actions |= limits(weight, rows, dtype)
    started = time.perf_counter()
    memory = {name: peak_extra_mib(action) for name, action in actions.items()}
    rounds = min(31, max(3, int((30 if full else 6) / (time.perf_counter() - started))))
    runs = interleaved(actions, rounds)
    for name, run in runs.items():
        run["peak_extra_mib"] = memory[name]
        run["gflops"] = work / run["seconds"] / 1e9
    return {"model": model, "dtype": dtype, "rows": rows, "rounds": rounds, "runs": runs}


def packing(model: str, dtype: str) -> dict[str, object]:
    """Packing beside one bare product of 512 rows."""
    hidden, weight, _, _ = data(model, 512, TYPES[dtype])
    head = Unembedding(weight)
    runs = interleaved({BARE: partial(bare, hidden, weight), "pack": partial(pack, head)}, 5)
    return {"model": model, "dtype": dtype, "runs": runs}


def scaling(model: str, dtype: str) -> dict[str, object]:
    """One thread beside all."""
    hidden, weight, watched, final = data(model, 448, TYPES[dtype])
    run, threads = ours(hidden, weight, watched, final)["c"], torch.get_num_threads()

    def alone() -> None:
        torch.set_num_threads(1)
        run()
        torch.set_num_threads(threads)

    return {
        "model": model,
        "dtype": dtype,
        "threads": threads,
        "runs": interleaved({"all": run, "one": alone}, 9),
    }


def show(found: dict[str, object]) -> None:
    """Print one case as a table."""
    print(f"\n{found['model']}, {found['dtype']}, R = {found.get('rows', '448 or 512')}")
    print(f"{'':<36}{'ms':>10}{'ratio':>8}{'quartiles':>15}{'CPU ratio':>11}{'GFLOP/s':>9}{'MiB':>8}")
    for name, run in found["runs"].items():
        quartiles = f"{run['ratio_low']:.2f}–{run['ratio_high']:.2f}"
        print(
            f"{name:<36}{run['seconds'] * 1e3:>10.2f}{run['ratio']:>8.2f}{quartiles:>15}"
            f"{run['cpu_ratio']:>11.2f}{run.get('gflops', 0):>9.0f}{run.get('peak_extra_mib') or 0:>8.0f}"
        )


def put(results: dict[str, Any], kind: str, found: dict[str, object]) -> None:
    """Show a measurement and put it in place of an earlier one of the same shape."""
    show(found)

    def shape(each: dict[str, object]) -> tuple[object, ...]:
        return each["model"], each["dtype"], each.get("rows")

    results[kind] = [each for each in results.get(kind, []) if shape(each) != shape(found)] + [found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="all row counts and contenders (an hour or more)")
    parser.add_argument("--model", choices=MODELS, action="append", help="only this one; may be repeated")
    parser.add_argument("--dtype", choices=TYPES, action="append", help="only this one; may be repeated")
    parser.add_argument("--rows", type=int, action="append", help="only so many; may be repeated")
    parser.add_argument("--alone", action="store_true", help="only the C core and the bare product")
    real = "only hidden states of SmolLM2-135M, layer by layer, beside drawn rows (float32 but for --dtype)"
    parser.add_argument("--real", action="store_true", help=real)
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"), help="folder of the results")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "probe-core.json"
    some = options.model or options.dtype or options.rows or options.alone or options.real
    results = json.loads(path.read_text()) if path.exists() and some else {}
    results["machine"] = {
        "cores": torch.get_num_threads(),
        "paths": cpu_paths(),
        "torch": torch.__version__,
        "load": os.getloadavg()[0],
    }
    print(results["machine"])
    if options.real:
        results["real"] = [
            case for dtype in options.dtype or ["float32"] for case in real_rows.cases(TYPES[dtype], 5)
        ]
        real_rows.show(results["real"])
        path.write_text(json.dumps(results, indent=1))
        return
    for model in options.model or MODELS:
        for dtype in options.dtype or TYPES:
            for rows in options.rows or (FULL if options.full else QUICK[model]):
                found = case(model, dtype, rows, full=options.full, alone=options.alone)
                put(results, "alone" if options.alone else "cases", found)
            if not options.rows:
                put(results, "packing", packing(model, dtype))
                put(results, "scaling", scaling(model, dtype))
            path.write_text(json.dumps(results, indent=1))
    if results.get("cases"):  # with --alone there may be none
        plot(results, options.out / "probe-core.png")


if __name__ == "__main__":
    main()
