"""Correction of p values for the number of tests that were made."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control
from statsmodels.stats.multitest import multipletests

from store.errors import StoreError

Correction = Literal["holm", "benjamini-hochberg", "none"]
NAMES = {
    "holm": "Holm's correction",
    "benjamini-hochberg": "Benjamini and Hochberg's false discovery rate",
    "none": "no correction for multiple tests",
}


def adjust(p: NDArray[np.float64], axis: int, correction: Correction = "holm") -> NDArray[np.float64]:
    """Return p values corrected along one axis; those that are NaN are no tests and stay NaN.

    holm bounds the chance of any false rejection (Holm, 1979), benjamini-hochberg the expected share of false
    ones among the rejections (Benjamini & Hochberg, 1995). StoreError for another name.
    """
    if correction not in NAMES:
        raise StoreError(f"correction {correction!r}: expected one of {', '.join(NAMES)}")
    if correction == "none" or not p.size:
        return p
    return np.apply_along_axis(_adjust, axis, p, correction)


def _adjust(p: NDArray[np.float64], correction: Correction) -> NDArray[np.float64]:
    found = p.copy()
    there = ~np.isnan(p)
    if there.any() and correction == "holm":
        found[there] = multipletests(p[there], method="holm")[1]
    elif there.any():
        found[there] = false_discovery_control(p[there])
    return found
