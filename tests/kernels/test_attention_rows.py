"""Attention entropy of chosen rows: against the whole matrix's, the reference and plain arithmetic."""

from __future__ import annotations

import math

import pytest
import torch
from head_problems import heads
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels import attention_entropy, attention_row_entropy
from kernels import attention_row_entropies as attention_rows
from kernels.attention_entropies import Scoring


@st.composite
def rows(draw: st.DrawFn) -> dict[str, object]:
    """A few rows of a drawn attention, under a drawn mask."""
    problem = draw(heads())
    query, key = problem["query"], problem["key"]
    batch, count, length, _ = query.shape
    chosen = draw(st.lists(st.integers(0, length - 1), max_size=3)) if length else []
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    shape = (draw(st.sampled_from([1, batch or 1])), draw(st.sampled_from([1, count])), len(chosen), length)
    seen = torch.rand(shape, generator=generator) < 0.7
    added = torch.randn(shape, generator=generator)
    hidden = draw(st.sampled_from([-math.inf, torch.finfo(torch.float32).min]))
    return {
        "query": query[:, :, chosen],
        "key": key,
        "mask": draw(st.sampled_from([None, seen, torch.where(seen, added, hidden)])),
        "scale": problem["scale"],
        "softcap": problem["softcap"],
        "sinks": draw(st.sampled_from([None, torch.linspace(-3, 60, count)])),
    }


@settings(max_examples=150, deadline=None)
@given(problem=rows(), keys=st.integers(1, 50))
def test_rows_in_torch_agree_with_the_reference(problem: dict[str, object], keys: int) -> None:
    truth = attention_row_entropy(**problem, backend="reference")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_rows, "KEYS", keys)
        ours = attention_row_entropy(**problem, backend="torch")
    torch.testing.assert_close(ours.double(), truth, atol=1e-4, rtol=0, equal_nan=True)


@settings(max_examples=50, deadline=None)
@given(problem=heads(longest=12))
def test_rows_are_those_of_the_whole_attention(problem: dict[str, object]) -> None:
    query, key = problem["query"], problem["key"]
    whole = attention_entropy(**problem, backend="reference")
    lengths, places = problem["lengths"], torch.arange(query.shape[2])
    ends = torch.tensor([query.shape[2]] * len(query) if lengths is None else lengths, dtype=torch.int64)
    scoring = Scoring(1.0, problem["causal"], problem["window"], None)
    ours = attention_row_entropy(
        query, key, mask=scoring.visible(places, places, ends)[:, None],
        scale=problem["scale"], softcap=problem["softcap"], backend="reference",
    )  # fmt: skip
    padded = (places >= ends[:, None])[:, None].expand_as(whole)
    torch.testing.assert_close(ours[~padded], whole[~padded], equal_nan=True)


@settings(max_examples=50, deadline=None)
@given(problem=rows())
def test_the_reference_agrees_with_plain_arithmetic(problem: dict[str, object]) -> None:
    truth = attention_row_entropy(**problem, backend="reference")
    for b, h, p in torch.cartesian_prod(*map(torch.arange, truth.shape)).tolist():
        expected = plain(problem, b, h, p)
        assert truth[b, h, p].item() == pytest.approx(expected, abs=1e-9, nan_ok=True)


def plain(problem: dict[str, object], b: int, h: int, p: int) -> float:
    query, key, mask, cap = (problem[name] for name in ("query", "key", "mask", "softcap"))
    scale = problem["scale"] or query.shape[3] ** -0.5
    scores = []
    for j in range(key.shape[2]):
        x = scale * (query[b, h, p].double() @ key[b, h * key.shape[1] // query.shape[1], j].double()).item()
        x = x if cap is None else cap * math.tanh(x / cap)
        added = True if mask is None else mask.expand(len(query), query.shape[1], -1, -1)[b, h, p, j].item()
        if isinstance(added, bool):
            scores += [x] if added else []
        elif added > torch.finfo(torch.float32).min:
            scores.append(x + added)
    if not scores or not all(map(math.isfinite, scores)):
        return math.nan
    sink = [] if problem["sinks"] is None else [problem["sinks"][h].item()]
    top = max(scores + sink)
    total = math.fsum(math.exp(x - top) for x in scores + sink)
    weights = [math.exp(x - top) / total for x in scores]
    return -math.fsum(w * math.log(w) for w in weights if w > 0)


def test_scratch_does_not_grow_with_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    scores = attention_rows.head_scores

    def counted(query: Tensor, key: Tensor, scoring: Scoring) -> Tensor:
        found = scores(query, key, scoring)
        made.append(found.numel())
        return found

    monkeypatch.setattr(attention_rows, "head_scores", counted)
    attention_row_entropy(torch.zeros(1, 4, 2, 8), torch.zeros(1, 2, 5000, 8), backend="torch")
    assert max(made) == 4 * 2 * attention_rows.KEYS


FITTING = {"query": torch.zeros(2, 4, 3, 2), "key": torch.zeros(2, 2, 5, 2)}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"key": torch.zeros(1, 2, 5, 2)}, ValueError, r"key: found shape .*, expected \[2, Hkv, 5, 2\]"),
        ({"mask": torch.ones(2, 1, 3, 4)}, ValueError, r"mask: .*expected \[2 or 1, 4 or 1, 3, 5\]"),
        ({"mask": torch.ones(2, 2, 3, 5)}, ValueError, r"mask: found shape \(2, 2, 3, 5\)"),
        ({"mask": torch.ones(2, 1, 3, 5).long()}, TypeError, r"mask: found torch.int64, expected bool"),
        ({"sinks": torch.zeros(2)}, ValueError, r"sinks: found shape \(2,\), expected \(4,\)"),
        ({"softcap": -1.0}, ValueError, "softcap: found -1.0"),
        ({"backend": "triton"}, ValueError, 'backend: found "triton", expected auto, reference, torch'),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        attention_row_entropy(**(FITTING | arguments))
