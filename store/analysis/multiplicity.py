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


def divisors(
    p: NDArray[np.float64], axis: int, correction: Correction, alpha: float
) -> NDArray[np.float64] | None:
    """Return by what alpha is divided at the levels of an interval's ends [2, *tests], for p along one axis.

    The first is for the end away from 0, the second for the one towards 0. The interval leaves out 0 just
    where the corrected p value is below alpha. holm: Bonferroni's for both, but where Holm's steps find more
    than Bonferroni's one does, the step's own towards 0. benjamini-hochberg: those of the false coverage rate
    (Benjamini & Yekutieli, 2005, JASA 100). None where nothing is corrected.
    """
    if check(correction) == "none" or not p.size:
        return None
    count = np.isfinite(p).sum(axis=axis, keepdims=True)
    with np.errstate(invalid="ignore"):
        rejected = adjust(p, axis, correction) < alpha
    if correction == "benjamini-hochberg":
        most = np.broadcast_to(count / np.maximum(rejected.sum(axis=axis, keepdims=True), 1), p.shape)
        return np.asarray(np.maximum(np.stack([most, most]), 1.0))
    rank = np.argsort(np.argsort(p, axis=axis), axis=axis)
    outer = np.maximum(np.broadcast_to(count, p.shape), 1).astype(float)
    return np.stack([outer, np.where(rejected, np.maximum(count - rank, 1), outer)])


def check(correction: Correction) -> Correction:
    """Return a correction's name; StoreError for another."""
    if correction not in NAMES:
        raise StoreError(f"correction {correction!r}: expected one of {', '.join(NAMES)}")
    return correction


def _false_discovery(p: NDArray[np.float64]) -> NDArray[np.float64]:
    adjusted = p.copy()
    if (valid := ~np.isnan(p)).any():
        adjusted[valid] = false_discovery_control(p[valid])
    return adjusted


def _holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Do what statsmodels' multipletests does, which takes 0.1 s to collect garbage in every call."""
    order = np.argsort(p)  # NaN last
    tests = (~np.isnan(p)).sum()
    stepped = np.fmax.accumulate(p[order] * np.maximum(tests - np.arange(len(p)), 1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1)
    return np.where(np.isnan(p), np.nan, adjusted)
