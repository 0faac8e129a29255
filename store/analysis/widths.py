"""Half-widths of intervals of a mean over crossed seeds and examples, and the p values that invert them.

Plain ones stand for one outcome alone. Moderated ones share the variance between seeds among the outcomes of
a family, such as the layers, as Smyth (2004, Statistical Applications in Genetics and Molecular Biology 3)
shares variances among genes: with two to five seeds a single layer's tells too little for the far tail that
a correction for many layers reads. docs/honesty.md has the levels and the power that simulation gives.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray
from scipy import special

from store.analysis.components import Components, Floats

HALVINGS = 60
TIE = 1e-9  # relative difference of two variances that are equal but for rounding
FEWEST = 3  # outcomes from which on variances are shared
PRIOR = {2: 5.0}  # degrees of freedom of the shared variance at most, by seeds
MOST_PRIOR = 20.0


def t_quantile(alpha: Any, df: Any) -> Floats:
    """Return the upper two-sided quantile of t: |t| is above it with chance alpha."""
    return np.asarray(-special.stdtrit(df, np.asarray(alpha) / 2))


def t_p(distance: Any, variance: Any, df: Any) -> Floats:
    """Return two-sided p values of a distance from 0; 0 where nothing varies."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(distance == 0, 0.0, np.abs(distance) / np.sqrt(variance))
    return np.asarray(2 * special.stdtr(df, -t))


@frozen
class Widths:
    """The widest of some t intervals: variances and degrees of freedom [interval, *rest]."""

    variances: Floats
    df: Floats

    def half(self, alpha: Any) -> Floats:
        """Return the half-width of the interval with confidence 1 − alpha."""
        return np.asarray((t_quantile(alpha, self.df) * np.sqrt(self.variances)).max(axis=0))

    def p(self, distance: Floats) -> Floats:
        """Return the level at which the interval around `distance` touches 0."""
        return np.asarray(t_p(distance, self.variances, self.df).max(axis=0))


def plain_widths(variances: Floats, seeds: NDArray[np.intp], df_examples: Floats) -> Widths:
    """Return the widest of three intervals: two-way, by seeds alone, by examples alone.

    The two-way variance is that of the mixed model with crossed random effects, components below 0 set to 0,
    with Satterthwaite's (1946) degrees of freedom. Those fail where one component has few; there one of the
    two others is wider. With one seed there is the last alone.
    """
    seed, example, rest = variances
    with np.errstate(divide="ignore", invalid="ignore"):
        k = np.where(seeds > 1, seeds - 1.0, np.nan)
    total, df = crossed_width(rest, k * df_examples, [(seed, k), (example, df_examples)])
    one = seeds < 2
    rows = np.where(one, example, total), np.where(one, example, seed), example
    dfs = np.where(one, df_examples, df), np.where(one, df_examples, k), df_examples
    return Widths(*(np.stack(np.broadcast_arrays(*arrays, total)[:3]) for arrays in (rows, dfs)))


def crossed_width(
    rest: Floats, df_rest: Floats, parts: Sequence[tuple[Floats, Floats]]
) -> tuple[Floats, Floats]:
    """Return variance and degrees of freedom of a mean over crossed random factors.

    parts: of each factor, the mean's variance by it alone (the rest included) and its degrees of freedom.
    The variance is that of the rest and what each factor has in excess of it, the degrees of freedom are
    Satterthwaite's (1946); where nothing varies, those of the last factor. A factor whose variance is that of
    the rest, but for rounding, has nothing in excess: of shares that is common, and degrees of freedom would
    hang on the order in which sums are taken.
    """
    total, weight, spread = rest, np.ones_like(rest), np.zeros_like(rest)
    with np.errstate(divide="ignore", invalid="ignore"):
        for variance, df in parts:
            more = variance > rest * (1 + TIE)
            total = total + np.where(more, variance - rest, 0)
            weight = weight - more
            spread = spread + (more * variance) ** 2 / df
        spread = spread + (weight * rest) ** 2 / df_rest
        return total, np.where(spread > 0, total**2 / spread, parts[-1][1])


@frozen
class Moderated:
    """Intervals whose variance between seeds is shared among a family's outcomes; arrays [*rest]."""

    seed: Floats
    """Shared variance by seeds, the rest included."""
    df_seed: Floats
    more: Floats
    """What examples add to it."""
    example: Floats
    df_examples: Floats
    two: NDArray[np.bool_]
    """Whether there are two seeds: then variances add by their own quantiles (MOVER), for no number of
    degrees of freedom fits their sum."""

    def half(self, alpha: Any) -> Floats:
        """Return the half-width of the interval with confidence 1 − alpha."""
        first, second = t_quantile(alpha, self.df_seed), t_quantile(alpha, self.df_examples)
        apart = np.sqrt(first**2 * self.seed + second**2 * self.more)
        whole = t_quantile(alpha, self._df()) * np.sqrt(self.seed + self.more)
        return np.asarray(np.maximum(np.where(self.two, apart, whole), second * np.sqrt(self.example)))

    def p(self, distance: Floats) -> Floats:
        """Return the level at which the interval around `distance` touches 0."""
        p = t_p(distance, self.seed + self.more, self._df())
        if self.two.any():
            p = np.where(self.two, self._apart(np.abs(distance)), p)
        return np.asarray(np.maximum(p, t_p(distance, self.example, self.df_examples)))

    def _df(self) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = self.seed**2 / self.df_seed + self.more**2 / self.df_examples
            return np.asarray((self.seed + self.more) ** 2 / parts)

    def _apart(self, distance: Floats) -> Floats:
        low, high = np.full(distance.shape, -60.0), np.zeros(distance.shape)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            inside = self.half(np.exp(middle)) < distance
            low, high = np.where(inside, low, middle), np.where(inside, middle, high)
        return np.exp(high)


