"""Means over crossed seeds and groups of examples, taken apart into what varies.

Every seed's model is measured on the same examples, and examples of one group (a story, a conversation) are
alike, so neither single values nor examples' means are independent draws: seeds and groups are.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from attrs import evolve, frozen
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]
SKETCHED = 256  # groups whose residuals are kept for correlations between layers
DUST = 1e-14  # of the values' mean size: a smaller mean is what rounding leaves of 0
ROUNDING = 1e-10  # of the mean: what varies less does not vary
EPSILON = float(np.finfo(float).eps)


@frozen
class Deviations:
    """Values [seeds, examples, *rest] taken apart: their mean [*rest], and what departs from it."""

    mean: Floats
    size: Floats
    """Mean absolute value [*rest]."""
    seed: Floats
    """[seeds, *rest]; 0 for a seed without a value."""
    example: Floats
    """[groups, *rest], times the groups' weights."""
    rest: Floats
    """[seeds, groups, *rest], times the groups' weights."""
    scale: Floats
    """Of sums of squares of groups, [*rest]: G / (G − 1) for G groups of one size."""
    df_examples: Floats
    seeds: Integers
    """Seeds with a value [*rest]."""
    examples: Integers
    """Examples with a value in each of these seeds [*rest]; the others are left out."""
    groups: Integers
    missing: Integers

    @classmethod
    def of(cls, values: Floats, groups: Sequence[Any] | NDArray[Any] | None = None) -> "Deviations":
        """Take apart values; groups: of each example, by default each its own."""
        finite: NDArray[np.bool_] = np.asarray(np.isfinite(values))
        present = np.asarray(finite.any(axis=1))
        whole = np.asarray((finite | ~present[:, None]).all(axis=0) & present.any(axis=0))
        valid = whole & present[:, None]
        x = np.where(valid, values, 0.0)
        size = np.abs(x).sum(axis=(0, 1))
        seeds, examples = present.sum(axis=0), whole.sum(axis=0)
        x, n = _grouped(x, whole, groups)
        with np.errstate(divide="ignore", invalid="ignore"):
            weight = n / examples
            x = np.where(n > 0, x / n, 0.0)
            q = (weight**2).sum(axis=0)
            scale = q / (weight**2 * (1 - 2 * weight + q)).sum(axis=0)
            group_means = np.where(present, np.einsum("g...,sg...->s...", weight, x), 0.0)
            mean = group_means.sum(axis=0) / seeds
            seed = np.where(present, group_means - mean, 0.0)
            example = np.where(n > 0, x.sum(axis=0) / seeds - mean, 0.0)
            rest = np.where((n > 0) & present[:, None], x - mean - example - seed[:, None], 0.0)
            df = np.where(examples > 0, 1 / q - 1, np.nan)
            size = size / (seeds * examples)
            mean = np.where(np.abs(mean) < DUST * size, 0.0, mean)
        few = df < 1e-9
        return cls(
            np.where(examples > 0, mean, np.nan),
            size,
            seed,
            example * weight,
            rest * weight,
            np.where(few, np.nan, scale),
            np.where(few, np.nan, df),
            seeds,
            examples,
            (n > 0).sum(axis=0),
            values.shape[1] - examples,
        )

    def products(self, other: "Deviations") -> Floats:
        """Return covariances of the two means [3, *rest] by seeds, by examples and by the rest alone.

        Of the same values twice they are variances. With one seed the first and last are NaN.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            runs = np.where(self.seeds > 1, self.seeds * (self.seeds - 1.0), np.nan)
            seed = (self.seed * other.seed).sum(axis=0) / runs
            example = self.scale * (self.example * other.example).sum(axis=0)
            rest = self.scale * (self.rest * other.rest).sum(axis=(0, 1)) / runs
        return np.stack([seed, example, rest])


def excess(square: Floats, expected: Floats, size: Floats, terms: int) -> Floats:
    """Return a variance component: a mean square less what is expected of it without the component.

    The estimate's bound, 0, holds where their ratio is 1 or less, ties included: two sums that are equal may
    differ by what rounding leaves of each. size: the values' mean size; terms: how many are summed.
    """
    total = square + expected
    rounding = EPSILON * terms * (total + 2 * size * np.sqrt(total)) + (EPSILON * terms * size) ** 2
    return np.asarray(np.where(square - expected > rounding, square - expected, 0.0))


def _grouped(x: Floats, whole: NDArray[np.bool_], groups: Any) -> tuple[Floats, Floats]:
    """Return sums [seeds, groups, *rest] over each group's examples, and how many [groups, *rest]."""
    if groups is None:
        return x, whole.astype(float)
    number = np.unique(np.asarray(groups), return_inverse=True)[1]
    member = (np.arange(number.max() + 1)[:, None] == number).astype(float)
    return np.einsum("ge,se...->sg...", member, x, optimize=True), np.tensordot(member, whole, 1)


