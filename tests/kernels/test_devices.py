"""The torch backend keeps its bounds on devices that round half-precision products and allow TF32."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from other_device import elsewhere, home
from torch import Tensor

from kernels import (
    Unembedding,
    attention_entropy,
    attention_row_entropy,
    lens_divergence,
    lens_logits,
    lens_statistics,
)
from kernels.lens_reference import whole_logits

DTYPES = [torch.bfloat16, torch.float16, torch.float32]
NAMES = (
    "entropy",
    "logsumexp",
    "max_prob",
    "watch_logprob",
    "watch_mass",
    "top_logprobs",
    "kl_final",
    "js_final",
)


@pytest.fixture(params=["ieee", "tf32"])
def _precision(request: pytest.FixtureRequest) -> Iterator[None]:
    """Float32 products as the process may have asked for them."""
    kept = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if request.param == "tf32" else "highest")
    yield
    assert (torch.get_float32_matmul_precision() == "high") == (request.param == "tf32")
    torch.set_float32_matmul_precision(kept)


def drawn(dtype: torch.dtype) -> tuple[Tensor, Unembedding]:
    """Rows whose largest logits are 5 to 60, as those of models are."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.linspace(1, 12, 40)[:, None]
    hidden = (torch.randn(40, 256, generator=generator) * spread).to(dtype)
    weight = (torch.randn(9000, 256, generator=generator) / 16).to(dtype)
    return hidden, Unembedding(weight)


def moved(head: Unembedding, move: object) -> Unembedding:
    return Unembedding(move(head.weight))


@pytest.mark.usefixtures("_precision")
@pytest.mark.parametrize("widens", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_statistics_keep_their_bound(dtype: torch.dtype, widens: bool) -> None:
    hidden, head = drawn(dtype)
    final = torch.arange(40) // 4 * 4
    truth = lens_statistics(hidden, head, watch_ids=range(300), final_rows=final, backend="reference")
    with elsewhere(widens=widens) as move:
        ours = lens_statistics(
            move(hidden), moved(head, move), watch_ids=range(300), final_rows=move(final), backend="torch"
        )
    for name in NAMES:
        off = (home(getattr(ours, name)).double() - getattr(truth, name)).abs().max()
        assert off <= 1e-4, (name, float(off))
    # Ranks are those of its own logits: they differ where logits are closer than rounding, and hardly there.
    assert (home(ours.watch_rank) - truth.watch_rank).abs().max() <= 1
    assert (home(ours.watch_rank) == truth.watch_rank).float().mean() > 0.995


@pytest.mark.parametrize("widens", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_rank_occurs_once(dtype: torch.dtype, widens: bool) -> None:
    hidden, head = drawn(dtype)
    with elsewhere(widens=widens) as move:
        ours = lens_statistics(
            move(hidden[:5]), Unembedding(move(head.weight[:400])), watch_ids=range(400), top_k=9,
            backend="torch",
        )  # fmt: skip
    ranks = home(ours.watch_rank)
    assert torch.equal(ranks.sort(dim=1).values, torch.arange(400).expand(5, 400))
    assert torch.equal(ranks.argsort(dim=1)[:, :9], home(ours.top_ids))


@pytest.mark.usefixtures("_precision")
@pytest.mark.parametrize("widens", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_divergence_and_gradient_keep_their_bounds(dtype: torch.dtype, widens: bool) -> None:
    hidden, head = drawn(dtype)
    layers = hidden.view(4, 10, -1)
    kl, gradient = lens_divergence(layers, layers[3], head, backend="reference")
    with elsewhere(widens=widens) as move:
        ours = lens_divergence(move(layers), move(layers[3]), moved(head, move), backend="torch")
    assert (home(ours[0]) - kl).abs().max() <= 1e-4
    # The bound is 1e-3 of the largest weight; slopes rounded to half precision would take nearly all of it.
    assert (home(ours[1]) - gradient).abs().max() <= 1e-4 * head.weight.abs().max()


@pytest.mark.usefixtures("_precision")
@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_keeps_its_bound(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = ((torch.randn(1, 2, 30, 64, generator=generator) * 4).to(dtype) for _ in "qk")
    truth = attention_entropy(query, key, backend="reference")
    rows = attention_row_entropy(query, key, backend="reference")
    with elsewhere(widens=True) as move:
        ours = attention_entropy(move(query), move(key), backend="torch")
        own_rows = attention_row_entropy(move(query), move(key), backend="torch")
    assert (home(ours) - truth).abs().max() <= 1e-4
    assert (home(own_rows) - rows).abs().max() <= 1e-4


@pytest.mark.usefixtures("_precision")
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("softcap", [None, 30.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_logits_are_float32_and_so_are_their_gradients(
    dtype: torch.dtype, softcap: float | None, autocast: bool
) -> None:
    """Operands are of the weight's type, or autocast's; nothing behind them is rounded to it."""
    hidden, head = drawn(dtype)
    operand = torch.bfloat16 if autocast else dtype
    rounded = hidden.to(operand), head.weight.to(operand)
    bias = torch.linspace(-1, 1, len(head.weight)).to(dtype)
    leaves = [hidden.float().clone().requires_grad_(), head.weight.clone().requires_grad_()]
    own = Unembedding(leaves[1], bias=bias, scale=0.5, softcap=softcap, vocab_size=8990)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        logits = lens_logits(leaves[0].view(4, 10, -1), own)
    truth = whole_logits(
        rounded[0], Unembedding(rounded[1], bias=bias, scale=0.5, softcap=softcap, vocab_size=8990)
    )
    assert logits.shape == (4, 10, 8990) and logits.dtype == torch.float32
    assert (logits.view(40, -1) - truth).abs().max() <= 5e-5
    slopes = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)).softmax(-1)
    logits.backward(slopes)
    exact = [part.double().requires_grad_() for part in rounded]
    whole_logits(
        exact[0], Unembedding(exact[1], bias=bias, scale=0.5, softcap=softcap, vocab_size=8990)
    ).backward(slopes.view(40, -1).double())
    for leaf, true in zip(leaves, exact, strict=True):
        assert leaf.grad.dtype == leaf.dtype
        coarse = (
            2**-8 if torch.bfloat16 in (operand, leaf.dtype) else 2**-11 if dtype == torch.float16 else 1e-5
        )
        assert (leaf.grad - true.grad).abs().max() <= coarse * true.grad.abs().max()


def test_whole_logits_need_no_second_copy_of_the_weight() -> None:
    """Where halves must be made float32, it is a tile at a time."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, Tensor) and result.dtype == torch.float32:
                largest = max(largest, result.numel())
            return result

    hidden, weight = torch.randn(3, 64).bfloat16(), torch.randn(40_000, 64).bfloat16()
    with Watch():
        lens_logits(hidden, Unembedding(weight))
    assert largest == 8192 * 64
