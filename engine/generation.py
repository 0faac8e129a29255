"""Greedy generation in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from engine.training.loss import padding_id


@torch.inference_mode()
def generate(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> list[list[int]]:
    """Give the tokens that follow each prompt, up to and with the end token if it comes."""
    length = max(map(len, prompts))
    padding, end = padding_id(tokenizer), tokenizer.eos_token_id
    device = next(model.parameters()).device
    # Generation appends on the right, so prompts are padded on the left.
    ids = torch.tensor([[padding] * (length - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    output = model.generate(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        pad_token_id=padding,
        eos_token_id=end,
    )
    rows: list[list[int]] = output[:, length:].tolist()
    return [row[: row.index(end) + 1] if end in row else row for row in rows]
