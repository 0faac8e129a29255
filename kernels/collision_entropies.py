"""The collision entropy of lens rows: Rényi's entropy of order 2, by one more product."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve
from torch import Tensor

from kernels.lens import lens_statistics
from kernels.unembedding import Unembedding

if TYPE_CHECKING:
    from kernels.lens_c_weights import PackedUnembedding


def collision_entropy(
    hidden: Tensor,
    unembedding: Unembedding | PackedUnembedding,
    logsumexp: Tensor,
    *,
    backend: str = "auto",
) -> Tensor:
    """Give −log Σ p² of the lens distributions of R rows (Rényi, 1961), in nats, never above the entropy.

    It is 2 log Σ exp x − log Σ exp 2x, and doubled logits are those of an unembedding with twice the scale
    and soft-cap: the lens kernel sums them, without [R, V] logits. It costs one product, and twice the error
    of `logsumexp`.

    Args:
        hidden: [R, D] rows after the model's final norm.
        unembedding: the map to logits.
        logsumexp: [R] of the same rows, from `lens_statistics`; NaN stays NaN.
        backend: "auto", or the name of one.
    """
    softcap = None if unembedding.softcap is None else 2 * unembedding.softcap
    doubled = evolve(unembedding, scale=2 * unembedding.scale, softcap=softcap)
    twice = lens_statistics(hidden, doubled, top_k=0, backend=backend).logsumexp
    return (2 * logsumexp - twice).clamp_min(0)
