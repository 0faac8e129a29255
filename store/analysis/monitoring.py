"""Tests and intervals that hold over several looks at results while seeds are added.

Every look spends a share of the error rate (Lan & DeMets, 1983, Biometrika 70): its p values are held against
a level of its own, and the levels are such that any look passes with chance alpha at most. They are exact for
t tests of normal seed means: under the null x₁ + … + xₙ over the root of x₁² + … + xₙ² is a Markov chain, for
it is independent of the latter, and so one integration over a grid follows all looks. Where examples vary,
too, p values of successive looks are more alike, and the levels hold all the more.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from attrs import frozen
from numpy.typing import NDArray
from scipy import special

from store.errors import StoreError

Floats = NDArray[np.float64]
Looks = Literal["anytime"] | Sequence[int] | None
STEP, CELLS = 0.125, 256  # of the grid, in −log p
GRID = np.linspace(-23.0, 0.0, 93)  # log of alpha
POWER = 2.0  # of the share of seeds whose share of alpha is spent (Kim & DeMets, 1987, Biometrika 74)
START = 0.9  # of looks at any time


@frozen
class Monitoring:
    """When results are looked at: once, at some numbers of seeds, or at every number of seeds from 2 on."""

    looks: tuple[int, ...] = ()
    anytime: bool = False

    @classmethod
    def of(cls, looks: Looks) -> "Monitoring":
        """Return it as `change` takes it; StoreError for what is no list of rising numbers from 2 on."""
        if looks is None or looks == "anytime":
            return cls(anytime=looks is not None)
        rising = not isinstance(looks, str) and list(looks) == sorted({int(look) for look in looks})
        if not rising or not looks or min(looks) < 2:
            raise StoreError(
                f'looks: expected "anytime" or rising numbers of seeds from 2 on, found {looks!r}'
            )
        return cls(tuple(int(look) for look in looks))

    @property
    def fixed(self) -> bool:
        """Whether results are looked at once."""
        return not (self.looks or self.anytime)

    def level(self, alpha: Any, seeds: NDArray[np.intp]) -> Floats:
        """Return the level of a look at so many seeds for an error rate over all looks; NaN where none is.

        alpha: a number, or an array of the shape of `seeds`.
        """
        if self.fixed:
            return np.asarray(alpha, float)
        log = np.log(np.broadcast_to(np.asarray(alpha, float), seeds.shape))
        return self._read(log, seeds, inverse=False)

    def p(self, p: Floats, seeds: NDArray[np.intp]) -> Floats:
        """Return the error rate over all looks at which p values just pass: the inverse of `level`."""
        if self.fixed:
            return p
        with np.errstate(divide="ignore"):
            return self._read(np.log(p), seeds, inverse=True)

    def described(self, seeds: NDArray[np.intp]) -> str:
        """Return in words what p values and intervals hold over; "" for a single look."""
        if self.anytime:
            return "; p values and intervals hold at every number of seeds from 2 on together"
        if not self.looks:
            return ""
        every = _listed(self.looks)
        others = sorted({int(number) for number in np.unique(seeds) if number > 0} - set(self.looks))
        words = f"; p values and intervals hold over the looks at {every} seeds together (alpha spending)"
        if others:
            words += f"; with {_listed(others, 'or')} seeds no look is declared, so neither is given"
        return words

    def _read(self, values: Floats, seeds: NDArray[np.intp], *, inverse: bool) -> Floats:
        log_levels = np.full(seeds.shape, np.nan)
        known = [
            int(number)
            for number in np.unique(seeds)
            if number >= 2 and (self.anytime or number in self.looks)
        ]
        if not known:
            return log_levels
        looks = tuple(range(2, max(known) + 1)) if self.anytime else self.looks
        curves = _levels(looks, self.anytime)
        for number in known:
            at_number, curve = seeds == number, curves[looks.index(number)]
            at, of = (curve, GRID) if inverse else (GRID, curve)
            below = np.minimum(values[at_number] - at[0], 0)  # there the levels are in proportion to alpha
            log_levels[at_number] = np.exp(np.interp(values[at_number], at, of) + below)
        return log_levels


FIXED = Monitoring()


@lru_cache(maxsize=16)
def _levels(looks: tuple[int, ...], anytime: bool) -> Floats:
    """Return the log of each look's level [look, alpha] for alpha of `GRID`."""
    spent = np.array([1 - (n - START) ** -0.5 if anytime else (n / looks[-1]) ** POWER for n in looks])
    edges = np.append(np.exp(-STEP * np.arange(CELLS)), 0.0)
    alpha = np.exp(GRID)
    mass = np.broadcast_to(edges[:-1] - edges[1:], (len(alpha), CELLS)).copy()  # p of two seeds is uniform
    log_levels, seeds = np.empty((len(looks), len(alpha))), 2
    for place, (look, share) in enumerate(zip(looks, np.diff(spent, prepend=0.0), strict=True)):
        while seeds < look:
            mass, seeds = mass @ _step(seeds), seeds + 1
        for row, now in enumerate(mass):
            log_levels[place, row] = _spend(now, alpha[row] * share)
    return np.maximum.accumulate(log_levels, axis=1)


def _spend(mass: Floats, chance: float) -> float:
    """Take the smallest p of this chance out of the mass by cell; return the log of the largest of them."""
    tail = np.append(mass[::-1].cumsum()[::-1], 0.0)  # of p up to each edge
    first = int(np.searchsorted(-tail, -chance))  # the first edge with no more than this chance below it
    if first == 0:
        mass[:] = 0
        return 0.0
    inside = (chance - tail[first]) / mass[first - 1]
    mass[first - 1] -= chance - tail[first]
    mass[first:] = 0
    upper, lower = np.exp(-STEP * (first - 1)), np.exp(-STEP * first) if first < CELLS else 0.0
    return float(np.log(lower + inside * (upper - lower)))


@lru_cache(maxsize=256)
def _step(seeds: int) -> Floats:
    """Return the chances [cell, cell] of each p with one more seed, given p with so many."""
    middle = np.exp(-STEP * (np.arange(CELLS) + 0.5))
    u = _ratio(middle, seeds)[:, None]
    c = _ratio(np.exp(-STEP * np.arange(1, CELLS)), seeds + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        # With w the new value over the root of the sum of squares, |u + w| / √(1 + w²) ≥ c between two roots
        # in w where c > 1, else outside of them.
        root, scale = c * np.sqrt(np.maximum(u**2 + 1 - c**2, 0)), np.sqrt(seeds)
        ends = np.stack([(-u - root) / (1 - c**2), (-u + root) / (1 - c**2)])
        low, high = scale * ends.min(axis=0), scale * ends.max(axis=0)
        between = np.where(
            low > 0,
            special.stdtr(seeds, -low) - special.stdtr(seeds, -high),
            special.stdtr(seeds, high) - special.stdtr(seeds, low),
        )
        outside = special.stdtr(seeds, low) + special.stdtr(seeds, -high)
        beyond = np.where(c < 1, outside, np.where(u**2 + 1 > c**2, between, 0.0))
    beyond = np.hstack([np.ones((CELLS, 1)), beyond, np.zeros((CELLS, 1))])
    return np.asarray(np.maximum(beyond[:, :-1] - beyond[:, 1:], 0))


def _ratio(p: Floats, seeds: int) -> Floats:
    """Return the sum over the root of the sum of squares that has this two-sided p with so many seeds."""
    t = -special.stdtrit(seeds - 1, p / 2)
    return np.asarray(t * np.sqrt(seeds / (seeds - 1 + t**2)))


def _listed(numbers: Sequence[int], word: str = "and") -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} {word} {last}" if first else last
