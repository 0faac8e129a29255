"""The ensemble against the golden set: errors of raters and of merges, and which merge is best."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from fractions import Fraction

from attrs import frozen

from engine.annotation.agreement import Errors
from engine.annotation.merge import MERGES, Merge, merged
from engine.annotation.ratings import Rater, Ratings, raters
from engine.annotation.sources import Golden
from engine.errors import DataError


@frozen
class GoldenComparison:
    """Ratings of the golden conversations beside their true ratings."""

    ratings: Ratings
    golden: Sequence[Golden]

    def of_raters(self, chosen: Collection[Rater]) -> Errors | None:
        """Give the errors of single ratings, on the labels' scale before rounding, of the chosen raters."""
        wanted = [rater in chosen for rater in raters(self.ratings.settings)]
        return Errors.of(
            (value, true)
            for values, true in self._units()
            for value, take in zip(values, wanted, strict=True)
            if take and value is not None
        )

    def of_merge(self, how: Merge) -> Errors | None:
        """Give the errors of the labels that a merge writes, where there are enough answers."""
        fewest = self.ratings.settings.min_answers
        valid = (([v for v in values if v is not None], true) for values, true in self._units())
        return Errors.of((merged(values, how), true) for values, true in valid if len(values) >= fewest)

    def best(self) -> Merge:
        """Give the merge of least MAE, then least MSE, then the first of mean, median, majority."""
        errors = {how: best_of_merge for how in MERGES if (best_of_merge := self.of_merge(how)) is not None}
        if not errors:
            raise DataError(
                'annotate.merge: found "best", but no conversation of the golden set has both a true rating '
                "and enough valid answers"
            )
        return min(errors, key=lambda how: errors[how])

    def _units(self) -> Iterator[tuple[list[Fraction | None], Fraction]]:
        for index, row in enumerate(self.golden):
            for dimension, true in row.ratings.items():
                yield self.ratings.values(dimension, index), true


def merge_of(comparison: GoldenComparison) -> Merge:
    """Give the merge that the spec asks for."""
    wanted = comparison.ratings.settings.merge
    return comparison.best() if wanted == "best" else wanted
