"""Uncertainty when seeds and examples are crossed: every seed's model is measured on the same examples.

Neither the seeds × examples values nor their means by example are independent draws. The variance of a mean
is that of the two-way random-effects model (seed, example, and their interaction with the rest), the
distribution around it comes from the pigeonhole bootstrap (Owen, 2007, "The pigeonhole bootstrap", Annals of
Applied Statistics 1), which draws seeds and examples anew, each with replacement.
"""

from collections.abc import Callable

import numpy as np
from attrs import frozen
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
RESAMPLES = 2000
CONFIDENCE = 0.95
HALVINGS = 40  # of a degree, down to rounding


@frozen
class TwoWay:
    """The mean over seeds and examples of each statistic, and how sure it is; arrays of shape [*rest]."""

    mean: Floats
    variance: Floats
    """Of the mean, for new seeds and new examples (new examples alone when there is one seed)."""
    df: Floats
    """Satterthwaite's degrees of freedom of that variance."""
    seeds: int
    examples: NDArray[np.intp]
    """Examples with a value in every seed; the others are left out."""

    def t_test(self) -> Floats:
        """Return two-sided p values of a mean of 0; 1 where nothing varies and the mean is 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(self.mean == 0, 0.0, self.mean / np.sqrt(self.variance))
        p = 2 * stats.t.sf(np.abs(t), self.df)
        return np.where(np.isnan(self.mean) | np.isnan(self.variance), np.nan, p)

    def interval(self, confidence: float = CONFIDENCE) -> tuple[Floats, Floats]:
        """Return the interval of the t distribution."""
        half = stats.t.ppf((1 + confidence) / 2, self.df) * np.sqrt(self.variance)
        return self.mean - half, self.mean + half


@frozen
class _Deviations:
    """Values [seeds, examples, *rest] taken apart: their mean [*rest], and what departs from it."""

    mean: Floats
    seed: Floats
    example: Floats
    rest: Floats
    examples: NDArray[np.intp]

    @classmethod
    def of(cls, values: Floats) -> "_Deviations":
        """Take apart values; an example that is NaN in any seed is left out of that statistic."""
        there = np.asarray(np.isfinite(values).all(axis=0))
        n = there.sum(axis=0)
        x = np.where(there, values, 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = x.sum(axis=(0, 1)) / (len(x) * n)
            by_example = np.where(there, x.mean(axis=0) - mean, 0.0)
            by_seed = x.sum(axis=1) / n - mean
        rest = np.where(there, x - mean - by_example, 0.0) - np.where(there, by_seed[:, None], 0.0)
        return cls(mean, by_seed, by_example, rest, n)

    def products(self, other: "_Deviations") -> Floats:
        """Return the mean products of seeds, examples and the rest [3, *rest]; with itself mean squares."""
        count, n = len(self.seed), self.examples
        with np.errstate(divide="ignore", invalid="ignore"):
            seed = n * (self.seed * other.seed).sum(axis=0) / np.float64(count - 1)  # of one seed: NaN
            example = count * (self.example * other.example).sum(axis=0) / (n - 1)
            rest = (self.rest * other.rest).sum(axis=(0, 1)) / ((count - 1) * (n - 1))
        return np.stack([seed, example, rest])


def two_way(values: Floats) -> TwoWay:
    """Estimate the mean of values [seeds, examples, *rest] and its variance, both factors random and crossed.

    Var(mean) = (MS_seed + MS_example − MS_rest) / (seeds · examples), a component that comes out negative
    set to 0; degrees of freedom after Satterthwaite (1946, Biometrics Bulletin 2). An example that is NaN in
    any seed is left out of that statistic; NaN results where fewer than two examples are left.
    """
    found = _Deviations.of(values)
    return _estimate(found.mean, found.products(found), len(values), found.examples)


def _estimate(mean: Floats, squares: Floats, count: int, n: NDArray[np.intp]) -> TwoWay:
    """Return the estimate that a mean and its mean squares [seed, example, rest] give."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if count == 1:
            variance, df = squares[1] / n, (n - 1).astype(float)
        else:
            variance, df = _crossed(squares, count, n)
    few = n < 2
    return TwoWay(mean, np.where(few, np.nan, variance), np.where(few, np.nan, df), count, n)


