"""Scores of spellings against brute force over all logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from facts import facts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from noted_passes import NotedPasses
from tiny_models import MODELS, build
from transformers import AutoModelForCausalLM

from engine.errors import EngineError
from engine.models.batching import pad_right
from engine.models.lens import find_lens
from engine.models.scoring import (
    Spelling,
    constrained_spelling,
    log_likelihoods,
    predictions,
    score_spellings,
)
from kernels import lens_statistics

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


def test_bare_prompts_of_all_questions_are_one_pass(model: Any) -> None:
    lens = find_lens(model)
    questions = [([5, 6], [[[7, 8]], [[9]]]), ([5], [[[7]], [[9, 3], [4, 3]]])]
    passes = NotedPasses(lens, 0)
    found = score_spellings(lens, questions, 0, passes)
    assert passes.ran == [([[5, 6], [5]], 0)]
    plain = score_spellings(lens, questions, 0)
    assert [[s.total for s in own] for own in found] == [[s.total for s in own] for own in plain]


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
    assert constrained_spelling(spellings).label == 1
    assert int(np.argmax(log_likelihoods(spellings, 3))) == 2


def test_padding_is_on_the_right() -> None:
    ids, mask = pad_right([[1, 2, 3], [4]], 9, torch.device("cpu"))
    assert ids.tolist() == [[1, 2, 3], [4, 9, 9]] and mask.tolist() == [[1, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["llama", "gemma 2, soft-capped", "phi, biased head"])
@torch.inference_mode()
def test_labels_never_contradict_the_probe(name: str, dtype: torch.dtype) -> None:
    """Logits of 16 and more, which bfloat16 holds in steps of an eighth, meet at hundreds of prompts."""
    model = build(*MODELS[name])
    model.get_output_embeddings().weight.mul_(40)  # real heads give logits of some ten
    lens = find_lens(model.to(dtype))
    generator = torch.Generator().manual_seed(1)
    prompts = torch.randint(3, 96, (400, 5), generator=generator)
    tokens = torch.randperm(93, generator=generator)[:40] + 3  # labels, not in the tokens' order
    names = [str(token) for token in tokens.tolist()]
    questions = [(prompt, [[[token]] for token in tokens.tolist()]) for prompt in prompts.tolist()]
    found = score_spellings(lens, questions, padding=0)
    predicted, scores = predictions(found, names, length_normalized=False)

    hidden = lens.last_hidden(prompts, torch.ones_like(prompts))[:, -1]
    probe = lens_statistics(hidden, lens.unembedding, watch_ids=tokens, top_k=1)
    first = probe.watch_rank.argmin(dim=1).tolist()
    assert predicted == [names[place] for place in first]
    assert [constrained_spelling(spellings).label for spellings in found] == first
    on_top = [str(token) for token in probe.top_ids[:, 0].tolist()]
    assert all(top == label for top, label in zip(on_top, predicted, strict=True) if top in names)
    assert sum(top in names for top in on_top) > 50
    order = probe.watch_rank.argsort(dim=1)
    along = torch.from_numpy(scores).gather(1, order)
    assert (along.diff(dim=1) <= 0).all()
    assert np.allclose(scores, probe.watch_logprob, rtol=0, atol=0)

    truth = lens_statistics(hidden, lens.unembedding, watch_ids=tokens, backend="reference").watch_logprob
    assert (torch.from_numpy(scores) - truth).abs().max() <= 1e-4
    true_ties = (truth.gather(1, order).diff(dim=1).abs() <= 1e-6).sum()
    assert (along.diff(dim=1) == 0).sum() <= true_ties
    # The bfloat16 logits of the model's own head do meet.
    own = model.get_output_embeddings()(hidden)[:, tokens]
    assert dtype == torch.float16 or (own.sort(dim=1).values.diff(dim=1) == 0).any(dim=1).sum() > 40


def test_true_ties_go_to_the_lower_token_id_as_ranks_do() -> None:
    model = build(*MODELS["llama"])
    model.lm_head.weight[[7, 11, 30]] = model.lm_head.weight[20].clone()
    questions = [([5, 6, prompt], [[[30]], [[20]], [[7]], [[11]]]) for prompt in range(3, 20)]
    found = score_spellings(find_lens(model), questions, padding=0)
    assert {spelling.logprobs[0] for spelling in found[0]} == {found[0][0].logprobs[0]}
    assert predictions(found, ["a", "b", "c", "d"], length_normalized=False)[0] == ["c"] * 17
    assert [constrained_spelling(spellings).label for spellings in found] == [2] * 17


def test_logits_that_are_no_numbers_are_no_prediction() -> None:
    model = build(*MODELS["llama"])
    model.model.norm.weight[0] = float("nan")
    with pytest.raises(EngineError, match=facts("NaN", "2 of 2")):
        score_spellings(find_lens(model), [([5, 6], [[[7]], [[8]]])] * 2, padding=0)
