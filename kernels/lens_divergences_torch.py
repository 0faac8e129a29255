"""KL to the final layer and its gradient by torch: three products, on any device, in bounded scratch memory.

Both need the normalisers of a row before its slopes, so the logits of a block of rows are kept, tile by tile,
from the sweep that finds the normalisers to the one that turns them into slopes: a product that was not
computed twice. The block is as high as a fixed number of bytes allows, whatever R and V are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from attrs import define
from torch import Tensor

from kernels.lens_torch import TILE, TiledProjection
from kernels.product import unrounded_product
from kernels.unembedding import Unembedding

# Of a block's logits. Products want some hundred rows, also of the largest vocabularies.
LOGIT_BYTES = {"cpu": 64 << 20, "cuda": 512 << 20}


def torch_tiled(
    hidden: Tensor,
    final: Tensor,
    unembedding: Unembedding,
    *,
    rounded: bool = False,
    tile: int = TILE,
    logit_bytes: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute both block by block of positions: rows [L, N, D] → [L, N] and [L, N, D].

    Scratch: logit_bytes of logits, but at least those of one position, and some tiles of as many rows.
    """
    projection = TiledProjection(unembedding, tile)
    return by_blocks(
        hidden,
        final,
        unembedding,
        logit_bytes,
        lambda rows, target: _block(rows, target, projection, rounded),
    )


def by_blocks(
    hidden: Tensor,
    final: Tensor,
    unembedding: Unembedding,
    logit_bytes: int | None,
    block: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
) -> tuple[Tensor, Tensor]:
    """Give both of rows [L, N, D], of as many positions at a time as logit_bytes allow."""
    layers, positions, _ = hidden.shape
    kl = torch.empty((layers, positions), device=hidden.device)
    gradient = torch.empty(hidden.shape, device=hidden.device)
    limit = logit_bytes or LOGIT_BYTES.get(hidden.device.type, LOGIT_BYTES["cpu"])
    for part in blocks(layers, positions, unembedding.vocab_size, limit):
        kl[:, part], gradient[:, part] = block(hidden[:, part], final[part])
    return kl, gradient


def blocks(layers: int, positions: int, vocabulary: int, logit_bytes: int) -> Iterator[slice]:
    """Yield positions whose logits, those of their layers and the final one, fit; one at least."""
    step = max(1, logit_bytes // (4 * vocabulary * (layers + 1)))
    for start in range(0, positions if layers else 0, step):
        yield slice(start, min(start + step, positions))


def _block(
    hidden: Tensor, final: Tensor, projection: TiledProjection, rounded: bool
) -> tuple[Tensor, Tensor]:
    layers, positions, width = hidden.shape
    rows, head = hidden.reshape(-1, width), projection.unembedding
    translated, target = Normaliser.of(rows), Normaliser.of(final)
    kept = []
    for start, end in projection.tiles():
        x, y = projection.logits(rows, start, end), projection.logits(final, start, end)
        translated.add(x)
        target.add(y)
        kept.append((x, y))
    kl = torch.zeros((layers, positions), dtype=torch.float64, device=hidden.device)
    gradient = torch.zeros(rows.shape, device=hidden.device)
    kept.reverse()
    for start, end in projection.tiles():
        x, y = kept.pop()
        kept_back = None if head.softcap is None else 1 - (x / head.softcap) ** 2
        logp = target.logprobs(y)
        logq, p = translated.logprobs(x).view(layers, positions, -1), logp.exp()
        kl += (logp - logq).mul_(p).sum(dim=2)
        slope = logq.exp_().sub_(p).view(len(rows), -1)
        if kept_back is not None:
            slope *= kept_back
        gradient += unrounded_product(slope, head.weight[start:end], rounded=rounded)
    broken = ~kl.isfinite()
    gradient = gradient.mul_(head.scale).view(hidden.shape)
    return (
        kl.clamp_min(0).masked_fill(broken, math.nan).float(),
        gradient.masked_fill(broken[..., None], math.nan),
    )


@define(eq=False)
class Normaliser:
    """The running log Σ exp x of r rows, by the online softmax (arXiv 1805.02867); sums in float64."""

    maximum: Tensor  # [r]
    total: Tensor  # [r] Σ exp(x − maximum)

    @staticmethod
    def of(rows: Tensor) -> Normaliser:
        """Start before the first tile."""
        zeros = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
        return Normaliser(torch.full_like(zeros, -math.inf, dtype=torch.float32), zeros)

    def add(self, x: Tensor) -> None:
        """Add a tile [r, t]. A NaN or infinity makes no sum, and no number of what is computed from it."""
        top = torch.maximum(self.maximum, x.amax(dim=1))
        tile = (x - top[:, None]).exp_().sum(dim=1)
        self.total = self.total * (self.maximum - top).double().exp() + tile
        self.maximum = top

    def logprobs(self, x: Tensor) -> Tensor:
        """Make log-probabilities of logits [r, t], in their place.

        The maximum goes off first: it is a logit itself, so large logits lose no digits to it.
        """
        return x.sub_(self.maximum[:, None]).sub_(self.total.log()[:, None].float())