@frozen
class Components:
    """What an inference needs of values [seeds, examples, *rest]; arrays [*rest] unless told."""

    mean: Floats
    size: Floats
    seed: Floats
    """Deviations of the seeds' means [seeds, *rest], 0 for a seed without a value."""
    variances: Floats
    """Of the mean, by seeds, examples and the rest alone [3, *rest]."""
    third: Floats
    """Third cumulant of the mean, by examples."""
    df_examples: Floats
    seeds: Integers
    examples: Integers
    groups: Integers
    missing: Integers
    sketch: Floats
    """Residuals of some groups [residual, *rest], for correlations between outcomes."""

    @classmethod
    def of(cls, values: Floats, groups: Sequence[Any] | NDArray[Any] | None = None) -> "Components":
        """Estimate the components of values [seeds, examples, *rest], NaN for missing.

        An example that lacks a value in a seed that has others is left out of that outcome. groups: of each
        example, by default each its own.
        """
        spread = Deviations.of(values, groups)
        chosen = np.unique(np.linspace(0, spread.rest.shape[1] - 1, SKETCHED).astype(int))
        sketch = spread.rest[:, chosen].reshape(-1, *spread.mean.shape)
        variances = spread.products(spread)
        variances = np.where(variances < (ROUNDING * spread.mean) ** 2, 0.0, variances)
        third = spread.scale**2 * (spread.example**3).sum(axis=0)
        return cls(
            spread.mean, spread.size, spread.seed, variances, third, spread.df_examples, spread.seeds,
            spread.examples, spread.groups, spread.missing, sketch,
        )  # fmt: skip

    @classmethod
    def join(cls, parts: Sequence["Components"], axis: int) -> "Components":
        """Join components of blocks of outcomes along one of their axes."""
        if len(parts) == 1:
            return parts[0]
        joined = {}
        for name in cls.__annotations__:
            arrays = [getattr(part, name) for part in parts]
            lead = arrays[0].ndim - parts[0].mean.ndim
            joined[name] = np.concatenate(arrays, axis=axis + lead)
        return cls(**joined)

    @classmethod
    def stack(cls, parts: Sequence["Components"]) -> "Components":
        """Join components of outcomes of one shape along a new first axis of them, without sketches."""
        number = max(len(part.seed) for part in parts)
        padded = [evolve(part, seed=_padded(part.seed, number), sketch=part.sketch[:0]) for part in parts]
        return cls(*(stacked(padded, name, parts[0].mean.ndim) for name in cls.__annotations__))

    def within(self, ends: tuple[float, float]) -> "Components":
        """Return it with means in the range of what is measured, which a rounded sum may leave."""
        return evolve(self, mean=np.clip(self.mean, *ends))

    def minus(self, other: "Components") -> "Components":
        """Return the difference of means over the same seeds on two sets of examples."""
        runs = np.where(self.seeds > 1, self.seeds * (self.seeds - 1.0), np.nan)
        seed = self.seed - other.seed
        e, f = self.variances[1], other.variances[1]
        with np.errstate(divide="ignore", invalid="ignore"):
            df = (e + f) ** 2 / (e**2 / self.df_examples + f**2 / other.df_examples)
            by_seed = (seed**2).sum(axis=0) / runs
        return evolve(
            self,
            mean=self.mean - other.mean,
            seed=seed,
            variances=np.stack([by_seed, e + f, self.variances[2] + other.variances[2]]),
            third=self.third - other.third,
            df_examples=np.where(e + f > 0, df, np.minimum(self.df_examples, other.df_examples)),
            examples=self.examples + other.examples,
            groups=self.groups + other.groups,
            missing=self.missing + other.missing,
            sketch=np.concatenate([self.sketch, other.sketch]),
        )


def stacked(parts: Sequence[Any], name: str, outcomes: int) -> Any:
    """Return an attribute of all parts along a new first axis of its outcomes, which are its last axes."""
    arrays = [np.asarray(getattr(part, name)) for part in parts]
    return np.stack(arrays, axis=arrays[0].ndim - outcomes)


def _padded(seed: Floats, number: int) -> Floats:
    return np.concatenate([seed, np.zeros((number - len(seed), *seed.shape[1:]))])
