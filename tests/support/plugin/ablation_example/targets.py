"""A pseudo-explanation: the genuine words, last first."""

from engine.plugins import Draw, PseudoExplanation


def last_first(draw: Draw) -> list[int]:
    """Give the tokens of the words in reverse order."""
    return [token for word in reversed(draw.words) for token in word]


REVERSED = PseudoExplanation(last_first, seeded=False, version="1")
