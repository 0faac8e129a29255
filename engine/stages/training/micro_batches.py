"""A batch in parts that go through the model one after another, and what it takes to do a step again."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from attrs import frozen
from torch import Tensor

from engine.models.batching import by_length


def parted(batch: Mapping[str, Tensor], rows: int) -> list[Mapping[str, Tensor]]:
    """Part a batch, padded on the right, into micro batches of so many rows.

    Rows of similar length go together, the longest first, and each part is as wide as its longest row: what
    is too much for the memory fails at once, and little is padding. A batch that is not parted stays as it
    is.
    """
    mask = batch["attention_mask"]
    if rows >= len(mask):
        return [batch]
    lengths = mask.sum(1).tolist()
    parts: list[Mapping[str, Tensor]] = []
    for places in by_length(lengths, rows):
        chosen = torch.tensor(places, device=mask.device)
        width = lengths[places[0]]
        parts.append({name: values[chosen, :width] for name, values in batch.items()})
    return parts


@frozen
class Draws:
    """The states of the generators that dropout draws from."""

    cpu: Tensor
    device: Tensor | None

    @classmethod
    def now(cls, device: torch.device) -> Draws:
        """Note them."""
        on_gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(torch.get_rng_state(), on_gpu)

    def restore(self, device: torch.device) -> None:
        """Go on from them."""
        torch.set_rng_state(self.cpu)
        if self.device is not None:
            torch.cuda.set_rng_state(self.device, device)
