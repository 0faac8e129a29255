"""KL to the final layer and its gradient on the CPU, by the C core.

The logits of a block of rows are kept in panels, as for KL and JS of the statistics. Some panels at a time
become slopes, row by row, by all threads, and these are multiplied with their rows of W.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from kernels.c_library import ThreadTeam, ffi, lib, pointer
from kernels.lens_c import PackedProjection, Workspace, empty_statistics
from kernels.lens_c_weights import COLUMNS, packed_once
from kernels.lens_divergences_torch import LOGIT_BYTES, blocks
from kernels.lens_gradients_c import PART, BfloatProduct, BlasProduct, slope_product
from kernels.unembedding import Unembedding


def c_backend(
    hidden: Tensor,
    final: Tensor,
    unembedding: Unembedding,
    *,
    rounded: bool = False,
    path: str | None = None,
    logit_bytes: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute both block by block of positions, by one of `cpu_paths()`; None takes the best.

    Slopes are rounded only where `rounded` allows it and the path multiplies them itself. Scratch: as the
    torch backend's, and the packed weight.

    Raises ValueError for a path that the CPU lacks.
    """
    layers, positions, _ = hidden.shape
    kl, gradient = torch.empty(layers, positions), torch.empty(hidden.shape)
    packed = packed_once(unembedding)
    parts = list(blocks(layers, positions, packed.vocab_size, logit_bytes or LOGIT_BYTES["cpu"]))
    if not parts:
        return kl, gradient
    rows = (layers + 1) * (parts[0].stop - parts[0].start)
    dtype = torch.promote_types(hidden.dtype, final.dtype)
    team = ThreadTeam()
    projection = PackedProjection.of(torch.empty(0, dtype=dtype), packed, path)
    work = Workspace(projection, rows, empty_statistics(rows, 0, 1), True, team)
    product = slope_product(unembedding, rows, path, rounded, team)
    for part in parts:
        by_position = hidden[:, part].transpose(0, 1)
        together = torch.cat([by_position.flatten(0, 1).to(dtype), final[part].to(dtype)])
        work.compute(together, torch.arange(len(together)))
        divergences, ours = _block(work, by_position.shape, product, unembedding)
        kl[:, part], gradient[:, part] = divergences.T, ours.transpose(0, 1)
    return kl, gradient


def _block(
    work: Workspace, shape: torch.Size, product: BlasProduct | BfloatProduct, unembedding: Unembedding
) -> tuple[Tensor, Tensor]:
    """Give KL [n, L] and its gradient [n, L, D] of the block whose rows were computed last."""
    positions, layers, width = shape
    count, vocabulary = positions * layers, unembedding.vocab_size
    rows = torch.arange(count)
    finals = count + rows // layers
    pairs = ffi.new("lens_pairs *")
    pairs.count = count
    pairs.row, pairs.final = (pointer("pairs", places, torch.int64) for places in (rows, finals))
    kl = torch.empty(-(-vocabulary // (PART * COLUMNS)), count, dtype=torch.float64)
    gradient = torch.zeros(count, width)

    def slopes(first: int, panels: int, out: Any, stride: int, slot: int) -> None:
        kl_of_part = pointer("kl", kl[first // PART], torch.float64)
        lib.lens_slopes(
            work.projection.path, work.block, work.c_result, pairs, first, panels, out, stride, kl_of_part,
            work.scratch_of[slot],
        )  # fmt: skip

    for first in range(0, vocabulary, product.tokens):
        product.add(slopes, first, gradient)
    total = kl.sum(dim=0)
    broken = work.broken()[rows] | work.broken()[finals]
    gradient = gradient.mul_(unembedding.scale).masked_fill(broken[:, None], math.nan)
    total = total.clamp_min(0).masked_fill(broken, math.nan)
    return total.float().view(positions, layers), gradient.view(shape)
