"""One inference for all means: estimate, interval and p value over crossed seeds and groups of examples.

Interval and p value are each other's inverse: an interval leaves out 0 just where p < 1 − confidence.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from attrs import evolve, frozen
from numpy.typing import NDArray

from store.analysis.components import Components, Floats, Integers, stacked
from store.analysis.monitoring import FIXED, Monitoring
from store.analysis.multiplicity import Correction, adjust, divisors
from store.analysis.proportions import Floor, Score
from store.analysis.skewness import reach, skewness, straight
from store.analysis.widths import Moderated, Widths, moderated, plain_widths

CONFIDENCE = 0.95
Range = tuple[float, float]
ANY = (-np.inf, np.inf)


@frozen
class Inference:
    """Means and how sure they are; arrays of the shape of the outcomes."""

    mean: Floats
    low: Floats
    high: Floats
    """Pointwise bounds, of each outcome alone. NaN where a difference other than 0 is the same everywhere."""
    p: Floats
    """Pointwise, two-sided, of a mean of 0; NaN where there is no interval."""
    p_family: Floats
    """What a correction across the family starts from: variances between seeds are shared within it."""
    p_adjusted: Floats
    simultaneous_low: Floats
    simultaneous_high: Floats
    """Bounds that leave out 0 just where p_adjusted < 1 − confidence."""
    seeds: Integers
    examples: Integers
    groups: Integers
    missing: Integers


@frozen
class Estimate:
    """Means of some outcomes, with the intervals and p values that they have alone and in a family."""

    components: Components
    plain: Widths
    shared: Moderated | None
    """None where no variances are shared."""
    used: NDArray[np.bool_]
    """Whether an outcome takes part in the sharing."""
    limited: Score | Floor | None
    """What holds for shares and other values between −1 and 1."""
    within: Range
    monitoring: Monitoring
    skewness: Floats
    """Of the mean, as far as it is sure."""

    @classmethod
    def of(
        cls,
        components: Components,
        axis: int | None = None,
        *,
        share: bool = False,
        bounded: bool = False,
        within: Range = ANY,
        monitoring: Monitoring = FIXED,
    ) -> "Estimate":
        """Estimate from components, whose variances between seeds are shared along one axis.

        share: values are differences of 0/1 outcomes. bounded: they are others between −1 and 1. within: the
        range that bounds cannot leave. monitoring: when results are looked at, over which p values and bounds
        hold.
        """
        components = components.within(within)
        plain = plain_widths(components.variances, components.seeds, components.df_examples)
        kept = evolve(components, sketch=components.sketch[:0])  # large, and for `moderated` alone
        limited = Score(kept, plain) if share else Floor(kept) if bounded else None
        shared, used = (
            (None, np.zeros(components.mean.shape, bool)) if axis is None else moderated(components, axis)
        )
        skewed = skewness(components, np.sqrt(plain.variances[0]))
        return cls(kept, plain, shared, used, limited, within, monitoring, skewed)

    @classmethod
    def stack(cls, parts: Sequence["Estimate"]) -> "Estimate":
        """Join estimates that were made alike, of outcomes of one shape, along a new first axis of them."""
        first, outcomes = parts[0], parts[0].components.mean.ndim

        def joined(kind: type[Any], of: Sequence[Any]) -> Any:
            return kind(*(stacked(of, name, outcomes) for name in kind.__annotations__))

        components = Components.stack([part.components for part in parts])
        plain = joined(Widths, [part.plain for part in parts])
        shared = None if first.shared is None else joined(Moderated, [part.shared for part in parts])
        limited: Score | Floor | None = None
        if first.limited is not None:
            limited = Score(components, plain) if isinstance(first.limited, Score) else Floor(components)
        used, skewed = stacked(parts, "used", outcomes), stacked(parts, "skewness", outcomes)
        return cls(components, plain, shared, used, limited, first.within, first.monitoring, skewed)

    def p(self, value: float = 0.0) -> Floats:
        """Return p values of a mean of `value`, of each outcome alone; NaN where there is no interval."""
        return self._tested(self.plain.p, value)

    def p_family(self, value: float = 0.0) -> Floats:
        """Return what a correction across a family starts from: variances between seeds are shared."""
        return self._tested(self._shared_p, value)

    def bounds(self, alpha: float) -> Floats:
        """Return low and high [2, *outcomes] with confidence 1 − alpha, of each outcome alone."""
        level = self.monitoring.level(alpha, self.components.seeds)
        return self._bounds(self.plain.half(level), level)

    def together(self, alpha: float, divided: Floats | None) -> Floats:
        """Return low and high that leave out 0 just where the corrected p value is below alpha.

        divided: what `divisors` gives, None for no correction. They are as wide as what is shared asks for,
        and no narrower than those of the outcome alone.
        """
        if divided is None:
            return self.bounds(alpha)
        away, towards = (np.broadcast_to(side, self.components.mean.shape) for side in divided)
        low, high = self._together(alpha, away)
        if np.array_equal(away, towards):
            return np.stack([low, high])
        own_low, own_high = self._together(alpha, towards)
        above, below = (own_low > 0) & (low <= 0), (own_high < 0) & (high >= 0)
        return np.stack([np.where(above, own_low, low), np.where(below, own_high, high)])

    def _together(self, alpha: float, divided: Floats) -> Floats:
        alone = self.monitoring.level(alpha, self.components.seeds)
        level = self.monitoring.level(alpha / divided, self.components.seeds)
        half = self.plain.half(level)
        if self.shared is not None:
            half = np.where(self.used, np.fmax(self.plain.half(alone), self.shared.half(level)), half)
        return self._bounds(half, level)

    def _tested(self, p_of: Callable[[Floats], Floats], value: float) -> Floats:
        if self.limited is not None:
            p = self.limited.p(p_of, value)
        else:
            p = np.where(self.still(), np.nan, p_of(self._distance(value)))
        return self.monitoring.p(p, self.components.seeds)

    def _distance(self, value: float) -> Floats:
        """Return the distance from the mean to a value, as widths are to be held against it; 0 or more."""
        scale = self._scale()
        return np.asarray(scale * straight((self.components.mean - value) / scale, self.skewness))

    def _scale(self) -> Floats:
        deviation = np.sqrt(self.plain.variances[0])
        return np.where(deviation > 0, deviation, 1.0)

    def _shared_p(self, distance: Floats) -> Floats:
        alone = self.plain.p(distance)
        return alone if self.shared is None else np.where(self.used, self.shared.p(distance), alone)

    def _bounds(self, half: Floats, alpha: Floats | float) -> Floats:
        mean = self.components.mean
        if self.limited is not None:
            bounds = self.limited.bounds(half, alpha)
        else:
            scale = self._scale()
            below, above = scale * reach(half / scale, self.skewness)
            bounds = np.where(self.still(), np.nan, np.stack([mean - below, mean + above]))
        return np.asarray(np.clip(bounds, *self.within))

    def still(self) -> NDArray[np.bool_]:
        """Say where nothing varies: that does not say how far it may elsewhere."""
        return np.asarray((self.plain.variances == 0).all(axis=0) & (self.components.mean != 0))


def among(estimates: Sequence[Estimate]) -> list[Estimate]:
    """Return estimates that are shown together, without interval and p value where one has too few seeds.

    Where others have two seeds or more, one with a single seed would look surer than they are: what trainings
    vary by is not known there.
    """
    if max((int(estimate.components.seeds.max(initial=0)) for estimate in estimates), default=0) < 2:
        return list(estimates)
    return [
        evolve(
            estimate,
            plain=evolve(
                estimate.plain, df=np.where(estimate.components.seeds < 2, np.nan, estimate.plain.df)
            ),
        )
        for estimate in estimates
    ]


def infer(
    values: Floats,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    *,
    family: int | None = None,
    confidence: float = CONFIDENCE,
    correction: Correction = "holm",
    share: bool = False,
    within: Range = ANY,
) -> Inference:
    """Infer the mean of values [seeds, examples, *outcomes], NaN for missing ones.

    An example that lacks a value in a seed is left out of that outcome, and so is a seed without a value.
    groups: of each example (default: each its own); they are the units, weighted by their examples. family:
    the axis of the outcomes that are tested together, such as the layers. share: values are differences of
    0/1 outcomes. within: the range that bounds cannot leave.
    """
    options: Any = {"confidence": confidence, "correction": correction, "share": share, "within": within}
    return inferred(Components.of(values, groups), family=family, **options)


def inferred(
    components: Components,
    *,
    family: int | None = None,
    confidence: float = CONFIDENCE,
    correction: Correction = "holm",
    share: bool = False,
    bounded: bool = False,
    within: Range = ANY,
) -> Inference:
    """Infer means from their components; as `infer`.

    p_adjusted is the larger one of the plain p value and of the corrected moderated one: what is shared
    within a family may be wrong for one of its members, and then its own p value stands. Simultaneous bounds
    are as wide as both of these, and leave out 0 just where p_adjusted < 1 − confidence.
    """
    estimate = Estimate.of(components, family, share=share, bounded=bounded, within=within)
    p, p_family = estimate.p(), estimate.p_family()
    divided = None if family is None else divisors(p_family, family, correction, 1 - confidence)
    corrected = p_family if family is None else adjust(p_family, family, correction)
    low, high = estimate.bounds(1 - confidence)
    simultaneous_low, simultaneous_high = estimate.together(1 - confidence, divided)
    return Inference(
        mean=estimate.components.mean,
        low=low,
        high=high,
        p=p,
        p_family=p_family,
        p_adjusted=p if correction == "none" else np.maximum(p, corrected),
        simultaneous_low=simultaneous_low,
        simultaneous_high=simultaneous_high,
        seeds=components.seeds,
        examples=components.examples,
        groups=components.groups,
        missing=components.missing,
    )
