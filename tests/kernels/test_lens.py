"""Both backends against independent arithmetic, over drawn shapes, ties, padding, NaN and soft-caps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from facts import facts
from hypothesis import given, settings
from hypothesis import strategies as st
from lens_problems import arguments, assert_close, problems
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kernels import LensStatistics, Unembedding, lens_statistics
from kernels.backends import LENS_BY_ROW, OPERATIONS, why_not
from kernels.lens_reference import statistics_from_logits
from kernels.lens_torch import TiledProjection, exact_top, torch_tiled

CPU = torch.device("cpu")
BACKENDS = [name for name in OPERATIONS[LENS_BY_ROW] if not why_not(name, CPU, LENS_BY_ROW)]


def tiled(problem: dict[str, object], tile: int, rows: int) -> LensStatistics:
    return torch_tiled(
        *arguments(problem),
        tile=tile,
        rows=rows,
    )


@settings(max_examples=150, deadline=None)
@given(problem=problems(), tile=st.integers(1, 64), rows=st.integers(1, 5))
def test_tiled_agrees_with_the_reference(problem: dict[str, object], tile: int, rows: int) -> None:
    truth = lens_statistics(**problem, backend="reference")
    ours = tiled(problem, tile, rows)
    assert_close(ours, truth)


@settings(max_examples=150, deadline=None)
@given(problem=problems(), tile=st.integers(1, 64), rows=st.integers(1, 5))
def test_ranks_and_top_tokens_are_those_of_the_float32_product(
    problem: dict[str, object], tile: int, rows: int
) -> None:
    """The strict order is checked on the very float32 logits, assembled tile by tile as the backend does."""
    projection = TiledProjection(problem["unembedding"], tile)
    final = problem["final_rows"]
    order = torch.arange(len(problem["hidden"]))
    if final is not None:
        order = torch.argsort(torch.tensor(final, dtype=torch.int64), stable=True)
    logits = torch.zeros(len(order), problem["unembedding"].vocab_size)
    for block in torch.split(order, rows):
        for start, end in projection.tiles():
            logits[block, start:end] = projection.logits(problem["hidden"][block], start, end)
    truth = statistics_from_logits(
        logits, torch.tensor(problem["watch_ids"], dtype=torch.int64), problem["top_k"]
    )
    ours = tiled(problem, tile, rows)
    assert torch.equal(ours.watch_rank, truth.watch_rank)
    assert torch.equal(ours.top_ids, truth.top_ids)


@settings(max_examples=60, deadline=None)
@given(problem=problems())
def test_the_reference_agrees_with_plain_arithmetic(problem: dict[str, object]) -> None:
    truth = lens_statistics(**problem, backend="reference")
    for row in range(len(problem["hidden"])):
        x = _plain_logits(problem, row)
        if not all(map(math.isfinite, x)):
            assert math.isnan(truth.entropy[row]) and (truth.watch_rank[row] == -1).all()
            continue
        top = max(x)
        lse = top + math.log(math.fsum(math.exp(v - top) for v in x))
        p = [math.exp(v - lse) for v in x]
        assert truth.logsumexp[row].item() == pytest.approx(lse, abs=1e-9)
        assert truth.entropy[row].item() == pytest.approx(
            -math.fsum(q * (v - lse) for q, v in zip(p, x, strict=True)), abs=1e-9
        )
        order = sorted(range(len(x)), key=lambda v: (-x[v], v))
        ids = problem["watch_ids"]
        ids = ids[row] if ids and isinstance(ids[0], list) else ids
        assert truth.watch_rank[row].tolist() == [order.index(token) for token in ids]
        kept = min(problem["top_k"], len(x))
        assert truth.top_ids[row].tolist() == order[:kept] + [-1] * (problem["top_k"] - kept)
        assert truth.watch_mass[row].item() == pytest.approx(math.fsum(p[v] for v in set(ids)), abs=1e-9)


def _plain_logits(problem: dict[str, object], row: int) -> list[float]:
    hidden = problem["hidden"][row].double()
    head = problem["unembedding"]
    x = []
    for token in range(head.vocab_size):
        value = (hidden @ head.weight[token].double()).item()
        value = head.scale * (value + (0.0 if head.bias is None else head.bias[token].item()))
        x.append(value if head.softcap is None else head.softcap * math.tanh(value / head.softcap))
    # Two float64 products of whole numbers agree exactly; others only nearly, so let neither break a tie.
    whole = statistics_logits(problem)[row].tolist()
    return [b if abs(a - b) <= 1e-12 * max(1, abs(a)) else a for a, b in zip(x, whole, strict=True)]


def statistics_logits(problem: dict[str, object]) -> Tensor:
    head = problem["unembedding"]
    x = problem["hidden"].double() @ head.tokens.double().T
    x = head.scale * (x if head.token_bias is None else x + head.token_bias.double())
    return x if head.softcap is None else head.softcap * torch.tanh(x / head.softcap)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_identities(backend: str) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(7, 16, generator=generator), torch.randn(200, 16, generator=generator)
    head = Unembedding(weight)
    final = torch.full((7,), 6)
    whole = lens_statistics(hidden, head, watch_ids=[3, 9], final_rows=final, backend=backend)
    assert ((whole.entropy >= 0) & (whole.entropy <= math.log(200) + 1e-5)).all()
    assert (whole.kl_final >= 0).all() and whole.kl_final[6] == 0 and whole.js_final[6] == 0
    assert (whole.js_final <= math.log(2) + 1e-6).all()

    shuffled = torch.randperm(200, generator=generator)
    places = torch.argsort(shuffled)
    permuted = lens_statistics(
        hidden, Unembedding(weight[shuffled]), watch_ids=places[[3, 9]], backend=backend
    )
    torch.testing.assert_close(permuted.entropy, whole.entropy)
    assert torch.equal(permuted.watch_rank, whole.watch_rank)
    assert torch.equal(shuffled[permuted.top_ids], whole.top_ids)

    shifted = lens_statistics(
        hidden, Unembedding(weight, bias=torch.full((200,), 5.0)), watch_ids=[3, 9], backend=backend
    )
    torch.testing.assert_close(shifted.logsumexp, whole.logsumexp + 5)
    torch.testing.assert_close(shifted.watch_logprob, whole.watch_logprob, atol=1e-5, rtol=1e-5)

    halves = [lens_statistics(part, head, watch_ids=[3], backend=backend) for part in hidden.split(4)]
    torch.testing.assert_close(torch.cat([half.entropy for half in halves]), whole.entropy)


def test_bfloat16_statistics_are_accumulated_in_float32() -> None:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(5, 64, generator=generator).bfloat16()
    head = Unembedding(torch.randn(3000, 64, generator=generator).bfloat16())
    ours = lens_statistics(hidden, head, backend="torch")
    truth = lens_statistics(hidden, head, backend="reference")
    torch.testing.assert_close(ours.entropy.double(), truth.entropy, atol=1e-4, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_ids_by_row_are_those_of_each_row_alone(backend: str) -> None:
    """Watching every row's own tokens at once is watching them row by row; repeats count once in the set."""
    generator = torch.Generator().manual_seed(2)
    hidden, weight = torch.randn(70, 24, generator=generator), torch.randn(9000, 24, generator=generator)
    head, ids = Unembedding(weight), torch.randint(0, 9000, (70, 3), generator=generator)
    ids[5] = ids[5, 0]
    whole = lens_statistics(hidden, head, watch_ids=ids, final_rows=[3] * 70, backend=backend)
    for row in (0, 5, 33, 69):
        alone = lens_statistics(hidden, head, watch_ids=ids[row], backend=backend)
        assert torch.equal(whole.watch_rank[row], alone.watch_rank[row])
        for name in ("watch_logprob", "watch_mass", "watch_entropy", "entropy"):
            torch.testing.assert_close(getattr(whole, name)[row], getattr(alone, name)[row], msg=name)
    torch.testing.assert_close(whole.watch_mass[5], whole.watch_logprob[5, 0].exp())
    assert whole.watch_entropy[5] == 0


