"""Greedy generation against a plain loop, whatever the model's own generation config asks for."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import adapt
from transformers import AutoModelForCausalLM, GenerationConfig

from engine.models.generation import generate, own_ends

PROMPTS = [[5, 6, 7, 8], [9, 10], [11, 12, 13]]
NEW = 12


@pytest.fixture
def model(tiny_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).requires_grad_(False).eval()


def greedy(model: Any, prompt: list[int], ends: set[int], count: int = NEW) -> list[int]:
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] in ends:
            break
    return ids[len(prompt) :]


def hostile(written: list[int]) -> list[dict[str, Any]]:
    """Settings that each would change the text that greedy decoding writes."""
    first, last, *_ = sorted({*range(3, 60)} - {*written})  # what is suppressed cannot be forced
    return [
        {"repetition_penalty": 5.0},
        {"no_repeat_ngram_size": 1},
        {"suppress_tokens": written},
        {"begin_suppress_tokens": written[:1]},
        {"bad_words_ids": [[token] for token in written]},
        {"forced_bos_token_id": first},
        {"forced_eos_token_id": last},
        {"max_time": 1e-9},
        {"guidance_scale": 9.0},
        {"sequence_bias": [[[written[0]], -1e4]]},
        {"exponential_decay_length_penalty": (0, 99.0)},
        {"min_length": 99, "eos_token_id": [written[1]]},
        {"min_new_tokens": NEW},
        {"eos_token_id": written[1:3]},
        {"num_beams": 3, "length_penalty": 9.0},
        {"do_sample": True, "temperature": 9.0},
        {"renormalize_logits": True, "encoder_repetition_penalty": 5.0},
        {"use_cache": False, "max_length": 3, "num_return_sequences": 1},
    ]


@pytest.mark.parametrize("adapted", [False, True])
def test_the_models_own_generation_config_has_no_effect(model: Any, tokenizer: Any, adapted: bool) -> None:
    end = tokenizer.eos_token_id
    base = model
    if adapted:
        model = adapt(model)
    truth = [greedy(model, prompt, {end}) for prompt in PROMPTS]
    assert generate(model, tokenizer, PROMPTS, NEW) == truth
    changes = hostile(truth[0])
    together = {name: value for own in changes for name, value in own.items() if "beam" not in name}
    for own in [*changes, together]:
        config = GenerationConfig.from_dict(own)
        base.generation_config = config
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert generate(model, tokenizer, PROMPTS, NEW) == truth, own
        assert base.generation_config is config


def test_it_ends_where_the_target_ends_or_where_it_is_told_to(model: Any, tokenizer: Any) -> None:
    truth = greedy(model, PROMPTS[0], set())
    assert generate(model, tokenizer, PROMPTS[:1], NEW, ends=[truth[3], 318]) == [
        greedy(model, PROMPTS[0], {truth[3]})
    ]
    model.generation_config.eos_token_id = [truth[3], 318]
    assert own_ends(model, tokenizer) == sorted({truth[3], 318, tokenizer.eos_token_id})
    model.generation_config.eos_token_id = None
    assert own_ends(model, tokenizer) == [tokenizer.eos_token_id]


def test_a_batch_ends_with_its_last_sequence(model: Any, tokenizer: Any) -> None:
    """No token is computed behind the one that ends the longest text."""
    written = [greedy(model, prompt, set()) for prompt in PROMPTS]
    ends = {row[place] for row, place in zip(written, (0, 2, 1), strict=True)}
    expected = [greedy(model, prompt, ends) for prompt in PROMPTS]
    passes: list[int] = []
    hook = model.model.register_forward_hook(lambda *_: passes.append(1))
    found = generate(model, tokenizer, PROMPTS, NEW, sorted(ends))
    hook.remove()
    assert found == expected and len(passes) == max(map(len, expected)) < NEW