def moderated(components: Components, family: int) -> tuple[Moderated, NDArray[np.bool_]]:
    """Share the variance between seeds along one axis of the outcomes; and whether an outcome takes part.

    Shared are the outcomes that have the same seeds and vary within them, from three on.
    """
    shape = components.mean.shape
    at = [
        np.moveaxis(array, family + array.ndim - len(shape), -1)
        for array in (components.seed, components.sketch)
    ]
    seed, example, rest = np.moveaxis(components.variances, family + 1, -1)
    seeds = np.moveaxis(components.seeds, family, -1)
    shared, df, used = (np.full(seed.shape, np.nan), np.full(seed.shape, np.nan), np.zeros(seed.shape, bool))
    for place in np.ndindex(*seed.shape[:-1]):
        here = (rest[place] > 0) & (seed[place] > 0) & np.isfinite(example[place])
        for number in np.unique(seeds[place][here]):
            chosen = np.flatnonzero(here & (seeds[place] == number))
            if number < 2 or len(chosen) < FEWEST:
                continue
            deviations, sketch = (array[(slice(None), *place)][:, chosen] for array in at)
            shared_parts = _shared(number, seed[place][chosen], rest[place][chosen], deviations, sketch)
            shared[place][chosen], df[place][chosen], used[place][chosen] = *shared_parts, True
    by_seed, dfs, more = (
        np.moveaxis(array, -1, family) for array in (shared, df, np.maximum(example - rest, 0))
    )
    kept = np.moveaxis(used, -1, family)
    return Moderated(
        by_seed, dfs, more, components.variances[1], components.df_examples, components.seeds == 2
    ), kept


def _shared(
    seeds: int, by_seed: Floats, rest: Floats, deviations: Floats, sketch: Floats
) -> tuple[Floats, float]:
    """Return the shared variance of the mean by seeds [outcome], and its degrees of freedom."""
    k, y = seeds - 1, by_seed / rest
    layers = _independent(deviations / np.sqrt(rest), k, sketch)
    n = len(y)
    spread = np.log(y).var(ddof=1) - special.polygamma(1, k / 2) * (1 - 1 / layers) * n / (n - 1)
    most = PRIOR.get(seeds, MOST_PRIOR)
    prior = min(2 * _inverse_trigamma(spread), most) if spread > 1e-3 else most
    df = 1 / (1 / prior + 1 / max(k * (layers - 1), 1e-9))
    return rest * np.maximum((df * y.mean() + k * y) / (df + k), 1.0), df + k


def _independent(deviations: Floats, k: int, sketch: Floats) -> float:
    """Return how many independent outcomes tell as much about variances as these correlated ones do.

    The least of three numbers: by the correlations of seeds at a distance along the family, by those of the
    residuals, and by how alike the seeds' own profiles are. deviations: [seeds, outcome], standardised.
    """
    n = deviations.shape[1]
    alike = deviations.T @ deviations
    products = np.array([np.trace(alike, lag) for lag in range(n)]) / (n - np.arange(n))
    correlation = np.minimum((products / products[0]) ** 2, 1)
    weight = (2 - (np.arange(n) == 0)) * (n - np.arange(n))
    estimates = [n**2 / (weight * correlation).sum()]
    known = np.corrcoef(sketch.T)
    estimates.append(n**2 / (np.nan_to_num(known) ** 2).sum())
    if k > 1:
        of_trace, of_squares = moments(alike, k)
        estimates.append(of_trace / max(of_squares, 1e-300))
    return float(np.clip(min(estimates), 1, n))


def moments(products: Floats, k: int) -> tuple[float, float]:
    """Return (tr Σ)² and tr Σ² of outcomes with covariance Σ, from the sums of products over centred seeds.

    Unbiased for normal seeds, and the same in whatever order these come. products: [outcome, outcome]; k:
    seeds − 1, from 2 on. Source: Bai & Saranadasa 1996, Statistica Sinica 6.
    """
    squares, total = float((products**2).sum()), float(np.trace(products))
    of_trace = ((k + 1) * total**2 - 2 * squares) / (k * (k - 1) * (k + 2))
    return of_trace, (squares - total**2 / k) / ((k - 1) * (k + 2))


def _inverse_trigamma(y: float) -> float:
    x = 0.5 + 1 / y
    for _ in range(50):  # Newton's method on 1 / trigamma, which is close to straight
        value, slope = special.zeta(2, x), -2 * special.zeta(3, x)
        step = value * (1 - value / y) / slope
        x += step
        if abs(step) < 1e-14 * x:
            break
    return float(x)
