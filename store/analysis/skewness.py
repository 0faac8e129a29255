"""Distances from a skewed mean, by Hall's transformation (1992, JRSS B 54).

Where values are skewed, so is their mean, and its variance goes with it: a mean that is too low by chance
comes with a variance that is too low, and the far tail of its t is too heavy. The transformation takes the
skewness out, and is only used where it makes an interval wider.
"""

import numpy as np

from store.analysis.components import Components, Floats

MOST_SKEWED = 1.5


def skewness(components: Components, deviation: Floats) -> Floats:
    """Return the skewness of the mean by what examples (or groups) show of it, less a standard error.

    Of normal values two of three show none then. deviation: of the mean, [*rest]; 0 where nothing varies.
    """
    n = np.maximum(components.groups, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.nan_to_num(components.variances[1]) / deviation**2
        raw = np.nan_to_num(components.third) / deviation**3
        sure = np.maximum(np.abs(raw) - np.sqrt(6.0) / n * share**1.5, 0.0)
    return np.asarray(np.clip(np.nan_to_num(np.sign(raw) * sure), -MOST_SKEWED, MOST_SKEWED))


def straight(y: Floats, skewed: Floats) -> Floats:
    """Return the size of standardised distances (mean less value) of a mean of this skewness; 0 or more."""
    side = np.where(y < 0, -1.0, 1.0)
    turned = (y + skewed * y**2 / 3 + skewed**2 * y**3 / 27 + skewed / 6) * side
    return np.asarray(np.maximum(np.minimum(y * side, turned), 0.0))


def reach(half: Floats, skewed: Floats) -> Floats:
    """Return how far below and above the mean [2, *rest] what `straight` gives is within `half`."""
    ends = []
    for skew in (-skewed, skewed):  # a mean with a tail on the right is more often too low
        s = np.where(skew > 0, skew, 1.0)
        bent = 3 * (1 - np.cbrt(1 - s * (half + s / 6))) / s
        ends.append(np.where(skew > 0, np.maximum(half, bent), half))
    return np.stack(ends)
