"""Intervals of accuracies and of their paired differences, which hold near 0 and 1 and stay in their range.

The t interval of a share is too narrow where few examples are wrong, and has no width where none is.
"""

import numpy as np
from attrs import frozen
from scipy import special

from store.analysis.components import Components, Floats
from store.analysis.widths import plain_widths, t_quantile


@frozen
class Floor:
    """The interval that a paired difference of shares has at least: Bonett and Price's (2012).

    Journal of Educational and Behavioral Statistics 37: one more example is taken to be gained and one lost.
    `centre` and `error` are of the outcomes' shape.
    """

    centre: Floats
    error: Floats

    @classmethod
    def of(cls, found: Components) -> "Floor":
        """Return the floor of differences of 0/1 outcomes, or of means of such over other factors."""
        m, q = found.mean, found.size
        n = effective_examples(found, q - m**2)
        with np.errstate(divide="ignore", invalid="ignore"):
            centre = m * n / (n + 2)
            error = np.sqrt(np.maximum((q * n + 2) / (n + 2) - centre**2, 0) / (n + 2))
        return cls(centre, error)

    def bounds(self, alpha: Floats | float) -> tuple[Floats, Floats]:
        """Return low and high with confidence 1 − alpha."""
        half = special.ndtri(1 - np.asarray(alpha) / 2) * self.error
        return self.centre - half, self.centre + half

    def p(self, value: float = 0.0) -> Floats:
        """Return the two-sided level at which these bounds touch a value."""
        return np.asarray(2 * special.ndtr(-np.abs(self.centre - value) / self.error))


def effective_examples(found: Components, variance: Floats) -> Floats:
    """Return how many independent examples of this variance would leave the mean as unsure as these do.

    From 1 up to seeds × examples; where nothing varies, it is not known how alike seeds and the examples of a
    group are, and the groups count once.
    """
    own = found.variances[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        n = np.clip(variance / own, 1, found.seeds * found.examples)
    return np.where((own > 0) & (variance > 0), n, found.groups).astype(float)


def share_bounds(found: Components, confidence: float) -> tuple[Floats, Floats]:
    """Return the interval of a share (a mean of 0 and 1), which stays within 0 and 1.

    Wilson's (1927) with the number of independent examples that have the same interval in t (Korn & Graubard,
    1998, Survey Methodology 24); where the share is 0 or 1, the groups of examples count once.
    """
    p, alpha = found.mean, 1 - confidence
    half = plain_widths(found.variances, found.seeds, found.df_examples).half(alpha)
    z = special.ndtri(1 - alpha / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        n = np.minimum(p * (1 - p) * (z / half) ** 2, found.seeds * found.examples)
    varies = (half > 0) & (p > 0) & (p < 1)
    n = np.where(varies, n, found.groups)
    quantile = np.where(varies, z, t_quantile(alpha, np.maximum(found.groups - 1, 1)))
    with np.errstate(divide="ignore", invalid="ignore"):
        square = quantile**2 / n
        centre = (p + square / 2) / (1 + square)
        around = np.sqrt(square * p * (1 - p) + square**2 / 4) / (1 + square)
    known = found.groups > 1
    return np.where(known, centre - around, np.nan), np.where(known, centre + around, np.nan)
