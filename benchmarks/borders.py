"""How often is a difference of accuracies on the border called smaller (TOST)? For docs/honesty.md.

Simulated are right and wrong answers of two models whose accuracies differ by just the smallest difference of
interest, or not at all: log odds with normal effects of trainings, examples (or their groups) and of both
models' own; shares that are beta variables of examples or of trainings; and errors that are in proportion to
an exponential failing of the training and an exponential hardness of the example.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from attrs import frozen
from numpy.typing import NDArray
from scipy import special

from benchmarks.honesty import SEEDS
from benchmarks.parts import row, table
from store.analysis.components import Components, Floats
from store.analysis.equivalence import one_sided
from store.analysis.inference import Estimate

AT_ONCE = 250  # studies in memory
OWN, TRAINING = 0.7, 0.3  # standard deviations of log odds, in those of examples


@frozen
class Design:
    """What is measured."""

    examples: int
    groups: int = 0

    @property
    def members(self) -> NDArray[np.intp] | None:
        """The group of each example, None where each is its own."""
        return np.arange(self.examples) % self.groups if self.groups else None

    def spread(self, drawn: Floats) -> Floats:
        """Give what is drawn for each group [1, group, study] to its examples."""
        members = self.members
        return drawn if members is None else drawn[:, members]

    @property
    def units(self) -> int:
        """The number of groups."""
        return self.groups or self.examples


DESIGNS = {
    "40 examples": Design(40),
    "200 examples": Design(200),
    "120 in 24 groups": Design(120, 24),
    "300 in 40 groups": Design(300, 40),
}
PAIRS = ((0.55, 0.65), (0.86, 0.94), (0.93, 0.98), (0.955, 0.985), (0.97, 0.99))


def normal(
    rng: np.random.Generator, shares: tuple[float, float], design: Design, seeds: int, n: int
) -> Floats:
    """Draw answers [model, seed, example, study] by log odds."""
    hard = design.spread(rng.normal(size=(1, design.units, n)))
    right = []
    for mean in shares:
        own = OWN * design.spread(rng.normal(size=(1, design.units, n)))
        chance = special.expit(_level(mean) + hard + own + TRAINING * rng.normal(size=(seeds, 1, n)))
        right.append(rng.random((seeds, design.examples, n)) < chance)
    return np.array(right, float)


def beta(rng: np.random.Generator, shares: tuple[float, float], design: Design, seeds: int, n: int) -> Floats:
    """Draw answers by an example's share, alike in both models, or by a training's."""
    place = rng.random((1, design.units, n))
    right = []
    for mean in shares:
        by_example = design.spread(special.betaincinv(6 * mean, 6 * (1 - mean), place))
        by_seed = rng.beta(40 * mean, 40 * (1 - mean), (seeds, 1, n))
        chance = np.where(rng.random((seeds, design.examples, n)) < 0.5, by_example, by_seed)
        right.append(rng.random((seeds, design.examples, n)) < chance)
    return np.array(right, float)


def failing(
    rng: np.random.Generator, shares: tuple[float, float], design: Design, seeds: int, n: int
) -> Floats:
    """Draw answers whose errors are products of exponential variables."""
    hard = design.spread(rng.exponential(size=(1, design.units, n)))
    right = []
    for mean in shares:
        error = (1 - mean) * (0.5 + 0.5 * rng.exponential(size=(seeds, 1, n))) * hard
        right.append(rng.random((seeds, design.examples, n)) >= error)
    return np.array(right, float)


KINDS = {"normal log odds": normal, "beta": beta, "exponential failings": failing}


def verdicts(
    kind: str, shares: tuple[float, float], design: Design, seeds: int, studies: int
) -> tuple[float, float, float]:
    """Return how often a difference on the border is called small, its coverage, TOST's power at none."""
    rng = np.random.default_rng([seeds, design.examples])
    border = _difference(kind, shares)
    found = []
    for start in range(0, studies, AT_ONCE):
        n = min(AT_ONCE, studies - start)
        at, none = (
            Estimate.of(Components.of(own[1] - own[0], design.members), share=True, within=(-1, 1))
            for own in (KINDS[kind](rng, pair, design, seeds, n) for pair in (shares, shares[1:] * 2))
        )
        low, high = at.bounds(0.05)
        small = [one_sided(own, border)["p_equivalence"][0] < 0.05 for own in (at, none)]
        found.append(np.stack([small[0], (low <= border) & (border <= high), small[1]], axis=-1))
    size, covered, power = np.concatenate(found).mean(axis=0)
    return float(size), float(covered), float(power)


def border_table(studies: int) -> Iterator[str]:
    """Yield the verdicts on all kinds of answers."""
    yield "A difference on the border is called smaller, nominal 0.05 (its 95 % interval covers it; none is"
    yield f"called smaller), {studies} studies a cell:"
    yield ""
    yield from table("answers", [f"{seeds} seeds" for seeds in SEEDS])
    for kind in KINDS:
        for shares in PAIRS:
            for name, design in DESIGNS.items():
                cells = [verdicts(kind, shares, design, seeds, studies) for seeds in SEEDS]
                words = f"{kind}, {shares[0]} and {shares[1]}, {name}"
                yield row(words, [f"{a:.3f} ({b:.3f}; {c:.2f})" for a, b, c in cells])


@lru_cache(maxsize=64)
def _level(mean: float) -> float:
    """Return the log odds around which the mean share is this."""
    at, weight = np.polynomial.hermite_e.hermegauss(60)
    spread = np.sqrt(1 + OWN**2 + TRAINING**2) * at
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        below = (weight * special.expit(middle + spread)).sum() / weight.sum() < mean
        low, high = (middle, high) if below else (low, middle)
    return low


@lru_cache(maxsize=64)
def _difference(kind: str, shares: tuple[float, float]) -> float:
    """Return the true difference; errors that would be above 1 are cut off."""
    if KINDS[kind] is not failing:
        return shares[1] - shares[0]
    rng = np.random.default_rng(0)
    product = (0.5 + 0.5 * rng.exponential(size=2_000_000)) * rng.exponential(size=2_000_000)
    first, second = (float(np.minimum((1 - mean) * product, 1).mean()) for mean in shares)
    return first - second
