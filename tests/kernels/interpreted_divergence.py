"""KL and its gradient by the Triton backend, in Triton's interpreter; collected by `test_triton.py`."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lens_problems import problems
from torch import Tensor

from kernels import Unembedding, choose_backend, lens_divergence
from kernels.gpu import lens_gradients


@settings(max_examples=12, deadline=None)
@given(problem=problems(), tile=st.sampled_from([40, 128, 32768]), limit=st.sampled_from([3000, 10**9]))
def test_agrees_with_the_reference(problem: dict[str, object], tile: int, limit: int) -> None:
    hidden, head = problem["hidden"], problem["unembedding"]
    layers = torch.stack([hidden.roll(1, 0), hidden])
    kl, gradient = lens_divergence(layers, hidden, head, backend="reference")
    ours = lens_gradients.triton_backend(layers, hidden, head, tile=tile, logit_bytes=limit)
    finite = torch.nan_to_num(hidden, 0.0, 0.0, 0.0).abs()
    magnitude = float((finite @ head.tokens.abs().T).max()) * abs(head.scale) if finite.numel() else 0.0
    slack = 1e-4 + 4e-6 * magnitude
    torch.testing.assert_close(ours[0].double(), kl, rtol=1e-5, atol=slack, equal_nan=True)
    reach = float(head.tokens.abs().max()) * abs(head.scale)
    torch.testing.assert_close(
        ours[1].double(), gradient, rtol=1e-4, atol=reach * min(2, 10 * slack), equal_nan=True
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_slopes_of_half_precision_come_in_two_parts(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(lens_gradients, "multiplies_halves", lambda *_: True)

    def exact(high: Tensor, low: Tensor, weight: Tensor) -> Tensor:
        assert high.dtype == low.dtype == dtype
        return (high.double() + low.double()).div(lens_gradients.LIFT).mm(weight.double()).float()

    monkeypatch.setattr(lens_gradients, "split_product", exact)
    generator = torch.Generator().manual_seed(0)
    hidden = 3 * torch.randn(2, 9, 16, generator=generator)
    head = Unembedding(torch.randn(300, 16, generator=generator).to(dtype), softcap=30.0)
    kl, gradient = lens_divergence(hidden, hidden[1], head, backend="triton")
    truth = lens_divergence(hidden, hidden[1], head, backend="reference")
    torch.testing.assert_close(kl.double(), truth[0], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(gradient.double(), truth[1], rtol=1e-4, atol=1e-4)
    # Some CPUs' products give equal rows other last bits, by where a row stands.
    rounding = torch.finfo(torch.float32).eps * float((hidden[1] @ head.weight.T.float()).abs().max())
    assert kl[1].abs().max() <= rounding
    assert gradient[1].abs().max() <= rounding * float(head.weight.abs().max())


@pytest.mark.parametrize("spread", [0.1, 30.0])
def test_logits_of_any_size(spread: float) -> None:
    generator = torch.Generator().manual_seed(1)
    head = Unembedding(torch.randn(700, 24, generator=generator) / 24**0.5)
    hidden = spread * torch.randn(2, 5, 24, generator=generator)
    ours = lens_divergence(hidden, hidden[0], head, backend="triton")
    truth = lens_divergence(hidden, hidden[0], head, backend="reference")
    for mine, true in zip(ours, truth, strict=True):
        torch.testing.assert_close(mine.double(), true, rtol=1e-5, atol=1e-4)


def test_rounded_slopes_go_as_one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lens_gradients, "multiplies_halves", lambda *_: True)

    def exact(high: Tensor, low: None, weight: Tensor) -> Tensor:
        assert low is None and high.dtype == torch.bfloat16
        return high.double().div(lens_gradients.LIFT).mm(weight.double()).float()

    monkeypatch.setattr(lens_gradients, "split_product", exact)
    generator = torch.Generator().manual_seed(0)
    hidden = 3 * torch.randn(2, 9, 16, generator=generator)
    head = Unembedding(torch.randn(300, 16, generator=generator).bfloat16())
    _, gradient = lens_divergence(hidden, hidden[1], head, rounded_slopes=True, backend="triton")
    _, truth = lens_divergence(hidden, hidden[1], head, backend="reference")
    off = (gradient.double() - truth).abs().max() / head.weight.abs().max()
    assert 1e-4 < off < 1e-2


def test_it_serves_by_name() -> None:
    assert choose_backend(torch.device("cpu"), "triton", "lens_divergence") == "triton"
