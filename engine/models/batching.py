"""Sequences of token ids as batches: which go together, and how they are padded."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from engine.models.tokenizer import Tokenizer


def padding_id(tokenizer: Tokenizer) -> int:
    """Give the id to pad with. It never matters which: padding is masked by length, not by value."""
    return next((int(i) for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)


def by_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Part the places of a window into batches of similar length, the longest sequences first.

    What is too much for the memory so fails in the window's first batch.
    """
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def pad_right(
    sequences: Sequence[Sequence[int]], padding: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give (input_ids, attention_mask), int64 [B, T]. Causal attention never looks at right padding."""
    length = max(map(len, sequences))
    ids = torch.full((len(sequences), length), padding)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
        mask[row, : len(sequence)] = 1
    return ids.to(device), mask.to(device)
