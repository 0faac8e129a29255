"""The tokens at which something is put in, and those of another input that stand for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from engine.models.scoring import Question
from engine.planning.changes import Place
from engine.text.targets import Example, TargetEncoder


@frozen
class Asked:
    """An example as an intervention reads it: what it asks, and where the tokens of its segments stand."""

    question: Question
    segments: Mapping[str, Sequence[int]]  # prompt and explanation, before the label

    @staticmethod
    def of(writer: TargetEncoder, example: Example) -> Asked:
        """Tokenize an example; its segments are the prompt, and the explanation where that comes first."""
        question = writer.encode_spellings(example)
        count = len(question[0])
        if not writer.target.explains_first:
            return Asked(question, {"prompt": range(count), "explanation": ()})
        border = min(len(writer.encode(example).prompt), count)
        explanation = [place for place in writer.explanation_places(example) if place < count]
        return Asked(question, {"prompt": range(border), "explanation": explanation})

    @property
    def size(self) -> int:
        """The tokens before the label."""
        return len(self.question[0])

    def places(self, position: Place) -> list[int]:
        """Give the tokens of a position; before the first token, that one serves."""
        if isinstance(position, int):
            return [max(self.size + position, 0)]
        if isinstance(position, str):
            return list(self.segments[position])
        name, place = position
        return list(self.segments[name][place : place + 1])

    def has(self, positions: Sequence[Place] | None) -> bool:
        """Tell whether there is a token at some of these positions; None: all."""
        return positions is None or any(self.places(position) for position in positions)


def standing_for(
    positions: Sequence[Place] | None, own: Asked, other: Asked, behind: int
) -> list[tuple[int, int]]:
    """Give pairs of tokens: one of an example at these positions, and that of another which stands for it.

    behind: tokens behind both prompts, the first ones of a label. Where all positions are meant, they stand
    for each other, too.
    """
    if positions is not None:
        pairs = (_matched(own.places(at), other.places(at)) for at in positions)
        return list(dict.fromkeys(pair for matched in pairs for pair in matched))
    prompt = _matched(list(range(own.size)), list(range(other.size)))
    return prompt + [(own.size + step, other.size + step) for step in range(behind)]


def _matched(own: Sequence[int], other: Sequence[int]) -> list[tuple[int, int]]:
    """Match tokens from their ends on.

    Those of a shorter text stand again, from its end, for what is left; but the first token of one is that
    of the other: models treat it unlike all others.
    """
    if not own or not other:
        return []
    count = len(other)
    pairs = [(place, other[-1 - step % count]) for step, place in enumerate(reversed(own))]
    if len(own) > 1 and own[0] == other[0] == 0:
        pairs[-1] = (0, 0)
    return pairs
