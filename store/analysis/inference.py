"""One inference for all means: estimate, interval and p value over crossed seeds and groups of examples.

Interval and p value are each other's inverse: an interval leaves out 0 just where p < 1 − confidence.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from store.analysis.components import Components, Floats, Integers
from store.analysis.multiplicity import Correction, adjust
from store.analysis.proportions import Floor
from store.analysis.widths import moderated, plain_widths

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
    """Bounds that hold for all outcomes of a family together."""
    seeds: Integers
    examples: Integers
    groups: Integers
    missing: Integers


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
    found: Components,
    *,
    family: int | None = None,
    confidence: float = CONFIDENCE,
    correction: Correction = "holm",
    share: bool = False,
    within: Range = ANY,
) -> Inference:
    """Infer means from their components; as `infer`.

    p_adjusted is the larger one of the plain p value and of the corrected moderated one: what is shared
    within a family may be wrong for one of its members, and then its own p value stands. Simultaneous bounds
    are as wide as both of these (Bonferroni's, so that a difference that just passes Holm's may lie within).
    """
    alpha = 1 - confidence
    plain = plain_widths(found.variances, found.seeds, found.df_examples)
    half, p = plain.half(alpha), plain.p(found.mean)
    p_family, wide, level = p, half, np.full(p.shape, alpha)
    if family is not None:
        level = level / np.maximum(np.isfinite(p).sum(axis=family, keepdims=True), 1)
        shared, used = moderated(found, family)
        wide = np.where(used, np.fmax(half, shared.half(level)), plain.half(level))
        p_family = np.where(used, shared.p(found.mean), p)
    bounds = _around(found, half, alpha, share, within)
    together = _around(found, wide, level, share, within)
    if share:
        p, p_family = (np.maximum(own, Floor.of(found).p()) for own in (p, p_family))
    else:  # that nothing varies here does not say how far it may elsewhere
        still = (plain.variances == 0).all(axis=0) & (found.mean != 0)
        p, p_family = (np.where(still, np.nan, own) for own in (p, p_family))
        bounds, together = (np.where(still, np.nan, own) for own in (bounds, together))
    corrected = p_family if family is None else adjust(p_family, family, correction)
    return Inference(
        mean=found.mean,
        low=bounds[0],
        high=bounds[1],
        p=p,
        p_family=p_family,
        p_adjusted=p if correction == "none" else np.maximum(p, corrected),
        simultaneous_low=together[0],
        simultaneous_high=together[1],
        seeds=found.seeds,
        examples=found.examples,
        groups=found.groups,
        missing=found.missing,
    )


def _around(found: Components, half: Floats, alpha: Floats | float, share: bool, within: Range) -> Floats:
    """Return bounds [2, *outcomes] of a half-width, for a share no narrower than their floor."""
    bounds = np.stack([found.mean - half, found.mean + half])
    if share:
        low, high = Floor.of(found).bounds(alpha)
        bounds = np.stack([np.minimum(bounds[0], low), np.maximum(bounds[1], high)])
    return np.asarray(np.clip(bounds, *within))
