"""Scores of spellings against brute force over all logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from engine.lens import find_lens
from engine.scoring import Spelling, constrained_label, log_likelihoods, pad_right, score_spellings

tokens = st.integers(3, 319)
spelling = st.lists(tokens, min_size=1, max_size=3)
labels = st.lists(st.lists(spelling, min_size=1, max_size=2), min_size=2, max_size=3)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).requires_grad_(False).eval()


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_scores_are_the_token_log_probabilities(model: Any, data: st.DataObject) -> None:
    prompts = data.draw(st.lists(st.lists(tokens, min_size=1, max_size=9), min_size=1, max_size=4))
    questions = [(prompt, data.draw(labels)) for prompt in prompts]
    found = score_spellings(find_lens(model), questions, padding=1)
    for (prompt, groups), spellings in zip(questions, found, strict=True):
        assert [(s.label, s.ids) for s in spellings] == [
            (place, ids) for place, group in enumerate(groups) for ids in group
        ]
        for own in spellings:
            truth = model(input_ids=torch.tensor([prompt + own.ids])).logits[0].double().log_softmax(-1)
            wanted = [truth[len(prompt) - 1 + i, token].item() for i, token in enumerate(own.ids)]
            assert own.logprobs == pytest.approx(wanted, rel=1e-4, abs=1e-4)
            assert own.total == pytest.approx(sum(wanted), rel=1e-4, abs=1e-4)


def test_single_token_spellings_cost_one_pass(model: Any) -> None:
    passes = []
    hook = model.model.register_forward_hook(lambda *_: passes.append(1))
    score_spellings(find_lens(model), [([5, 6], [[[7], [8]], [[9], [10], [11]]])] * 3, padding=1)
    hook.remove()
    assert len(passes) == 1


def test_one_spelling_is_its_labels_log_likelihood_to_the_bit() -> None:
    alone = [Spelling(0, [4, 5], [-1.1, -0.3]), Spelling(1, [6], [-2.7])]
    assert log_likelihoods(alone, 2).tolist() == [-1.1 + -0.3, -2.7]


def test_greedy_decoding_may_miss_the_likeliest_label() -> None:
    """It takes the likelier first token, whatever follows."""
    spellings = [
        Spelling(0, [4, 5], [-0.5, -9.0]),
        Spelling(1, [4, 6], [-0.5, -8.0]),
        Spelling(2, [7], [-1.0]),
    ]
    assert constrained_label(spellings) == 1
    assert int(np.argmax(log_likelihoods(spellings, 3))) == 2


def test_padding_is_on_the_right() -> None:
    ids, mask = pad_right([[1, 2, 3], [4]], 9, torch.device("cpu"))
    assert ids.tolist() == [[1, 2, 3], [4, 9, 9]] and mask.tolist() == [[1, 1, 1], [1, 0, 0]]