def test_equal_logits_rank_by_token_id() -> None:
    ours = lens_statistics(
        torch.ones(2, 4), Unembedding(torch.zeros(50, 4)), watch_ids=[0, 7, 49], top_k=3, backend="torch"
    )
    assert ours.watch_rank.tolist() == [[0, 7, 49]] * 2
    assert ours.top_ids.tolist() == [[0, 1, 2]] * 2
    values, columns = exact_top(torch.tensor([[1.0, 2.0, 2.0, 2.0, 0.0]]), 2)
    assert values.tolist() == [[2.0, 2.0]] and columns.tolist() == [[1, 2]]


def test_no_tensor_of_rows_by_vocabulary_is_ever_made() -> None:
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple | list) else [result]:
                if isinstance(tensor, Tensor) and tensor.ndim == 2:
                    largest = max(largest, tensor.numel())
            return result

    rows, vocabulary = 64, 4000
    hidden, weight = torch.randn(rows, 8), torch.randn(vocabulary, 8)
    watch, final = torch.tensor([1, 2]), torch.full((rows,), rows - 1)
    with Watch():
        torch_tiled(hidden, Unembedding(weight), watch, 5, final, tile=100, rows=16)
    assert largest <= max(weight.numel(), 16 * 100) < rows * vocabulary