def _crossed(squares: Floats, count: int, n: NDArray[np.intp]) -> tuple[Floats, Floats]:
    ms_s, ms_e, ms_r = squares
    df_s, df_e = count - 1, n - 1
    more_s, more_e = ms_s > ms_r, ms_e > ms_r
    total = ms_r + np.where(more_s, ms_s - ms_r, 0) + np.where(more_e, ms_e - ms_r, 0)
    weight = 1.0 - more_s - more_e
    parts = (more_s * ms_s) ** 2 / df_s + (more_e * ms_e) ** 2 / df_e
    parts = parts + (weight * ms_r) ** 2 / (df_s * df_e)
    df = np.where(parts > 0, total**2 / parts, df_e)
    if count > 2:
        return total / (count * n), df
    # One degree of freedom: a seed variance that looks small may be large, and simulation shows too little
    # coverage. So the seeds' own interval counts where it is the wider one.
    alone = stats.t.ppf(0.975, 1) * np.sqrt(ms_s) > stats.t.ppf(0.975, df) * np.sqrt(total)
    return np.where(alone, ms_s, total) / (count * n), np.where(alone, 1.0, df)


@frozen
class Weights:
    """How often each resample draws each seed [resamples, seeds] and each example [resamples, examples]."""

    seeds: Floats
    examples: Floats

    def mean(self, values: Floats) -> Floats:
        """Return the resamples' means of values [seeds, examples, *rest]: [resamples, *rest]."""
        there = np.isfinite(values).all(axis=0)
        count, examples, *rest = values.shape
        x = np.where(there, values, 0.0).transpose(1, 0, *range(2, values.ndim))
        sums = (self.examples @ x.reshape(examples, -1)).reshape(-1, count, *rest)
        total = np.einsum("bs,bs...->b...", self.seeds, sums)
        n = (self.examples @ there.reshape(examples, -1).astype(float)).reshape(-1, *rest)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(total / (count * n))


def pigeonhole(seeds: int, examples: int, resamples: int = RESAMPLES, seed: int = 0) -> Weights:
    """Draw seeds and examples with replacement, independently of each other; a single seed is kept."""
    rng = np.random.default_rng(seed)
    each = [rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(float) for n in (seeds, examples)]
    return Weights(*each)


def mean_interval(
    values: Floats, resamples: int = RESAMPLES, seed: int = 0, confidence: float = CONFIDENCE
) -> tuple[TwoWay, Floats, Floats]:
    """Return the mean of values [seeds, examples, *rest] and its interval, low and high [*rest].

    Bootstrap percentiles of few units are too narrow (Hesterberg, 2015, The American Statistician 69), and
    the pigeonhole bootstrap counts the variance of the rest up to three times (Owen, 2007). So their
    distances from the mean are scaled to the standard error and the t quantile of `two_way`.
    """
    found = two_way(values)
    weights = pigeonhole(values.shape[0], values.shape[1], resamples, seed)
    deviations = weights.mean(values) - found.mean
    upper = (1 + confidence) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.sqrt(found.variance) / deviations.std(axis=0)
    scale *= stats.t.ppf(upper, found.df) / stats.norm.ppf(upper)
    scale = np.where(found.variance == 0, 1.0, scale)  # nothing varies, so nothing is to be scaled
    low, high = np.quantile(deviations, [1 - upper, upper], axis=0)
    return found, found.mean + scale * low, found.mean + scale * high


