"""Intervals of accuracies and of their paired differences, which hold near 0 and 1 and stay in their range.

The t interval of a share is too narrow where few examples are wrong, and has no width where none is.
"""

from collections.abc import Callable
from functools import cached_property

import numpy as np
from attrs import frozen
from numpy.typing import NDArray
from scipy import special

from store.analysis.components import Components, Floats
from store.analysis.skewness import MOST_SKEWED, straight
from store.analysis.widths import HALVINGS, Widths, plain_widths, t_quantile

SMALLEST = 1e-12  # variance of a difference that is not rounding


@frozen
class Score:
    """How far the mean of paired differences of shares lies from a value, if the value were the true mean.

    Near 0 and 1 the variance of a difference and its skewness go with its mean. So the variance is scaled to
    what it would be with the value, by the restricted estimate of Tango's score interval (1998, Statistics in
    Medicine 17), and the skewness that examples bring is taken out by Hall's transformation (1992, JRSS B
    54). Widths, and so degrees of freedom, stay those of the one inference.
    """

    components: Components
    plain: Widths

    def distance(self, value: float | Floats = 0.0) -> Floats:
        """Return the distance from the mean to a value, as widths are to be held against it; 0 or more."""
        ratio = self._variance(value) / self._variance_of_mean
        y = (self.components.mean - value) / self._deviation / np.sqrt(np.maximum(ratio, 1.0))
        return np.asarray(self._deviation * straight(y, self._skewed))

    def p(self, p_of: Callable[[Floats], Floats], value: float = 0.0) -> Floats:
        """Return the two-sided p value of a true mean of `value`; p_of: that of a distance."""
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.abs(self.components.mean - value) * np.sqrt(self.components.groups / self._variance(value))
        still = 2 * special.stdtr(self._df, -np.where(self.components.mean == value, 0.0, t))
        return self._known(np.where(self.varies, p_of(self.distance(value)), still))

    def bounds(self, half: Floats, alpha: Floats | float) -> Floats:
        """Return low and high [2, *outcomes], to which the mean has this half-width; alpha: its level."""
        components, half_width = self.components, np.broadcast_to(half, self.components.mean.shape)
        still = t_quantile(alpha, self._df) ** 2 / np.maximum(components.groups, 1)
        inside = np.stack([components.mean, components.mean])
        outside = np.stack([np.full(components.mean.shape, end) for end in (-1.0, 1.0)])
        for _ in range(HALVINGS):
            middle = (inside + outside) / 2
            with np.errstate(invalid="ignore"):
                within = np.where(
                    self.varies,
                    self.distance(middle) <= half_width,
                    (components.mean - middle) ** 2 <= still * self._variance(middle),
                )
            inside, outside = np.where(within, middle, inside), np.where(within, outside, middle)
        return self._known(np.where(np.isnan(half_width), np.nan, inside))

    @cached_property
    def _deviation(self) -> Floats:
        return np.asarray(np.sqrt(np.where(self.varies, self.plain.variances[0], 1.0)))

    @cached_property
    def _skewed(self) -> Floats:
        # The estimate of a few dozen groups falls short of it, hence twice.
        skewness = 2 * np.nan_to_num(self.components.third / self._deviation**3)
        return np.asarray(np.clip(skewness, -MOST_SKEWED, MOST_SKEWED))

    @cached_property
    def _variance_of_mean(self) -> Floats:
        return np.where(self.varies, self._variance(self.components.mean), 1.0)

    @cached_property
    def varies(self) -> NDArray[np.bool_]:
        """Where anything varies; elsewhere it is not known how alike seeds are, and groups count once."""
        some = np.nan_to_num(self.plain.variances).max(axis=0) > 0
        return np.asarray(some & (self.components.size - self.components.mean**2 > SMALLEST))

    @property
    def _df(self) -> Floats:
        return np.asarray(np.maximum(self.components.groups - 1.0, 1.0))

    def _known(self, values: Floats) -> Floats:
        return np.where(self.components.groups > 1, values, np.nan)

    def _variance(self, value: float | Floats) -> Floats:
        """Return the variance of one example's difference, if `value` were the true mean."""
        gained, lost = (
            (self.components.size + self.components.mean) / 2,
            (self.components.size - self.components.mean) / 2,
        )
        b = (2 - gained + lost) * value - gained - lost
        most_likely = (np.sqrt(np.maximum(b**2 + 8 * lost * value * (1 - value), 0.0)) - b) / 4
        return np.asarray(np.maximum(2 * most_likely + value * (1 - value), 0.0))


@frozen
class Floor:
    """The interval that a mean of other values from −1 to 1, such as an AUC's, has at least.

    Bonett and Price's (2012, Journal of Educational and Behavioral Statistics 37): one more example is taken
    to be gained, and one lost.
    """

    components: Components

    def p(self, p_of: Callable[[Floats], Floats], value: float = 0.0) -> Floats:
        """Return the two-sided p value of a true mean of `value`; p_of: that of a distance."""
        centre, error = self._least()
        least = 2 * special.ndtr(-np.abs(centre - value) / error)
        return np.asarray(np.maximum(p_of(self.components.mean - value), least))

    def bounds(self, half: Floats, alpha: Floats | float) -> Floats:
        """Return low and high [2, *outcomes] with this half-width at least; alpha: its level."""
        centre, error = self._least()
        least = special.ndtri(1 - np.asarray(alpha) / 2) * error
        low = np.minimum(self.components.mean - half, centre - least)
        return np.stack([low, np.maximum(self.components.mean + half, centre + least)])

    def _least(self) -> tuple[Floats, Floats]:
        m, q = self.components.mean, self.components.size
        n = self._effective(q - m**2)
        with np.errstate(divide="ignore", invalid="ignore"):
            centre = m * n / (n + 2)
            error = np.sqrt(np.maximum((q * n + 2) / (n + 2) - centre**2, 0) / (n + 2))
        return centre, error

    def _effective(self, variance: Floats) -> Floats:
        """Return how many independent examples of this variance would leave the mean as unsure."""
        components, of_examples = self.components, self.components.variances[1]
        with np.errstate(divide="ignore", invalid="ignore"):
            n = np.clip(variance / of_examples, 1, components.seeds * components.examples)
        return np.where((of_examples > 0) & (variance > 0), n, components.groups).astype(float)


def share_bounds(
    components: Components, confidence: float, plain: Widths | None = None
) -> tuple[Floats, Floats]:
    """Return the interval of a share (a mean of 0 and 1), which stays within 0 and 1.

    plain: the widths that its mean has, by default those over seeds and examples.

    Wilson's (1927) with the number of independent examples that have the same interval in t (Korn & Graubard,
    1998, Survey Methodology 24); where the share is 0 or 1, the groups of examples count once.
    """
    p, alpha = components.mean, 1 - confidence
    plain = plain or plain_widths(components.variances, components.seeds, components.df_examples)
    half = plain.half(alpha)
    z = special.ndtri(1 - alpha / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        n = np.minimum(p * (1 - p) * (z / half) ** 2, components.seeds * components.examples)
    varies = (half > 0) & (p > 0) & (p < 1)
    n = np.where(varies, n, components.groups)
    quantile = np.where(varies, z, t_quantile(alpha, np.maximum(components.groups - 1, 1)))
    with np.errstate(divide="ignore", invalid="ignore"):
        square = quantile**2 / n
        centre = (p + square / 2) / (1 + square)
        around = np.sqrt(square * p * (1 - p) + square**2 / 4) / (1 + square)
    known = components.groups > 1
    return np.where(known, centre - around, np.nan), np.where(known, centre + around, np.nan)
