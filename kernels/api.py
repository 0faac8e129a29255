"""The probe core's one entry: lens statistics of hidden states, by whichever backend is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.reference import reference
from kernels.result import LensStatistics


def lens_statistics(
    hidden: Tensor,
    unembedding: Tensor,
    *,
    bias: Tensor | None = None,
    scale: float = 1.0,
    softcap: float | None = None,
    vocab_size: int | None = None,
    watch_ids: Tensor | Sequence[int] = (),
    top_k: int = 5,
    final_rows: Tensor | None = None,
    backend: str = "auto",
) -> LensStatistics:
    """Give the statistics of x = scale (H Wᵀ + b), soft-capped as c tanh(x / c) where a cap is given.

    hidden [R, D]; unembedding [V', D], rows from `vocab_size` on are padding; bias [V']; watch_ids [J];
    final_rows [R]: which row of `hidden` is the final layer's at the same position.
    """
    vocabulary = len(unembedding) if vocab_size is None else vocab_size
    return reference(
        hidden,
        unembedding[:vocabulary],
        None if bias is None else bias[:vocabulary],
        scale,
        softcap,
        torch.as_tensor(watch_ids, dtype=torch.int64, device=hidden.device),
        top_k,
        final_rows,
    )
