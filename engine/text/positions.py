"""The token positions of an example that a probe watches."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from engine.text.targets import Encoded, Example, TargetEncoder
from specs.tables.probe import PositionRange, Probe

MISSING = -1
"""The place of a watch position, or the id of a next token, that an example does not have."""


@frozen
class WatchedText:
    """An example as a probe reads it: P watch positions, of which some may be missing."""

    ids: list[int]  # up to the last watch position: causal attention lets nothing behind it reach it
    places: list[int]  # [P] token indices
    next_ids: list[int]  # [P] the token behind each

    @staticmethod
    def of(writer: TargetEncoder, example: Example, probe: Probe) -> WatchedText:
        """Tokenize an example with its true answer, and find the positions in it."""
        encoded = writer.encode(example)
        explanation = writer.explanation_places(example) if probe.watches_range("explanation") else []
        places = position_indices(probe, encoded, explanation)
        ids = encoded.prompt + encoded.completion
        behind = [place + 1 if MISSING < place < len(ids) - 1 else None for place in places]
        next_ids = [MISSING if place is None else ids[place] for place in behind]
        return WatchedText(ids[: max(*places, 0) + 1], places, next_ids)

    @property
    def read(self) -> list[int]:
        """Give places that a pass can read at: the last token's for missing ones."""
        return [place if place != MISSING else len(self.ids) - 1 for place in self.places]


def position_indices(probe: Probe, example: Encoded, explanation: Sequence[int] = ()) -> list[int]:
    """Give the token index of every watch position in prompt + completion, `MISSING` beyond a range's end.

    An index n >= 0 counts from the completion's first token; beyond either end the nearest token serves.
    explanation: the indices of the explanation's tokens.
    """
    border, last = len(example.prompt), len(example) - 1
    named = {"prompt_end": border - 1, "label": example.label - 1, "completion_end": last}
    ranges = {"prompt": range(border), "explanation": explanation}
    indices: list[int] = []
    for place in probe.places:
        if isinstance(place, PositionRange):
            watched = list(ranges[place.range][:: place.every])[: place.most]
            indices += watched + [MISSING] * (place.most - len(watched))
        else:
            index = named[place] if isinstance(place, str) else border + place
            indices.append(min(max(index, 0), last))
    return indices
