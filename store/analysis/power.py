"""Which true difference would the inference find, and how often: power from variances, before there is data.

The inference of a paired difference reads three mean squares: between seeds, between (groups of) examples,
and the rest. Of balanced normal values they are independent multiples of chi-squares, and so is the mean
independent of them; so power is an average over these three alone. That average is taken over points that
fill the cube evenly (Roberts's extension of the golden ratio, 2018), and over the mean in closed form. What a
correction over layers reads is drawn with a fixed seed. docs/power.md holds predicted beside simulated power.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np
from attrs import evolve, frozen
from scipy import special

from specs.common.thresholds import POWER
from store.analysis.components import Components, Floats
from store.analysis.monitoring import Monitoring
from store.analysis.proportions import Score
from store.analysis.widths import FEWEST, Widths, moderated, plain_widths

ALPHA = 0.05
POINTS = 2048
STUDIES = 60  # drawn with all their layers
ROWS = 96  # residuals of a drawn study, by which it sees how alike layers are
HALVINGS = 40


@frozen
class Variation:
    """Standard deviations of a paired difference of one seed's two models, in the outcome's units."""

    seed: float
    """Between seeds, of the mean over all examples."""
    example: float
    """Between examples, of the mean over all seeds."""
    rest: float
    """Of a single example with a single seed, beyond these two."""
    within_group: float = 0.0
    """Correlation of two examples of one group."""
    between_layers: float = 0.0
    """Correlation of neighbouring layers."""
    discordant: float | None = None
    """Of 0/1 outcomes: share of examples in which the two models differ."""


@frozen
class Design:
    """What is measured of one contrast, in one test set."""

    seeds: int
    examples: int
    groups: float | None = None
    """Groups of equal size that say as much: 1 / Σ (share of examples)²; None: each example is its own."""
    pairs: int = 1
    """Pairs of conditions that are averaged within a seed."""
    layers: int = 1
    """Outcomes among which the variance between seeds is shared."""
    tests: int = 1
    """Tests that are corrected together."""
    looks: tuple[int, ...] | Literal["anytime"] | None = None
    """When results are looked at while seeds are added, as `change` takes it."""

    def level(self, alpha: float) -> float:
        """Return the level of the look with all seeds, for an error rate over all looks; 0 for none.

        A number of seeds that is no declared look is taken for the last one, in place of the later ones.
        """
        if self.looks is None:
            return alpha
        if self.seeds < 2:
            return 0.0
        looks = self.looks
        if looks != "anytime" and self.seeds not in looks:
            looks = (*(look for look in looks if look < self.seeds), self.seeds)
        return float(Monitoring.of(looks).level(alpha, np.array([self.seeds]))[0])

    @property
    def units(self) -> float:
        """Give the number of groups."""
        return float(self.examples) if self.groups is None else min(self.groups, self.examples)

    @property
    def df(self) -> float:
        """Give the degrees of freedom between groups."""
        return self.units - 1


@frozen
class Power:
    """How often a difference is found: half-widths of equally likely studies, and the mean's spread."""

    half: Floats
    spread: float
    discordant: float | None = None
    """Of 0/1 outcomes, without a difference; they vary more with one."""

    def of(self, difference: float) -> float:
        """Return how often a true difference is found."""
        size = 1.0 if self.discordant is None else _growth(self.discordant, difference)
        with np.errstate(divide="ignore", invalid="ignore"):
            beyond = (
                special.ndtr((shift / size - self.half) / self.spread) for shift in (difference, -difference)
            )
            return float(np.mean(sum(beyond)))

    def detectable(self, power: float = POWER) -> float:
        """Return the difference that is found so often; infinite where none is."""
        high = self.spread + float(np.max(self.half, initial=0.0))
        for _ in range(HALVINGS):
            if self.of(high) >= power:
                smallest = _smallest(lambda difference: self.of(difference) >= power, high)
                return smallest if self.discordant is None or smallest <= 1 else float("inf")
            high *= 2
        return float("inf")


def _growth(discordant: float, difference: float) -> float:
    """Return by how much standard deviations of 0/1 outcomes grow with a difference.

    As of two models that err independently of each other, one of them less sure than the other: of shares p
    and p' of right answers p (1 − p') + p' (1 − p) are discordant. Towards 0 or 1 they would shrink, which is
    left out.
    """
    more = discordant + np.sqrt(max(1 - 2 * discordant, 0.0)) * abs(difference) - difference**2
    return float(np.sqrt(max(more / discordant, 1.0)))


def variances(design: Design, variation: Variation) -> tuple[float, float, float]:
    """Return what seeds, examples and the rest contribute to the variance of one seed's mean difference."""
    examples, pairs = design.examples, design.pairs
    effect = 1 + max(examples / design.units - 1, 0) * variation.within_group
    rest = variation.rest**2 * effect / examples / pairs
    return variation.seed**2 / pairs, variation.example**2 * effect / examples, rest


