"""From several ratings and explanations to one: scales mapped onto the labels', ratings merged and rounded.

All of it in exact fractions: 2.5 must round the same way whichever thirds it was summed from.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, get_args

from specs.tables.annotate import Annotate, Strategy

Merge = Literal["mean", "median", "majority"]
MERGES: tuple[Merge, ...] = get_args(Merge)


def on_label_scale(rating: int, strategy: Strategy, settings: Annotate) -> Fraction:
    """Map a rating x of a scale a..b onto the labels' low..high: low + (x - a)(high - low)/(b - a)."""
    share = Fraction(rating - strategy.low, strategy.high - strategy.low)
    return settings.low + share * (settings.high - settings.low)


def mean(ratings: Sequence[Fraction]) -> Fraction:
    """Give the arithmetic mean of at least one rating."""
    return sum(ratings, Fraction(0)) / len(ratings)


def merged(ratings: Sequence[Fraction], how: Merge) -> int:
    """Merge ratings on the labels' scale into one label, rounding half up.

    The median of an even number is the mean of the middle two. The majority is the label that most ratings
    round to; of several, the one nearest the mean, and then the lower.
    """
    if how == "mean":
        return rounded(mean(ratings))
    if how == "median":
        ordered = sorted(ratings)
        middle = len(ordered) // 2
        return rounded(ordered[middle] if len(ordered) % 2 else mean(ordered[middle - 1 : middle + 1]))
    counts = Counter(map(rounded, ratings))
    most, centre = max(counts.values()), mean(ratings)
    return min((label for label in counts if counts[label] == most), key=lambda x: (abs(x - centre), x))


def rounded(value: Fraction) -> int:
    """Round half up."""
    return math.floor(value + Fraction(1, 2))


def chosen_explanation(
    explanations: Sequence[str], ratings: Sequence[Fraction], how: Literal["nearest", "longest", "first"]
) -> str:
    """Choose one explanation: the first of those whose rating is nearest the mean, or that are longest."""
    if how == "first":
        return explanations[0]
    if how == "longest":
        return max(explanations, key=len)
    centre = mean(ratings)
    distances = [abs(rating - centre) for rating in ratings]
    return explanations[distances.index(min(distances))]
