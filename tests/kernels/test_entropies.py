"""Attention, activation and collision entropy against the float64 reference and plain arithmetic."""

from __future__ import annotations

import math

import pytest
import torch
from head_problems import heads, vectors
from hypothesis import given, settings
from torch import Tensor

from kernels import (
    Unembedding,
    activation_entropy,
    attention_entropy,
    available_backends,
    collision_entropy,
    lens_statistics,
)
from kernels import attention_entropies_torch as attention_torch
from kernels.lens_reference import whole_logits


@settings(max_examples=150, deadline=None)
@given(problem=heads())
def test_attention_in_torch_agrees_with_the_reference(problem: dict[str, object]) -> None:
    ours = attention_entropy(**problem, backend="torch")
    truth = attention_entropy(**problem, backend="reference")
    torch.testing.assert_close(ours.double(), truth, atol=1e-4, rtol=0, equal_nan=True)


@settings(max_examples=50, deadline=None)
@given(problem=heads())
def test_blocks_of_queries_and_keys_change_nothing(problem: dict[str, object]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_torch, "QUERIES", 7)
        patch.setattr(attention_torch, "KEYS", 5)
        ours = attention_entropy(**problem, backend="torch")
    whole = attention_entropy(**problem, backend="torch")
    torch.testing.assert_close(ours, whole, atol=1e-4, rtol=0, equal_nan=True)


@settings(max_examples=50, deadline=None)
@given(problem=heads(longest=12))
def test_the_reference_agrees_with_plain_arithmetic(problem: dict[str, object]) -> None:
    query, key = problem["query"], problem["key"]
    batch, count, length, width = query.shape
    truth = attention_entropy(**problem, backend="reference")
    for b in range(batch):
        end = length if problem["lengths"] is None else problem["lengths"][b]
        for h in range(count):
            for t in range(length):
                seen = [s for s in range(end) if sees(problem, t, s)]
                pairs = [(query[b, h, t], key[b, h * key.shape[1] // count, s]) for s in seen]
                expected = plain_entropy(problem, pairs, width) if t < end else math.nan
                assert truth[b, h, t].item() == pytest.approx(expected, abs=1e-9, nan_ok=True)


def sees(problem: dict[str, object], t: int, s: int) -> bool:
    near = problem["window"] is None or abs(t - s) < problem["window"]
    return near and (s <= t or not problem["causal"])


def plain_entropy(problem: dict[str, object], pairs: list[tuple[Tensor, Tensor]], width: int) -> float:
    scale, cap = problem["scale"] or width**-0.5, problem["softcap"]
    x = [scale * (q.double() @ k.double()).item() for q, k in pairs]
    x = x if cap is None else [cap * math.tanh(v / cap) for v in x]
    if not all(map(math.isfinite, x)):
        return math.nan
    total = math.fsum(math.exp(v - max(x)) for v in x)
    p = [math.exp(v - max(x)) / total for v in x]
    return -math.fsum(v * math.log(v) for v in p if v > 0)


def test_attention_has_known_values() -> None:
    query, key = torch.zeros(1, 2, 6, 4), torch.zeros(1, 1, 6, 4)
    for backend in ("reference", "torch"):
        causal = attention_entropy(query, key, backend=backend)
        torch.testing.assert_close(causal[0, 1].float(), torch.arange(1, 7).float().log())
        assert attention_entropy(query, key, window=1, backend=backend).eq(0).all()
        whole = attention_entropy(query, key, causal=False, lengths=[4], backend=backend)
        assert whole[0, 0, 3].item() == pytest.approx(math.log(4)) and whole[0, 0, 4].isnan()


@settings(max_examples=150, deadline=None)
@given(hidden=vectors())
def test_activation_in_torch_agrees_with_the_reference(hidden: Tensor) -> None:
    ours = activation_entropy(hidden, backend="torch")
    truth = activation_entropy(hidden, backend="reference")
    assert ours.shape == hidden.shape[:-1]
    torch.testing.assert_close(ours.double(), truth, atol=1e-5, rtol=0, equal_nan=True)


def test_activation_has_known_values() -> None:
    hidden = torch.tensor([[1.0, 0, 0, 0], [2, -2, 2, -2], [0, 0, 0, 0], [math.inf, 0, 0, 0], [3, 4, 0, 0]])
    p = (9 / 25, 16 / 25)
    expected = [0.0, math.log(4), math.nan, math.nan, -sum(x * math.log(x) for x in p)]
    for backend in ("reference", "torch"):
        values = activation_entropy(hidden, backend=backend).tolist()
        assert values == pytest.approx(expected, abs=1e-6, nan_ok=True)


HEADS = {"query": torch.zeros(1, 4, 3, 2), "key": torch.zeros(1, 2, 3, 2)}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"query": torch.zeros(3, 2)}, ValueError, r"query: found shape \(3, 2\), expected \[B, H, T, E\]"),
        ({"query": torch.zeros(1, 4, 3, 2).int()}, TypeError, "query: found torch.int32"),
        ({"key": torch.zeros(1, 2, 4, 2)}, ValueError, r"key: found shape \(1, 2, 4, 2\), expected \[1, Hkv"),
        (
            {"key": torch.zeros(1, 3, 3, 2)},
            ValueError,
            "key: found 3 heads, expected a divisor of the query's 4",
        ),
        ({"key": torch.zeros(1, 2, 3, 2).half()}, TypeError, "key: found torch.float16"),
        ({"window": 0}, ValueError, "window: found 0"),
        ({"softcap": 0.0}, ValueError, "softcap: found 0.0"),
        ({"lengths": [4]}, ValueError, "lengths: found 4, expected 0 to 3"),
        ({"lengths": [1, 1]}, ValueError, r"lengths: found shape \(2,\), expected \(1,\)"),
        ({"lengths": [0.5]}, TypeError, "lengths: found torch.float32"),
        ({"backend": "trition"}, ValueError, 'did you mean "triton"'),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        attention_entropy(**(HEADS | arguments))


def test_wrong_hidden_vectors_are_named() -> None:
    with pytest.raises(ValueError, match=r"hidden: found shape \(2, 0\)"):
        activation_entropy(torch.zeros(2, 0))
    with pytest.raises(TypeError, match=r"hidden: found torch\.int64"):
        activation_entropy(torch.zeros(2, 3).long())


@pytest.mark.parametrize("backend", available_backends())
@pytest.mark.parametrize("softcap", [None, 20.0])
def test_collision_entropy_is_that_of_the_probabilities(backend: str, softcap: float | None) -> None:
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(40, 32, generator=generator) * torch.linspace(0, 8, 40)[:, None]
    hidden[7, 3] = math.nan
    head = Unembedding(
        torch.randn(2000, 32, generator=generator),
        bias=torch.randn(2000, generator=generator),
        scale=0.5,
        softcap=softcap,
        vocab_size=1990,
    )
    ours = lens_statistics(hidden, head, backend=backend)
    found = collision_entropy(hidden, head, ours.logsumexp, backend=backend)
    p = torch.softmax(whole_logits(hidden, head), dim=1)
    truth = -p.square().sum(dim=1).log()
    torch.testing.assert_close(found.double(), truth, atol=1e-4, rtol=0, equal_nan=True)
    known = ~truth.isnan()
    assert (found[known] <= ours.entropy[known] + 1e-4).all() and found[0] == pytest.approx(float(truth[0]))
