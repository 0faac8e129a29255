"""`[evaluate.spellings]`: every text means one label, and that label is among `evaluate.labels`."""

from __future__ import annotations

from collections.abc import Iterator

from specs.describe import value as spell
from specs.errors import Problem, nearest, one_of
from specs.keys import Path, join
from specs.model import Evaluate

SPELLINGS: Path = ("evaluate", "spellings")


def misspelled(settings: Evaluate) -> Iterator[Problem]:
    """What is wrong with the table beyond its types."""
    meanings = {label.casefold(): label for label in settings.labels}  # generated text is read so
    for label, texts in settings.spellings.items():
        at = (*SPELLINGS, label)
        if label not in settings.labels:
            known = one_of(spell(known) for known in settings.labels)
            hint = nearest(label, settings.labels)
            yield Problem(None, join(at), f"unknown label {spell(label)}; expected {known}", hint)
            continue
        for index, text in enumerate(texts):
            other = meanings.setdefault(text.casefold(), label)
            if other != label:
                message = f"{spell(text)} means the label {spell(other)} already"
                yield Problem(None, join((*at, index)), message)
