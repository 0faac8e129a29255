"""How far raters agree with one another (Krippendorff's alpha) and with a golden set (MAE, MSE)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Literal

from attrs import frozen


def alpha(units: Sequence[Sequence[Fraction | None]], level: Literal["interval", "ordinal"]) -> float:
    """Krippendorff's alpha of units × raters, None where a rating is missing.

    1 is perfect agreement, 0 what chance gives; NaN where it is not defined: no unit with two ratings, or
    no two different ratings (Krippendorff, Content Analysis, ch. 12).
    """
    import krippendorff
    import numpy as np

    by_rater = np.array([[math.nan if x is None else float(x) for x in unit] for unit in units]).T
    paired = by_rater[:, (~np.isnan(by_rater)).sum(axis=0) >= 2] if by_rater.size else by_rater
    if len(np.unique(paired[~np.isnan(paired)])) < 2:
        return math.nan
    return float(krippendorff.alpha(reliability_data=paired, level_of_measurement=level))


@frozen(order=True)
class Errors:
    """Errors against true ratings, ordered as the best merge is chosen: least MAE, then least MSE."""

    mae: float
    mse: float
    count: int

    @staticmethod
    def of(pairs: Iterable[tuple[Fraction | int, Fraction]]) -> Errors | None:
        """Compare (rating, true rating) pairs; None where there are none."""
        errors = [rating - true for rating, true in pairs]
        if not errors:
            return None
        count = len(errors)
        return Errors(
            float(sum(abs(e) for e in errors) / count), float(sum(e * e for e in errors) / count), count
        )
