"""Sequences of token ids as one batch: padding, and the labels that take no part in a loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from engine.models.tokenizer import Tokenizer


def padding_id(tokenizer: Tokenizer) -> int:
    """Give the id to pad with. It never matters which: padding is masked by length, not by value."""
    return next((int(i) for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)


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
