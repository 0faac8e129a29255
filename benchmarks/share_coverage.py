"""How often do intervals of a share of a difference hold the true share, with few seeds?

Simulated: whole and part of a difference with crossed effects of seeds and of 48 examples, those of seeds the
larger ones in the mean; the true share is 0.4. Beside Fieller's interval stands the percentile bootstrap.
"""

import argparse

import numpy as np
from attrs import frozen

from store.analysis.components import Floats
from store.analysis.ratios import ratio_interval

EXAMPLES, SHARE = 48, 0.4
SEEDS, CLEAR = (2, 3, 5, 10), (1, 3, 6, 12, 24)
RESAMPLES = 400


def draw(rng: np.random.Generator, seeds: int, clear: float, simulations: int) -> tuple[Floats, Floats]:
    """Draw part and whole [seed, example, simulation]; the whole's mean is `clear` standard errors."""

    def effects() -> Floats:
        return np.asarray(
            0.5 * rng.normal(size=(seeds, 1, simulations))
            + rng.normal(size=(1, EXAMPLES, simulations))
            + rng.normal(size=(seeds, EXAMPLES, simulations))
        )

    whole, own = effects(), effects()
    mean = clear * np.sqrt(0.25 / seeds + 1 / EXAMPLES + 1 / (seeds * EXAMPLES))
    return SHARE * (mean + 0.5 * whole) + 0.4 * own, mean + whole


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


def pigeonhole(seeds: int, examples: int, resamples: int, seed: int = 0) -> Weights:
    """Draw seeds and examples with replacement, independently of each other; a single seed is kept."""
    rng = np.random.default_rng(seed)
    each = [rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(float) for n in (seeds, examples)]
    return Weights(*each)


def percentiles(part: Floats, whole: Floats) -> tuple[Floats, Floats]:
    """Return the percentile interval of the ratio by the pigeonhole bootstrap."""
    weights = pigeonhole(*part.shape[:2], RESAMPLES)
    low, high = np.quantile(weights.mean(part) / weights.mean(whole), [0.025, 0.975], axis=0)
    return low, high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=4000)
    simulations = parser.parse_args().simulations
    print(f"{'seeds':>5}{'clear':>7}{'bounded':>9}{'percentiles':>13}{'Fieller':>9}{'of bounded':>12}")
    for seeds in SEEDS:
        for clear in CLEAR:
            part, whole = draw(np.random.default_rng(0), seeds, clear, simulations)
            low, high = ratio_interval(part, whole)
            bounded = np.isfinite(low)
            held = (low <= SHARE) & (high >= SHARE)
            low, high = percentiles(part[..., bounded], whole[..., bounded])
            before = (low <= SHARE) & (high >= SHARE)  # of what was shown: differences surely not 0
            print(
                f"{seeds:>5}{clear:>7}{bounded.mean():>9.1%}{before.mean():>13.1%}{held.mean():>9.1%}"
                f"{held[bounded].mean():>12.1%}"
            )


if __name__ == "__main__":
    main()
