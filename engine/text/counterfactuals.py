"""Explanations put in the place of the model's own, to see whether its labels follow what stands there.

Labels are scored behind each of them: an explanation that the label does not depend on has not led to it
(Turpin et al., arXiv 2305.04388; Lanham et al., arXiv 2307.13702; Atanasova et al., 2023).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from heapq import nsmallest

from attrs import frozen

from engine.data.missing_explanations import explained
from engine.errors import DataError
from engine.text.layout import words_before
from engine.text.pieces import Example
from engine.text.pseudo_explanations import NEAREST
from specs.tables.target import Target


@frozen
class Counterfactual:
    """An explanation, as it stands before the label, and the label of the example that it is of."""

    text: str
    argues_for: str  # "" where it is nobody's


def counterfactuals(
    rows: Sequence[Example], kinds: Sequence[str], target: Target, seed: int
) -> Mapping[str, Mapping[str, Counterfactual | None]]:
    """Give by example and kind what stands in the place of the model's explanation; None: there is none.

    The explanations of other examples are of other groups, and drawn from those nearest in length, by the
    seed and the example: the same whatever else is evaluated. DataError where no example has one.
    """
    if (reading := [kind for kind in kinds if kind != "empty"]) and not any(map(explained, rows)):
        raise DataError(
            f'evaluate.counterfactuals: found "{reading[0]}", but no test example has an explanation; '
            'expected a data set with explanations (data.columns.explanation), or "empty" alone'
        )
    pool = [(row, row["explanation"].split()) for row in rows if explained(row)]
    return {
        row["id"]: {kind: _counterfactual(row, kind, pool, target, seed) for kind in kinds} for row in rows
    }


_SERVES: Mapping[str, Callable[[Example, Example], bool]] = {
    "other": lambda row, other: True,
    "agreeing": lambda row, other: other["label"] == row["label"],
    "contradicting": lambda row, other: other["label"] != row["label"],
}


def _counterfactual(
    row: Example, kind: str, pool: Sequence[tuple[Example, list[str]]], target: Target, seed: int
) -> Counterfactual | None:
    if kind == "empty":
        return Counterfactual("", "")
    own_words, rng = (row.get("explanation") or "").split(), random.Random(f"{seed} {row['id']} {kind}")
    if kind == "reference":
        return _placed(row, own_words, target) if explained(row) else None
    distances = (
        (abs(len(words) - len(own_words)), rng.random(), place)
        for place, (other, words) in enumerate(pool)
        if _SERVES[kind](row, other) and not _same_group(row, other) and words != own_words
    )
    nearest = nsmallest(NEAREST, distances)
    return _placed(*pool[rng.choice(nearest)[-1]], target) if nearest else None


def _same_group(row: Example, other: Example) -> bool:
    return row["id"] == other["id"] or (row.get("group") or 0) == (other.get("group") or 1)


def _placed(row: Example, words: Sequence[str], target: Target) -> Counterfactual:
    """Give of an explanation what stands before the label."""
    return Counterfactual(" ".join(words[: words_before(target, len(words))]), row["label"])
