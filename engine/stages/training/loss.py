"""Batches of examples, and the loss of their completions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import frozen
from torch import Tensor, nn

from engine.models.lens import Lens
from engine.process_group.alone import IGNORED
from engine.text.targets import Encoded


@frozen
class Collator:
    """Pads examples on the right; the loss counts the completion's tokens alone.

    Lengths, not token values, say what is padding, so an end-of-sequence token that is also the padding
    token still takes part in the loss.
    """

    padding: int

    def __call__(self, examples: Sequence[Encoded]) -> dict[str, Tensor]:
        """Give input_ids, attention_mask, labels: int64 [B, T]."""
        length = max(map(len, examples))
        ids = torch.full((len(examples), length), self.padding)
        mask = torch.zeros_like(ids)
        labels = torch.full_like(ids, IGNORED)
        for row, example in enumerate(examples):
            size, border = len(example), len(example.prompt)
            ids[row, :size] = torch.tensor(example.prompt + example.completion)
            mask[row, :size] = 1
            labels[row, border:size] = ids[row, border:size]
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def completion_loss(lens: Lens, inputs: dict[str, Tensor], items: Tensor | int | None = None) -> Tensor:
    """Give the mean cross-entropy, in nats, of the labelled tokens: the causal model's own loss.

    Logits are made for the labelled positions alone, not [B, T, V] of them. `items` replaces the number of
    tokens to divide by, when one optimiser step gathers several batches.
    """
    mask = lens.needed(inputs["attention_mask"])
    hidden = lens.last_hidden(inputs["input_ids"], mask)[:, :-1]
    labels = inputs["labels"][:, 1:]
    counted = labels != IGNORED
    total = nn.functional.cross_entropy(lens.logits(hidden[counted]), labels[counted], reduction="sum")
    return total / (counted.sum() if items is None else items)
