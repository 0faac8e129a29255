"""The quality of explanations as data: are they reasons, or templates that give the label away?"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from attrs import frozen

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@frozen
class Quality:
    """Measures of a set of explanations; shares are of the examples that have one."""

    examples: int
    explained: float  # share of examples with an explanation
    duplicates: float  # share whose words occur in the same order in an earlier explanation
    distinct_1: float  # different words per word (Li et al., arXiv 1510.03055)
    distinct_2: float  # different pairs of neighbouring words per pair
    templates: float  # share in the commonest template: equal first three words
    names_label: float  # share that contain the example's own label as a word
    names_other: float  # share that contain another label


def explanation_quality(rows: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> Quality:
    """Measure the explanations of examples, each with a `label` and an `explanation`.

    Words are compared without case and punctuation.
    """
    explained = [(row["label"], _words(row["explanation"])) for row in rows if row["explanation"].strip()]
    count = max(1, len(explained))
    texts = [words for _, words in explained]
    openings = Counter(words[:3] for words in texts)
    others = {label: [other for other in labels if other != label] for label in labels}
    return Quality(
        examples=len(rows),
        explained=len(explained) / max(1, len(rows)),
        duplicates=1 - len(set(texts)) / count if texts else 0.0,
        distinct_1=_distinct([(word,) for words in texts for word in words]),
        distinct_2=_distinct([pair for words in texts for pair in pairwise(words)]),
        templates=max(openings.values(), default=0) / count,
        names_label=sum(_names(words, [label]) for label, words in explained) / count,
        names_other=sum(_names(words, others.get(label, labels)) for label, words in explained) / count,
    )


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[\w']+", text.casefold()))


def _distinct(items: Sequence[tuple[str, ...]]) -> float:
    return len(set(items)) / len(items) if items else 0.0


def names_label(explanation: str, labels: Sequence[str]) -> bool:
    """Whether a text says one of the labels, as a word or a small number spelled out."""
    return _names(_words(explanation), labels)


def _names(words: Sequence[str], labels: Sequence[str]) -> bool:
    """Whether one of the labels is said: its words in a row, or a small number spelled out."""
    spoken = f" {' '.join(words)} "
    spelled = [_NUMBERS[int(label)] for label in labels if label.isdigit() and int(label) < len(_NUMBERS)]
    return any(f" {' '.join(_words(label))} " in spoken for label in [*labels, *spelled] if _words(label))
