"""Passes over bare prompts that somebody else reads as well, and what was run of them."""

from __future__ import annotations

import torch
from attrs import field, frozen

from engine.models.lens import Lens
from engine.models.shared_prefix import Prefix, Sequences, last_hidden


@frozen
class NotedPasses:
    """Runs bare prompts for others, who read them from some place on."""

    lens: Lens
    first: int
    ran: list[tuple[Sequences, int]] = field(factory=list)  # with the length of the prefix

    def first_read(self, prompts: Sequences) -> int:
        """Give the first place at which others read any prompt."""
        return self.first

    def last_hidden(self, prompts: Sequences, prefix: Prefix | None) -> torch.Tensor:
        """Run them, and note it."""
        self.ran.append((prompts, prefix.length if prefix else 0))
        return last_hidden(self.lens, prefix, prompts, 0)
