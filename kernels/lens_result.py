"""The probe core's result type."""

from __future__ import annotations

from attrs import frozen
from torch import Tensor


@frozen(eq=False)
class LensStatistics:
    """Full-vocabulary statistics of R lens rows, in nats; rows with a NaN or Inf hold NaN and -1.

    Shapes: R rows, J watched tokens, k top places. `kl_final` and `js_final` are None without final rows.
    """

    logsumexp: Tensor  # [R]
    entropy: Tensor  # [R]
    max_prob: Tensor  # [R]
    top_ids: Tensor  # [R, k] int64, -1 beyond the vocabulary
    top_logprobs: Tensor  # [R, k], NaN beyond the vocabulary
    watch_logprob: Tensor  # [R, J]
    watch_rank: Tensor  # [R, J] int64, 0 = top
    watch_mass: Tensor  # [R]
    watch_entropy: Tensor  # [R]
    kl_final: Tensor | None  # [R]
    js_final: Tensor | None  # [R]
    nonfinite_rows: int
    backend: str
