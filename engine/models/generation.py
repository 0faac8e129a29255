"""Generation in batches: greedy, or by numbers that draw each token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteriaList,
    StopStringCriteria,
)

from engine.errors import EngineError
from engine.models.batching import padding_id
from engine.models.causal_lm import CausalLm, without_adapter
from engine.models.tokenizer import Tokenizer

# What is expected where logits are not.
FINITE = (
    "expected a model whose logits are finite. A training that diverged leaves such a model (lower "
    "train.lr), as does model.dtype float16 where it overflows"
)


@torch.inference_mode()
def generate(
    model: CausalLm,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    ends: Sequence[int] | None = None,
    draws: LogitsProcessor | None = None,
    stops: Sequence[str] = (),
) -> list[list[int]]:
    """Give the likeliest token after each prompt, and so on, up to and with an end token if one comes.

    draws: leaves one token to be the likeliest, instead of the model's own (`engine.models.sampling.Draws`).
    stops: texts; one is gone on from no further than to the token with which it is whole.
    `ends`: ids of the end tokens; by default the tokenizer's own, with which targets end in training. What
    the model's own generation config says (penalties, suppressed and forced tokens, other ends, …) is left
    aside: the text is that of the model's logits alone. EngineError where these are NaN.
    """
    length = max(map(len, prompts))
    padding = padding_id(tokenizer)
    ends = [token for token in (tokenizer.eos_token_id,) if token is not None] if ends is None else list(ends)
    device = next(model.parameters()).device
    # Generation appends on the right, so prompts are padded on the left.
    ids = torch.tensor([[padding] * (length - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    config = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=padding, eos_token_id=ends or None
    )
    watch = _NanWatch()
    with _configured(model, config) as bare:
        output = bare.generate(
            ids.to(device),
            attention_mask=mask.to(device),
            generation_config=config,
            logits_processor=LogitsProcessorList([watch, *([draws] if draws else [])]),
            stopping_criteria=_stopping(tokenizer, stops),
        )
    if bool(watch.seen):
        raise EngineError(f"generation: found NaN logits; {FINITE}")
    return [_ended(row, set(ends)) for row in output[:, length:].tolist()]


def _stopping(tokenizer: Tokenizer, stops: Sequence[str]) -> StoppingCriteriaList:
    """Give what ends a row where one of the texts is whole."""
    return StoppingCriteriaList([StopStringCriteria(tokenizer, list(stops))] if stops else [])


class _NanWatch(LogitsProcessor):
    """Notes whether any logit was NaN, on the device; to greedy decoding NaN is the likeliest of all."""

    seen: torch.Tensor | bool = False

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.seen = self.seen | scores.isnan().any()
        return scores


@contextmanager
def _configured(model: CausalLm, config: GenerationConfig) -> Iterator[Any]:
    """Give the model, without the adapter's wrapper, with this generation config inside the `with` block.

    What a config that is passed to `generate` leaves open, transformers takes from the model's own.
    """
    bare = without_adapter(model)
    own_config = bare.generation_config
    bare.generation_config = config
    try:
        yield bare
    finally:
        bare.generation_config = own_config


def written(
    tokenizer: Tokenizer, prompt: Sequence[int], tokens: Sequence[int], begun: Sequence[int] = ()
) -> str:
    """Give the text of tokens as it stands behind a prompt: decoded alone, some would lose a space.

    `begun`: the last tokens of the prompt, if the text begins with them; they may be parts of a letter.
    """
    prompt, tokens = prompt[: len(prompt) - len(begun)], [*begun, *tokens]
    before = list(prompt[-8:])
    head, whole = (
        str(tokenizer.decode(ids, skip_special_tokens=True)) for ids in (before, [*before, *tokens])
    )
    if whole.startswith(head):
        return whole[len(head) :]
    return str(tokenizer.decode(tokens, skip_special_tokens=True))


def own_ends(model: CausalLm, tokenizer: Tokenizer) -> list[int]:
    """Give the ids of all tokens that end a text of the model as it is published: a chat's turn, say."""
    ends = model.generation_config.eos_token_id
    return sorted({tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None})


def _ended(row: list[int], ends: set[int]) -> list[int]:
    stop = next((place for place, token in enumerate(row) if token in ends), len(row))
    return row[: stop + 1]