WEIGHT = torch.zeros(5, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"hidden": torch.zeros(3)}, ValueError, r"hidden: found shape \(3,\), expected \[R, D\]"),
        ({"hidden": torch.zeros(2, 4)}, ValueError, "hidden: found D = 4, expected the weight's D = 3"),
        ({"hidden": torch.zeros(2, 3, dtype=torch.int64)}, TypeError, "hidden: found torch.int64"),
        ({"watch_ids": [4]}, ValueError, "watch_ids: found 4, expected 0 to 3"),
        ({"watch_ids": [[0], [4]]}, ValueError, "watch_ids: found 4, expected 0 to 3"),
        ({"watch_ids": [[0]]}, ValueError, r"watch_ids: found shape \(1, 1\), expected .*R = 2"),
        ({"watch_ids": [0.5]}, TypeError, "watch_ids: found torch.float32"),
        ({"final_rows": [0]}, ValueError, "final_rows: found 1 entries, expected one per row, 2"),
        ({"final_rows": [0, 2]}, ValueError, "final_rows: found 2, expected 0 to 1"),
        ({"top_k": -1}, ValueError, "top_k: found -1"),
        ({"backend": "torhc"}, ValueError, 'did you mean "torch"'),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], error: type, message: str) -> None:
    head = Unembedding(WEIGHT, vocab_size=4)
    with pytest.raises(error, match=message):
        lens_statistics(**({"hidden": torch.zeros(2, 3), "unembedding": head} | arguments))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"weight": torch.zeros(3)}, ValueError, r"weight: found shape \(3,\), expected \[V, D\]"),
        ({"weight": torch.zeros(5, 3).int()}, TypeError, "weight: found torch.int32"),
        ({"bias": torch.zeros(4)}, ValueError, r"bias: found shape \(4,\), expected \(5,\)"),
        ({"bias": torch.zeros(5).int()}, TypeError, "bias: found torch.int32"),
        ({"vocab_size": 6}, ValueError, "vocab_size: found 6, expected 1 to 5"),
        ({"softcap": 0.0}, ValueError, "softcap: found 0.0"),
    ],
)
def test_a_wrong_unembedding_is_named(arguments: dict[str, object], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Unembedding(**({"weight": WEIGHT} | arguments))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"top_k": 1.5}, ("top_k", "1.5", "whole number")),
        ({"top_k": None}, ("top_k", "None", "whole number")),
        ({"watch_ids": ["a"]}, ("watch_ids", "list", "whole numbers")),
        ({"watch_ids": None}, ("watch_ids", "NoneType", "whole numbers")),
        ({"hidden": [[0.0, 1.0]]}, ("hidden", "list", "tensor")),
    ],
)
def test_what_is_no_tensor_or_number_is_named(options: dict[str, Any], words: tuple[str, ...]) -> None:
    arguments = {"hidden": torch.zeros(1, 2), "unembedding": Unembedding(torch.zeros(3, 2))} | options
    with pytest.raises(TypeError, match=facts(*words)):
        lens_statistics(**arguments)


@pytest.mark.parametrize(
    "wrong", [{"scale": "a"}, {"scale": None}, {"scale": True}, {"softcap": "a"}, {"softcap": True}]
)
def test_a_scale_or_cap_that_is_no_number_is_named(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(TypeError, match=facts(name, "number")):
        Unembedding(torch.zeros(3, 2), **wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"scale": math.nan},
        {"scale": math.inf},
        {"softcap": math.inf},
        {"softcap": 1e300},
        {"softcap": 1e-300},
    ],
)
def test_a_scale_or_cap_that_no_float32_holds_is_named(wrong: dict[str, float]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=facts(name, "number")):
        Unembedding(torch.zeros(3, 2), **wrong)
