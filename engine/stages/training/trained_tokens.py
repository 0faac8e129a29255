"""Learned tokens (arXiv 2310.02226): the embeddings of some tokens are trained, and no others."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

import torch
from peft.utils import ModulesToSaveWrapper
from torch import Tensor

from engine.errors import UsageError
from engine.models.causal_lm import AdaptedLm
from engine.models.tokenizer import Tokenizer

LISTED = 3  # texts that an error names
NAMES = 30  # of the vocabulary that are looked through for them


def train_rows_alone(model: AdaptedLm, tokenizer: Tokenizer, tokens: Sequence[str]) -> int:
    """Let gradients reach these tokens' rows alone of the embeddings that the adapter trains.

    Args:
        model: The model with its fresh adapter.
        tokenizer: Its tokenizer.
        tokens: Texts of the tokens; where there are none, nothing changes.

    Returns:
        The number of the adapter's parameters that stay as they are.

    Raises:
        UsageError: If the tokenizer has no such token, or the embeddings are not trained.
    """
    if not tokens:
        return 0
    known = tokenizer.get_vocab()
    for token in tokens:
        if token not in known:
            near = _near(tokenizer, token) or tokenizer.all_special_tokens
            raise UsageError(
                f"lora.trained_tokens: found {token!r}, which is no token of this model; expected the text "
                f"of one, such as {', '.join(map(repr, near))}"
            )
    embeddings = model.get_base_model().get_input_embeddings()
    if not isinstance(embeddings, ModulesToSaveWrapper):
        name = next(
            name for name, module in model.get_base_model().named_modules() if module is embeddings
        ).rpartition(".")[2]
        raise UsageError(
            f"lora.trained_tokens: found {list(tokens)!r}, but the embeddings are not trained; expected "
            f'"{name}" in lora.modules_to_save'
        )
    weight = embeddings.modules_to_save["default"].weight
    rows = torch.tensor(sorted({known[token] for token in tokens}), device=weight.device)

    def of_rows(gradient: Tensor) -> Tensor:
        return torch.zeros_like(gradient).index_copy_(0, rows, gradient.index_select(0, rows))

    weight.register_hook(of_rows)
    return int(weight.numel() - len(rows) * weight.shape[1])


def _near(tokenizer: Tokenizer, token: str) -> list[str]:
    """Give texts like one that are tokens: added ones first, then others that are named by their text."""
    added = get_close_matches(token, tokenizer.get_added_vocab(), n=LISTED)
    others = [name for name in get_close_matches(token, tokenizer.get_vocab(), n=NAMES) if name not in added]
    return [*added, *(name for name in others if tokenizer.convert_tokens_to_string([name]) == name)][:LISTED]
