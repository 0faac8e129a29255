"""Labels behind prompts that begin alike: the same scores, whether every row is read whole or not."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import transformers
from noted_passes import NotedPasses
from tiny_models import MODELS, TRAINABLE, build

from benchmarks.tiny_configs import tiny
from engine.models import shared_prefix as prefixes
from engine.models.lens import find_lens
from engine.models.prefix_rule import LEAST_TOKENS
from engine.models.scoring import Question, score_spellings
from engine.models.shared_prefix import shared_length, shared_prefix

# Of one and of several tokens, some of which begin alike.
LABELS = [[[7], [8, 9]], [[8, 10, 4], [5]], [[6, 3]]]
HEAD = [(7 * place + 5) % 60 + 3 for place in range(LEAST_TOKENS + 3)]
# Types that do not keep keys and values of all tokens in every layer.
WHOLE = {
    "mistral", "gemma 2, soft-capped", "gemma 3", "gemma 3 with a vision tower", "inkling", "falcon-h1",
    "recurrent gemma",
}  # fmt: skip
PLAIN = {
    "llama", "llama, tied", "qwen2", "qwen3", "gemma", "cohere, scaled", "phi, biased head", "phi3",
    "granite", "gpt2", "gpt-neox", "opt", "gpt-j", "olmo2",
}  # fmt: skip


def questions(head: Sequence[int] = HEAD, count: int = 4) -> list[Question]:
    rng = random.Random(0)
    rests = [[rng.randrange(3, 90) for _ in range(1 + 2 * number)] for number in range(count)]
    rests[0] = [91]  # so that nothing else begins alike
    return [([*head, *rest], LABELS) for rest in rests]


@contextmanager
def tokens_read(model: Any) -> Iterator[list[int]]:
    """Count the tokens of each pass, padding and all."""
    counted: list[int] = []
    hook = find_lens(model).decoder.register_forward_pre_hook(
        lambda _, _arguments, options: counted.append(options["input_ids"].numel()), with_kwargs=True
    )
    yield counted
    hook.remove()


def scores(found: Any) -> tuple[torch.Tensor, list[list[int]]]:
    logprobs = [logprob for spellings in found for own in spellings for logprob in own.logprobs]
    return torch.tensor(logprobs), [own.ranks for spellings in found for own in spellings]


def whole_rows(model: Any, asked: Sequence[Question]) -> Any:
    """What each question gives by itself, without its prompt's begin in common with anything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefixes, "pays", lambda *_: False)
        return score_spellings(find_lens(model), asked, 0)


@pytest.mark.parametrize("name", MODELS | TRAINABLE)
@torch.inference_mode()
def test_scores_are_those_of_whole_rows(name: str) -> None:
    kind, config = (MODELS | TRAINABLE)[name]
    model = build(kind, config)
    with tokens_read(model) as read:
        found, order = scores(score_spellings(find_lens(model), questions(), 0))
    with tokens_read(model) as read_whole:
        expected, expected_order = scores(whole_rows(model, questions()))
    assert torch.allclose(found, expected, atol=2e-5, rtol=1e-5), (found - expected).abs().max()
    near = sum(own != other for own, other in zip(order, expected_order, strict=True))
    assert near <= 1
    if name in PLAIN:
        assert sum(read) < 0.5 * sum(read_whole)
    if name in WHOLE:
        assert find_lens(model).decoder in prefixes._able
        assert sum(read_whole) <= sum(read) < sum(read_whole) + 60  # a few tokens were tried


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@torch.inference_mode()
def test_half_precision_is_near(dtype: torch.dtype, attention: str) -> None:
    model = build(*MODELS["llama"]).to(dtype)
    model.set_attn_implementation(attention)
    with tokens_read(model) as read:
        found, _ = scores(score_spellings(find_lens(model), questions(), 0))
    assert len(read) > len(LABELS) and min(read[-3:]) < 40
    expected, _ = scores(whole_rows(model.float(), questions()))
    assert torch.allclose(found, expected, atol=0.05)


@torch.inference_mode()
def test_bare_prompts_are_run_for_others_behind_what_they_do_not_read() -> None:
    model = build(*MODELS["llama"])
    lens = find_lens(model)
    expected = scores(whole_rows(model, questions()))[0]
    for first, length in ((len(HEAD), len(HEAD)), (len(HEAD) - 2, len(HEAD) - 2), (3, 0), (99, len(HEAD))):
        others = NotedPasses(lens, first)
        found, _ = scores(score_spellings(lens, questions(), 0, others))
        assert others.ran == [([prompt for prompt, _ in questions()], length)]
        assert torch.allclose(found, expected, atol=2e-5)


@torch.inference_mode()
def test_a_prefix_is_read_where_it_pays() -> None:
    model = build(*MODELS["llama"])
    lens = find_lens(model)
    assert shared_prefix(lens, [[*HEAD, 1], [*HEAD, 2]]) is not None
    assert shared_prefix(lens, [[*HEAD, 1]]) is None
    short = HEAD[: LEAST_TOKENS - 1]
    assert shared_prefix(lens, [[*short, 1], [*short, 2]]) is None
    begin = HEAD[:LEAST_TOKENS]
    long = [
        begin + [number] * (4 * LEAST_TOKENS - LEAST_TOKENS + extra) for number, extra in ((1, 0), (2, 0))
    ]
    assert shared_prefix(lens, long) is not None
    assert shared_prefix(lens, [[*row, 4] for row in long]) is None


def test_one_token_of_each_row_is_left() -> None:
    assert shared_length([[1, 2, 3], [1, 2, 4], [1, 2, 3, 4]]) == 2
    assert shared_length([[1, 2, 3], [1, 2, 3]]) == 2
    assert shared_length([[1, 2], [1, 2, 3]]) == 1
    assert shared_length([[1, 2, 3], [1, 2, 3]], 1) == 1
    assert shared_length([[1], [1, 2]]) == shared_length([[2, 1], [3, 1]]) == 0


@torch.inference_mode()
def test_positions_that_hang_on_the_length_are_read_whole() -> None:
    for rope in (
        {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0},
        {"rope_type": "longrope", "factor": 4.0, "rope_theta": 10000.0, "short_factor": [1.0] * 4,
         "long_factor": [3.0] * 4, "original_max_position_embeddings": 36},
    ):  # fmt: skip
        kind, config = MODELS["llama"]
        model = build(kind, config | {"rope_parameters": rope})
        asked = questions()
        found, _ = scores(score_spellings(find_lens(model), asked, 0))
        assert torch.equal(found, scores(whole_rows(model, asked))[0])
        assert prefixes._able[find_lens(model).decoder] is False


@torch.inference_mode()
def test_a_model_that_refuses_to_keep_anything_is_read_whole() -> None:
    """ProphetNet goes on from what it has kept by one token at a time."""
    model = transformers.AutoModelForCausalLM.from_config(tiny("prophetnet")).float().eval()
    asked = questions()
    found, _ = scores(score_spellings(find_lens(model), asked, 0))
    assert torch.equal(found, scores(whole_rows(model, asked))[0])


@torch.inference_mode()
def test_what_a_model_is_able_to_does_not_hang_on_its_weights() -> None:
    """One that diverged gives no numbers, and lends its modules to the next adapter."""
    model = build(*MODELS["llama"])
    model.model.norm.weight[:] = float("nan")
    assert shared_prefix(find_lens(model), [[*HEAD, 1], [*HEAD, 2]]) is not None
