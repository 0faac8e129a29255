"""KL to the final layer and its gradient on the CPU: logits and slopes by the C core, the gradient by BLAS.

The logits of a block of rows are kept in panels, as for KL and JS of the statistics. The panels of a tile
become slopes, row by row, by all threads; then the tile's slopes are multiplied with its rows of W.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kernels.c_library import ThreadTeam, ffi, lib, pointer
from kernels.lens_c import PackedProjection, Workspace, empty_statistics
from kernels.lens_c_weights import COLUMNS, packed_once
from kernels.lens_divergences_torch import LOGIT_BYTES, blocks
from kernels.product import unrounded_product
from kernels.unembedding import Unembedding

PART = 32  # panels whose slopes one thread computes at once
# Panels of a product, whole parts. Few are long: behind each, OpenMP's threads wait awake, in others' way.
TILE = 16 * PART


def c_backend(
    hidden: Tensor,
    final: Tensor,
    unembedding: Unembedding,
    *,
    path: str | None = None,
    logit_bytes: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute both block by block of positions, by one of `cpu_paths()`; None takes the best.

    Scratch: as the torch backend's, and the packed weight.

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
    slopes = torch.empty(rows * TILE * COLUMNS)
    for part in parts:
        by_position = hidden[:, part].transpose(0, 1)
        together = torch.cat([by_position.flatten(0, 1).to(dtype), final[part].to(dtype)])
        work.compute(together, torch.arange(len(together)))
        divergences, ours = _block(work, by_position.shape, slopes, unembedding)
        kl[:, part], gradient[:, part] = divergences.T, ours.transpose(0, 1)
    return kl, gradient


def _block(
    work: Workspace, shape: torch.Size, slopes: Tensor, unembedding: Unembedding
) -> tuple[Tensor, Tensor]:
    """Give KL [n, L] and its gradient [n, L, D] of the block whose rows were computed last."""
    positions, layers, width = shape
    count, vocabulary = positions * layers, unembedding.vocab_size
    rows = torch.arange(count)
    finals = count + rows // layers
    pairs = ffi.new("lens_pairs *")
    pairs.count = count
    pairs.row, pairs.final = (pointer("pairs", places, torch.int64) for places in (rows, finals))
    panels = -(-vocabulary // COLUMNS)
    kl = torch.empty(-(-panels // PART), count, dtype=torch.float64)
    gradient = torch.zeros(count, width)
    for tile in range(0, panels, TILE):
        here = min(TILE, panels - tile)
        columns = here * COLUMNS
        of_tile = slopes[: count * columns].view(count, columns)

        def work_on(part: int, slot: int, tile: int = tile, here: int = here, out: Tensor = of_tile) -> None:
            first = part * PART
            lib.lens_slopes(
                work.projection.path,
                work.block,
                work.c_result,
                pairs,
                tile + first,
                min(PART, here - first),
                pointer("slopes", out, torch.float32) + first * COLUMNS,
                out.shape[1],
                pointer("kl", kl[tile // PART + part], torch.float64),
                work.scratch_of[slot],
            )

        work.team.share(work_on, -(-here // PART))
        weight = unembedding.tokens[tile * COLUMNS : tile * COLUMNS + columns]
        gradient += unrounded_product(of_tile[:, : len(weight)], weight)
    total = kl.sum(dim=0)
    broken = work.broken()[rows] | work.broken()[finals]
    gradient = gradient.mul_(unembedding.scale).masked_fill(broken[:, None], math.nan)
    total = total.clamp_min(0).masked_fill(broken, math.nan)
    return total.float().view(positions, layers), gradient.view(shape)
