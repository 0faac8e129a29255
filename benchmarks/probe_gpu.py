"""Time and peak memory of the probe core on a GPU: `python -m benchmarks.probe_gpu [--tune] [--csv FILE]`.

One tidy CSV: a line per shape, rows, dtype and provider, with the quantiles 20, 50 and 80 of the time, peak
memory beyond the inputs, device and versions. Rank, entropy and top tokens come out of every provider but
the bare product, which only materialises the logits.
"""

import argparse
import csv
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import triton
from torch import Tensor
from triton.testing import do_bench

from benchmarks.device.clock import peak_bytes
from kernels import Unembedding, lens_statistics
from kernels.gpu.lens import Launch, triton_backend
from kernels.gpu.lens_tuning import tune

SHAPES = {"SmolLM2": (576, 49152), "Qwen2.5-0.5B": (896, 151936), "Llama-3.1-8B": (4096, 128256)}
ROWS = (1, 16, 64, 512, 4096, 16384)
WATCHED, TOP, LAYERS = 8, 5, 32
MOST_LOGITS = 3 * 10**9  # eager providers keep several [R, V] tensors


def bare_product(hidden: Tensor, head: Unembedding, watch: Tensor) -> Tensor:
    return torch.nn.functional.linear(hidden, head.weight)


def eager(hidden: Tensor, head: Unembedding, watch: Tensor) -> tuple[Tensor, ...]:
    logits = torch.nn.functional.linear(hidden, head.weight).float()
    logp = torch.log_softmax(logits, dim=1)
    own = logits[:, watch]
    ranks = torch.stack([(logits > own[:, j, None]).sum(dim=1) for j in range(len(watch))], dim=1)
    return -(logp.exp() * logp).sum(dim=1), *torch.topk(logp, TOP, dim=1), ranks, logp[:, watch]


def ours(
    hidden: Tensor, head: Unembedding, watch: Tensor, *, final: Tensor | None = None, launch: Launch | None
) -> object:
    return triton_backend(hidden, head, watch, TOP, final, launch=launch)


def tiled(hidden: Tensor, head: Unembedding, watch: Tensor) -> object:
    return lens_statistics(hidden, head, watch_ids=watch, top_k=TOP, backend="torch")


def providers(hidden: Tensor, head: Unembedding, tuned: bool) -> dict[str, Callable[..., object]]:
    rows = torch.arange(len(hidden), device=hidden.device)
    final = (rows // LAYERS * LAYERS + LAYERS - 1).clamp_max(len(hidden) - 1)
    launch = tune(hidden, head) if tuned else None
    found: dict[str, Callable[..., object]] = {
        "triton": partial(ours, launch=launch),
        "triton, KL and JS": partial(ours, final=final, launch=launch),
        "torch": tiled,
    }
    if len(hidden) * len(head.weight) <= MOST_LOGITS:
        found |= {"bare product": bare_product, "eager": eager}
        found["torch.compile"] = torch.compile(eager, dynamic=False)
    return found


def lines(dtype: torch.dtype, tuned: bool):
    """Yield the CSV's lines as dicts."""
    facts = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "tuned": tuned,
    }
    for name, (width, vocabulary) in SHAPES.items():
        head = Unembedding(torch.randn(vocabulary, width, device="cuda").mul_(width**-0.5).to(dtype))
        watch = torch.arange(WATCHED, device="cuda") * 97
        for rows in ROWS:
            hidden = torch.randn(rows, width, device="cuda").to(dtype)
            for provider, function in providers(hidden, head, tuned).items():
                run = partial(function, hidden, head, watch)
                low, median, high = do_bench(run, quantiles=[0.2, 0.5, 0.8])
                yield {
                    "model": name, "width": width, "vocabulary": vocabulary, "rows": rows,
                    "dtype": str(dtype).removeprefix("torch."), "provider": provider,
                    "ms_20": low, "ms_50": median, "ms_80": high,
                    "tflops": 2e-9 * rows * width * vocabulary / median,
                    "peak_bytes": peak_bytes(run, hidden.device), **facts,
                }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tune", action="store_true", help="time many tiles first, and use the fastest")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--csv", type=Path, default=Path("probe_gpu.csv"))
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks.probe_gpu needs a CUDA or ROCm device; found none")
    with options.csv.open("w", newline="") as file:
        writer = None
        for line in lines(getattr(torch, options.dtype), options.tune):
            writer = writer or csv.DictWriter(file, line)
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(line)
            file.flush()
            print(f"{line['model']:<14}{line['rows']:>7} {line['provider']:<20}{line['ms_50']:>10.3f} ms")


if __name__ == "__main__":
    main()
