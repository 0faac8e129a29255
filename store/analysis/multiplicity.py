"""Correction of p values for the number of tests that were made."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

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
    if check(correction) == "none" or not p.size:
        return p
    if correction == "benjamini-hochberg":
        return np.apply_along_axis(_false_discovery, axis, p)
    return np.apply_along_axis(_holm, axis, p)


def check(correction: Correction) -> Correction:
    """Return a correction's name; StoreError for another."""
    if correction not in NAMES:
        raise StoreError(f"correction {correction!r}: expected one of {', '.join(NAMES)}")
    return correction


def _false_discovery(p: NDArray[np.float64]) -> NDArray[np.float64]:
    found = p.copy()
    if (there := ~np.isnan(p)).any():
        found[there] = false_discovery_control(p[there])
    return found


def _holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Do what statsmodels' multipletests does, which takes 0.1 s to collect garbage in every call."""
    order = np.argsort(p)  # NaN last
    tests = (~np.isnan(p)).sum()
    stepped = np.fmax.accumulate(p[order] * np.maximum(tests - np.arange(len(p)), 1))
    found = np.empty_like(p)
    found[order] = np.minimum(stepped, 1)
    return np.where(np.isnan(p), np.nan, found)
