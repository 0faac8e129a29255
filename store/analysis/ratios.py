"""Intervals of a ratio of two means over crossed seeds and examples."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.analysis.components import Deviations, Floats
from store.analysis.inference import CONFIDENCE
from store.analysis.widths import plain_widths

HALVINGS = 40  # of a degree, down to rounding


def ratio_interval(
    part: Floats, whole: Floats, groups: NDArray[Any] | None = None, *, confidence: float = CONFIDENCE
) -> tuple[Floats, Floats]:
    """Return the interval of mean(part) / mean(whole), of values [seeds, examples, *rest]: low, high [*rest].

    Fieller's (1954, Journal of the Royal Statistical Society B 16): the ratios r for which the test of
    part − r · whole does not reject a mean of 0. The test is that of the t intervals of `infer`, without its
    correction for skewness, so seeds and groups of examples count as in a mean, and the interval covers as
    often as that test keeps its rate, however unclear the whole. It goes from the lowest to the highest such
    r, should there be gaps, and from −inf to inf where a mean of 0 of the whole is not rejected, for then no
    r is too large. An example that is NaN in either is
    left out.
    """
    valid = np.isfinite(part) & np.isfinite(whole)
    parts, wholes = (Deviations.of(np.where(valid, values, np.nan), groups) for values in (part, whole))
    squares, products, of_whole = parts.products(parts), parts.products(wholes), wholes.products(wholes)

    def accepted(mean: Floats, variances: Floats) -> NDArray[np.bool_]:
        widths = plain_widths(variances, parts.seeds, parts.df_examples)
        return np.asarray(widths.p(mean) >= 1 - confidence)

    def accepts(ratio: Floats) -> NDArray[np.bool_]:
        """Whether a mean of 0 of part − ratio · whole is accepted, for ratios [place, *rest]."""
        squared = squares[:, None] - 2 * ratio * products[:, None] + ratio**2 * of_whole[:, None]
        return accepted(parts.mean - ratio * wholes.mean, np.maximum(squared, 0))

    open_ = accepted(wholes.mean, of_whole)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = parts.mean / wholes.mean
        known = np.maximum(squares - 2 * ratio * products + ratio**2 * of_whole, 0)
        widest = plain_widths(known, parts.seeds, parts.df_examples).variances.max(axis=0)
        error = np.sqrt(widest) / np.abs(wholes.mean)  # were the whole known

        def at(angle: Floats) -> Floats:
            """Return the ratio at an angle; all ratios lie within a right angle of the estimate, at 0."""
            return np.asarray(ratio + error * np.tan(angle))

        low, high = at(_ends(lambda angle: accepts(at(angle)), ratio.ndim))
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
