"""Accuracies of several answers to one example."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def pass_at_k(right: Any, samples: int, k: int) -> NDArray[np.float64]:
    """Return the chance that one of k samples is right, of examples with so many right ones of all samples.

    Chen et al.'s unbiased estimate (arXiv 2107.03374): 1 − C(samples − right, k) / C(samples, k), as a
    product. right: an array, NaN for missing.
    """
    right = np.asarray(right, float)
    factors = np.arange(1, samples + 1)
    # Of the factors 1 − k / i those for i from samples − right + 1 on.
    taken = factors > (samples - right)[..., None]
    wrong = np.where(taken, np.clip(1 - k / factors, 0, None), 1.0).prod(axis=-1)
    return np.where(np.isnan(right), np.nan, 1 - wrong)
