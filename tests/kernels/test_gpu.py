"""The Triton kernels on a real device, over the same problems as everywhere: `make gpu`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from attrs import evolve
from head_problems import heads, vectors
from hypothesis import given, settings
from lens_problems import FLOATS, assert_close, problems
from torch import Tensor

from kernels import (
    LensStatistics,
    Unembedding,
    activation_entropy,
    attention_entropy,
    available_backends,
    choose_backend,
    lens_logits,
    lens_statistics,
)
from kernels.lens_checks import LIMIT, largest_error
from kernels.lens_reference import whole_logits

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA or ROCm device"),
]


def on_device(problem: dict[str, object]) -> dict[str, object]:
    head = problem["unembedding"]
    bias = None if head.bias is None else head.bias.cuda()
    moved = evolve(head, weight=head.weight.cuda(), bias=bias)
    return problem | {"hidden": problem["hidden"].cuda(), "unembedding": moved}


def back(statistics: LensStatistics) -> LensStatistics:
    names = (*FLOATS, "top_ids", "watch_rank")
    tensors = {name: getattr(statistics, name) for name in names}
    return evolve(statistics, **{name: value.cpu() for name, value in tensors.items() if value is not None})


def drawn(rows: int, vocabulary: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Unembedding]:
    generator = torch.Generator().manual_seed(rows)
    hidden = torch.randn(rows, width, generator=generator).to(dtype).cuda()
    weight = (torch.randn(vocabulary, width, generator=generator) * 3 / width**0.5).to(dtype).cuda()
    return hidden, Unembedding(weight)


def test_it_is_chosen() -> None:
    assert "triton" in available_backends()
    assert choose_backend(torch.device("cuda")) == "triton"


@settings(max_examples=100, deadline=None)
@given(problem=problems())
def test_drawn_problems_agree_with_the_reference(problem: dict[str, object]) -> None:
    ours = lens_statistics(**on_device(problem), backend="triton")
    assert_close(back(ours), lens_statistics(**problem, backend="reference"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("rows", [1, 17, 64, 65, 700])
def test_every_tile_agrees_with_the_reference(rows: int, dtype: torch.dtype) -> None:
    hidden, head = drawn(rows, 5000, 520, dtype)
    final = [row // 9 * 9 for row in range(rows)]
    arguments = {"watch_ids": [4999, 0, 77], "final_rows": final}
    ours = lens_statistics(hidden, head, **arguments, backend="triton")
    assert_close(back(ours), back(lens_statistics(hidden, head, **arguments, backend="reference")))


@pytest.mark.parametrize("extras", ["", "bias", "softcap", "bias softcap"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("rows", [3, 50, 300])
def test_a_watched_logit_is_the_very_number_of_the_product(
    rows: int, dtype: torch.dtype, extras: str
) -> None:
    """Then every rank occurs once; coarse logits make thousands of ties, which one wrong bit would show."""
    hidden, head = drawn(rows, 1000, 512, dtype)
    head = Unembedding(
        (head.weight * 4).round() / 4,
        bias=torch.arange(1000, device="cuda").remainder(3).to(dtype) if "bias" in extras else None,
        softcap=30.0 if "softcap" in extras else None,
    )
    hidden = (hidden * 2).round() / 2
    ours = lens_statistics(hidden, head, watch_ids=range(1000), top_k=8, backend="triton")
    every = torch.arange(1000, device="cuda").expand(rows, 1000)
    assert torch.equal(ours.watch_rank.sort(dim=1).values, every)
    assert torch.equal(ours.watch_rank.argsort(dim=1)[:, :8], ours.top_ids)


def test_the_same_bits_every_time() -> None:
    hidden, head = drawn(500, 20000, 512, torch.bfloat16)
    final = [499] * 500
    runs = [
        lens_statistics(hidden, head, watch_ids=[1, 5], final_rows=final, backend="triton") for _ in "123"
    ]
    for other in runs[1:]:
        for name in (*FLOATS, "top_ids", "watch_rank"):
            assert torch.equal(getattr(runs[0], name), getattr(other, name)), name


def test_the_error_is_no_larger_than_that_of_eager_torch() -> None:
    hidden, head = drawn(256, 32000, 1024, torch.bfloat16)
    truth = lens_statistics(hidden, head, backend="reference").entropy
    ours = lens_statistics(hidden, head, backend="triton").entropy
    logp = torch.log_softmax(torch.nn.functional.linear(hidden, head.weight), dim=1)
    eager = -(logp.exp() * logp).sum(dim=1)
    assert (ours - truth).abs().max() <= (eager - truth).abs().max() + 1e-4


def test_scratch_does_not_grow_with_the_vocabulary() -> None:
    peaks = []
    for vocabulary in (20_000, 120_000):
        hidden, head = drawn(2048, vocabulary, 256, torch.bfloat16)
        lens_statistics(hidden, head, watch_ids=[0], backend="triton")
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        lens_statistics(hidden, head, watch_ids=[0], backend="triton")
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[1] <= 1.2 * peaks[0] and peaks[1] < 64 * 2**20


@pytest.fixture(params=["highest", "high"])
def _precision(request: pytest.FixtureRequest) -> Iterator[None]:
    """Float32 products as the process may have asked for them."""
    torch.set_float32_matmul_precision(request.param)
    yield
    torch.set_float32_matmul_precision("highest")


@pytest.mark.usefixtures("_precision")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_every_backend_keeps_its_bound(backend: str, dtype: torch.dtype) -> None:
    error, what = largest_error(backend, torch.device("cuda"), dtype)
    assert error <= LIMIT, what


@pytest.mark.usefixtures("_precision")
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_whole_logits_are_float32_and_have_gradients(dtype: torch.dtype, autocast: bool) -> None:
    hidden, head = drawn(64, 20_000, 1024, dtype)
    hidden.requires_grad_()
    head.weight.requires_grad_()
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=autocast):
        logits = lens_logits(hidden, head)
    operand = torch.bfloat16 if autocast else dtype
    exact = [part.detach().to(operand).double().requires_grad_() for part in (hidden, head.weight)]
    truth = whole_logits(exact[0], Unembedding(exact[1]))
    assert logits.dtype == torch.float32 and (logits - truth).abs().max() <= 5e-5
    slopes = torch.randn_like(logits).softmax(dim=1)
    logits.backward(slopes)
    truth.backward(slopes.double())
    for leaf, true in zip((hidden, head.weight), exact, strict=True):
        assert (leaf.grad - true.grad).abs().max() <= 2**-7 * true.grad.abs().max()


@settings(max_examples=60, deadline=None)
@given(problem=heads(longest=300))
def test_attention_agrees_with_the_reference(problem: dict[str, object]) -> None:
    tensors = {name: problem[name].cuda() for name in ("query", "key")}
    ours = attention_entropy(**(problem | tensors), backend="triton").cpu()
    truth = attention_entropy(**problem, backend="reference")
    torch.testing.assert_close(ours.double(), truth, atol=1e-4, rtol=0, equal_nan=True)


@pytest.mark.parametrize("width", [64, 96, 128, 256, 512])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_attention_of_usual_widths(width: int, dtype: torch.dtype) -> None:
    query, key = (torch.randn(2, count, 333, width, device="cuda").to(dtype) for count in (8, 2))
    ours = attention_entropy(query, key, lengths=[333, 100], backend="triton")
    truth = attention_entropy(query, key, lengths=[333, 100], backend="reference")
    torch.testing.assert_close(ours.double(), truth, atol=1e-4, rtol=0, equal_nan=True)


@settings(max_examples=60, deadline=None)
@given(hidden=vectors())
def test_activation_agrees_with_the_reference(hidden: Tensor) -> None:
    ours = activation_entropy(hidden.cuda(), backend="triton").cpu()
    truth = activation_entropy(hidden, backend="reference")
    torch.testing.assert_close(ours.double(), truth, atol=1e-5, rtol=0, equal_nan=True)
