"""Choose tiles by timing, where a person asks for it; nothing is timed otherwise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from triton.compiler.errors import CompilationError
from triton.runtime.errors import OutOfResources
from triton.testing import do_bench

from kernels.gpu.device import find_device
from kernels.gpu.lens import Launch, triton_backend
from kernels.gpu.lens_tile_resources import candidates
from kernels.gpu.lens_tiles import Tile
from kernels.unembedding import Unembedding


def tune(hidden: Tensor, unembedding: Unembedding, *, watched: int = 8, top_k: int = 5) -> Launch:
    """Time the tiles that fit this device on hidden states [R, D] like the real ones; give the fastest.

    Hand the result to `triton_backend(..., launch=...)`. It takes minutes: every tile is compiled.
    """
    chip = find_device(hidden.device).chip
    size = 2 if unembedding.weight.dtype in (torch.float16, torch.bfloat16) else 4
    ids = torch.arange(watched, device=hidden.device)
    finals = torch.full((len(hidden),), len(hidden) - 1, device=hidden.device)

    def run(launch: Launch, final_rows: Tensor | None) -> Callable[[], object]:
        return lambda: triton_backend(hidden, unembedding, ids, top_k, final_rows, launch=launch)

    sums = _fastest(
        {tile: run(Launch(sums=tile), None) for tile in candidates("sums", chip, size, len(hidden))}
    )
    divergences = _fastest(
        {
            tile: run(Launch(sums=sums, divergences=tile), finals)
            for tile in candidates("divergences", chip, size, len(hidden))
        }
    )
    return Launch(sums=sums, divergences=divergences)


def _fastest(runs: dict[Tile, Callable[[], object]]) -> Tile | None:
    """Give the tile of the shortest median; those that the model let through but the chip does not, go."""
    times: dict[Tile, float] = {}
    for tile, run in runs.items():
        try:
            times[tile] = float(do_bench(run, quantiles=[0.5]))
        except (CompilationError, OutOfResources):
            continue
    return min(times, key=lambda tile: times[tile], default=None)