def share_interval(found: TwoWay, confidence: float = CONFIDENCE) -> tuple[Floats, Floats]:
    """Return the interval of a share (a mean of 0 and 1), which stays within 0 and 1.

    Wilson's (1927) with the t quantile and the number of independent examples that would have the same
    variance (Korn & Graubard, 1998, Survey Methodology 24); all examples where the share is 0 or 1.
    """
    p = found.mean
    with np.errstate(divide="ignore", invalid="ignore"):
        n = np.where(found.variance > 0, p * (1 - p) / found.variance, found.examples)
    df = np.where(found.variance > 0, found.df, np.maximum(found.examples - 1, 1))
    t2 = stats.t.ppf((1 + confidence) / 2, df) ** 2
    centre = (p + t2 / (2 * n)) / (1 + t2 / n)
    half = np.sqrt(t2) / (1 + t2 / n) * np.sqrt(p * (1 - p) / n + t2 / (4 * n**2))
    return centre - half, centre + half


def ratio_interval(part: Floats, whole: Floats, confidence: float = CONFIDENCE) -> tuple[Floats, Floats]:
    """Return the interval of mean(part) / mean(whole), of values [seeds, examples, *rest]: low, high [*rest].

    Fieller's (1954, Journal of the Royal Statistical Society B 16): the ratios r for which a t test of
    part − r · whole does not reject a mean of 0. The test is that of `two_way`, so seeds and examples count
    as in a mean, and the interval covers as often as that test keeps its rate, however unclear the whole. It
    goes from the lowest to the highest such r, should there be gaps, and from −inf to inf where a mean of 0
    of the whole is not rejected, for then no r is too large. An example that is NaN in either is left out.
    """
    there = np.isfinite(part) & np.isfinite(whole)
    parts, wholes = (_Deviations.of(np.where(there, values, np.nan)) for values in (part, whole))
    squares, products, of_whole = parts.products(parts), parts.products(wholes), wholes.products(wholes)
    count, n = len(there), parts.examples

    def remainder(ratio: Floats) -> TwoWay:
        """Estimate part − ratio · whole for ratios [place, *rest]."""
        own = squares[:, None] - 2 * ratio * products[:, None] + ratio**2 * of_whole[:, None]
        return _estimate(parts.mean - ratio * wholes.mean, np.maximum(own, 0), count, n)

    open_ = _estimate(wholes.mean, of_whole, count, n).t_test() >= 1 - confidence
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = parts.mean / wholes.mean
        error = np.sqrt(remainder(ratio[None]).variance[0]) / np.abs(wholes.mean)  # were the whole known

        def at(angle: Floats) -> Floats:
            """Return the ratio at an angle; all ratios lie within a right angle of the estimate, at 0."""
            return np.asarray(ratio + error * np.tan(angle))

        low, high = at(_ends(lambda angle: remainder(at(angle)).t_test() >= 1 - confidence, ratio.ndim))
    return np.where(open_, -np.inf, low), np.where(open_, np.inf, high)


def _ends(accepts: Callable[[Floats], NDArray[np.bool_]], ndim: int) -> Floats:
    """Return the lowest and the highest angle [2, *rest] that is accepted: 0 is, a right angle is not."""
    grid = np.radians(np.arange(-89.0, 90.0)).reshape(-1, *[1] * ndim)
    accepted = accepts(grid) | (grid == 0)
    inside = np.stack(
        [np.where(accepted, grid, np.inf).min(axis=0), np.where(accepted, grid, -np.inf).max(axis=0)]
    )
    outside = inside + np.radians([-1.0, 1.0]).reshape(-1, *[1] * ndim)
    for _ in range(HALVINGS):
        middle = (inside + outside) / 2
        within = accepts(middle)
        inside, outside = np.where(within, middle, inside), np.where(within, outside, middle)
    return inside


def d_z(differences: Floats) -> Floats:
    """Return Cohen's (1988) d_z of paired differences [unit, *rest]: their mean in standard deviations."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.nanmean(differences, axis=0) / np.nanstd(differences, axis=0, ddof=1))