@lru_cache(maxsize=1024)
def pointwise(design: Design, variation: Variation, alpha: float = ALPHA) -> Power:
    """Return the power of one outcome, or of one layer that was named before."""
    alpha = design.level(alpha)
    if not (design.seeds > 0 and design.df > 0 and alpha > 0):
        return Power(np.array([np.inf]), 1.0)
    chi = [_chi_squares(axis, df) for axis, df in enumerate(_dfs(design))]
    return _power(design, variation, np.stack(chi), alpha)


def _dfs(design: Design) -> tuple[float, float, float]:
    """Return the degrees of freedom of the mean squares by seeds, examples and the rest."""
    k = max(design.seeds - 1, 1)
    return k, design.df, k * design.df


def _power(design: Design, variation: Variation, chi: Floats, alpha: float) -> Power:
    studies = _studies(design, variation, chi)
    plain = plain_widths(studies.variances, studies.seeds, studies.df_examples)
    half = plain.half(alpha)
    if variation.discordant is not None:
        half = np.maximum(half, _score(studies, plain, half, variation.discordant))
    return Power(half, _spread(design, variation), variation.discordant)


def _spread(design: Design, variation: Variation) -> float:
    seed, example, rest = variances(design, variation)
    if design.seeds == 1:  # a difference of these two models, whatever others would give
        seed = 0.0
    return float(np.sqrt((seed + rest) / design.seeds + example))


def _studies(design: Design, variation: Variation, chi: Floats) -> Components:
    """Return what the inference reads of studies; chi: mean squares over the expected ones [3, *rest]."""
    seed, example, rest = variances(design, variation)
    shape = chi.shape[1:]
    n = design.seeds
    expected = np.array([(seed + rest) / n, example + rest / n, rest / n])
    studies = chi * expected.reshape(3, *[1] * len(shape))
    if n == 1:
        studies[::2] = np.nan
    whole = np.zeros(shape, np.intp)
    return Components(
        mean=np.zeros(shape), size=np.zeros(shape), seed=np.zeros((n, *shape)), variances=studies,
        third=np.zeros(shape), df_examples=np.full(shape, design.df), seeds=whole + n,
        examples=whole + design.examples, groups=whole + round(design.units), missing=whole,
        sketch=np.zeros((0, *shape)),
    )  # fmt: skip


def _score(components: Components, plain: Widths, half: Floats, discordant: float) -> Floats:
    """Return from which difference on the interval of shares leaves out 0; Score says which that is."""
    low, high = np.zeros(components.mean.shape), np.ones(components.mean.shape)
    for _ in range(HALVINGS // 2):
        middle = (low + high) / 2
        moved = evolve(components, mean=middle, size=np.maximum(middle, discordant))
        beyond = Score(moved, plain).distance() > half
        low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
    return high


@lru_cache(maxsize=256)
def corrected(design: Design, variation: Variation, alpha: float = ALPHA) -> Power:
    """Return the power of one test among `design.tests`, after Holm's correction, where only one differs."""
    if design.seeds < 2 or design.layers < FEWEST or not design.df > 0:
        return pointwise(design, variation, alpha / design.tests)
    level, alpha = design.level(alpha / design.tests), design.level(alpha)
    rng = np.random.default_rng(0)
    layers, n = design.layers, design.seeds
    draw = rng.standard_normal
    shape = (layers, STUDIES)
    seeds = _alike(draw((n, *shape)), variation.between_layers)
    seeds -= seeds.mean(axis=0)
    rows = max(2, min(ROWS, round((n - 1) * design.df)))
    sketch = _alike(draw((rows, *shape)), variation.between_layers)
    k, df, both = _dfs(design)
    chi = np.stack(
        [
            (seeds**2).sum(axis=0) / k,
            *(2 * rng.standard_gamma(freedom / 2, shape) / freedom for freedom in (df, both)),
        ]
    )
    studies = _studies(design, variation, chi)
    scale = np.sqrt(sum(variances(design, variation)[::2]))
    studies = evolve(studies, seed=seeds * scale, sketch=sketch)
    plain = plain_widths(studies.variances, studies.seeds, studies.df_examples)
    shared, used = moderated(studies, 0)
    half = np.where(used, np.fmax(plain.half(alpha), shared.half(level)), plain.half(level))
    return Power(half, _spread(design, variation))


def _alike(values: Floats, correlation: float) -> Floats:
    """Return standard normal values [_, layer, study] whose neighbouring layers are correlated, in place."""
    own_part = np.sqrt(1 - correlation**2)
    for layer in range(1, values.shape[1]):
        values[:, layer] = correlation * values[:, layer - 1] + own_part * values[:, layer]
    return values


def _chi_squares(axis: int, df: float) -> Floats:
    """Return values of a chi-square over its degrees of freedom, at evenly filling points of one axis."""
    root = 1.2207440846057596  # of x⁴ = x + 1
    places = (0.5 + np.arange(1, POINTS + 1) / root ** (axis + 1)) % 1
    return np.asarray(2 * special.gammaincinv(df / 2, places) / df)


def _smallest(holds: Callable[[float], bool], high: float) -> float:
    """Return the smallest number for which something holds, that holds for `high` and all above."""
    low = 0.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
