"""Tokens that are drawn from a model's distribution, each by a number of its own.

A row's numbers come from its name alone, so that its text hangs neither on the batch that it is in nor on
what else is drawn, before or after a kill.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import torch
from attrs import frozen
from transformers import LogitsProcessor

from engine.models.scoring import Spelling, walked
from specs.tables.sampling import Sampling


@frozen(eq=False)
class Draws(LogitsProcessor):
    """Leaves of each row's logits that token alone which its next number draws.

    The token is that at which the cumulated probability, in the order of token ids, passes the number. In
    float64, whatever the model computes in.
    """

    settings: Sampling
    numbers: Sequence[Iterator[float]]  # of each row, uniform in [0, 1)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Give logits [B, V] of which one of each row is not -inf; each call takes a number of each row."""
        chances = probabilities(scores, self.settings)
        drawn = torch.tensor(
            [[next(row)] for row in self.numbers], dtype=chances.dtype, device=chances.device
        )
        tokens = drawn_places(chances, drawn)
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens, 0.0)


def numbers(seed: int, example: str, sample: int, part: str = "") -> Iterator[float]:
    """Give the numbers by which a sample of an example is drawn, without end."""
    generator = random.Random(f"{seed} {example} {sample} {part}")
    while True:
        yield generator.random()


def probabilities(logits: torch.Tensor, settings: Sampling) -> torch.Tensor:
    """Give what tokens are drawn by: [B, V] float64, rows that add up to 1.

    With top_p the likeliest tokens until they together have it, ties by the lower id.
    """
    chances = (logits.double() / settings.temperature).softmax(-1)
    if settings.top_p < 1:
        ordered, ids = chances.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered
        ordered = ordered.masked_fill(before >= settings.top_p, 0.0)
        chances = torch.zeros_like(chances).scatter_(-1, ids, ordered)
        chances = chances / chances.sum(-1, keepdim=True)
    return chances


def drawn_places(chances: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """Give the places [B, 1] at which cumulated chances [B, V] pass the numbers [B, 1]."""
    cumulated = chances.cumsum(-1)
    places = torch.searchsorted(cumulated, drawn * cumulated[:, -1:], right=True)
    # Rounding may leave a number at the very end: then the last token that has a chance.
    last = chances.shape[-1] - 1 - (chances > 0).flip(-1).int().argmax(-1, keepdim=True)
    return torch.minimum(places, last)


def drawn_spelling(spellings: Sequence[Spelling], settings: Sampling, row: Iterator[float]) -> Spelling:
    """Give a spelling, drawn token by token among those that go on with some spelling; row: its numbers."""

    def draw(left: Sequence[Spelling], depth: int) -> int:
        logprobs = {spelling.ids[depth]: spelling.logprobs[depth] for spelling in left}
        tokens = sorted(logprobs)
        chances = probabilities(torch.tensor([[logprobs[token] for token in tokens]]), settings)
        return tokens[int(drawn_places(chances, torch.tensor([[next(row)]], dtype=chances.dtype)))]

    return walked(spellings, draw)
