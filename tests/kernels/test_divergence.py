"""KL to the final layer and its gradient: the tiled ones, the reference, and autograd over whole logits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lens_problems import problems
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kernels import Unembedding, lens_divergence, lens_statistics
from kernels.lens_divergences import torch_tiled


@st.composite
def divergences(draw: st.DrawFn) -> tuple[Tensor, Tensor, Unembedding]:
    """Rows of a few layers, the final rows among them; ties, padding, NaN, soft-caps, scales and biases."""
    problem = draw(problems())
    hidden, head = problem["hidden"], problem["unembedding"]
    layers = draw(st.integers(1, 3))
    return torch.stack([hidden.roll(layer, 0) for layer in range(layers)]), hidden, head


@settings(max_examples=150, deadline=None)
@given(problem=divergences(), tile=st.integers(1, 64), rows=st.integers(1, 7))
def test_tiled_agrees_with_the_reference(
    problem: tuple[Tensor, Tensor, Unembedding], tile: int, rows: int
) -> None:
    hidden, final, head = problem
    kl, gradient = lens_divergence(hidden, final, head, backend="reference")
    ours_kl, ours_gradient = torch_tiled(hidden, final, head, tile=tile, rows=rows)
    # float32 logits round in proportion to the products they are sums of
    finite = torch.nan_to_num(hidden, 0.0, 0.0, 0.0).abs()
    magnitude = float((finite @ head.tokens.abs().T).max()) * abs(head.scale) if finite.numel() else 0.0
    slack = 1e-4 + 4e-6 * magnitude
    torch.testing.assert_close(ours_kl.double(), kl, rtol=1e-5, atol=slack, equal_nan=True)
    reach = float(head.tokens.abs().max()) * abs(head.scale)
    torch.testing.assert_close(
        ours_gradient.double(), gradient, rtol=1e-4, atol=reach * min(2, 10 * slack), equal_nan=True
    )


@settings(max_examples=60, deadline=None)
@given(problem=divergences())
def test_the_reference_is_what_autograd_gives(problem: tuple[Tensor, Tensor, Unembedding]) -> None:
    hidden, final, head = problem
    kl, gradient = lens_divergence(hidden, final, head, backend="reference")
    h = hidden.double().requires_grad_()

    def logprobs(rows: Tensor) -> Tensor:
        bias = 0.0 if head.token_bias is None else head.token_bias.double()
        y = head.scale * (torch.einsum("...d,vd->...v", rows, head.tokens.double()) + bias)
        return (y if head.softcap is None else head.softcap * (y / head.softcap).tanh()).log_softmax(-1)

    truth = torch.nn.functional.kl_div(
        logprobs(h), logprobs(final.double()).detach(), reduction="none", log_target=True
    ).sum(dim=-1)
    rows = truth.isfinite()
    (own,) = torch.autograd.grad(truth.sum(), h)
    torch.testing.assert_close(kl[rows], truth[rows].detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradient[rows], own[rows], rtol=1e-6, atol=1e-8 * (1 + own[rows].abs().sum()))


@settings(max_examples=40, deadline=None)
@given(problem=problems())
def test_the_divergence_is_the_statistics_kl(problem: dict[str, object]) -> None:
    hidden, head = problem["hidden"], problem["unembedding"]
    order = torch.arange(len(hidden)).roll(1)
    known = lens_statistics(hidden, head, final_rows=order, backend="reference").kl_final
    ours, _ = lens_divergence(hidden, hidden[order], head, backend="reference")
    torch.testing.assert_close(ours, known, rtol=1e-9, atol=1e-9, equal_nan=True)


def test_known_values() -> None:
    head = Unembedding(torch.eye(2))
    hidden, final = torch.tensor([[[math.log(3), 0.0]]]), torch.zeros(1, 2)
    for backend in ("reference", "torch"):
        kl, gradient = lens_divergence(hidden, final, head, backend=backend)
        assert kl.item() == pytest.approx(-0.5 * math.log(0.75), abs=1e-6)
        assert gradient.flatten().tolist() == pytest.approx([0.25, -0.25], abs=1e-6)
        kl, gradient = lens_divergence(final, final, head, backend=backend)
        assert kl.item() == 0 and gradient.eq(0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rows_are_taken_as_they_are(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 9, 16, generator=generator).to(dtype)
    head = Unembedding(torch.randn(300, 16, generator=generator).to(dtype))
    for ours, truth in zip(
        lens_divergence(hidden, hidden[1], head, backend="torch"),
        lens_divergence(hidden, hidden[1], head, backend="reference"),
        strict=True,
    ):
        torch.testing.assert_close(ours.double(), truth, rtol=1e-4, atol=1e-4)


def test_no_logits_of_all_rows_are_made() -> None:
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                largest = max(largest, result.numel())
            return result

    layers, positions, vocabulary = 4, 16, 4000
    hidden, weight = torch.randn(layers, positions, 8), torch.randn(vocabulary, 8)
    with Watch():
        torch_tiled(hidden, hidden[-1], Unembedding(weight), tile=100, rows=16)
    assert largest <= max(weight.numel(), 16 * 100) < layers * positions * vocabulary


FITTING = {
    "hidden": torch.zeros(2, 4, 3),
    "final": torch.zeros(4, 3),
    "unembedding": Unembedding(torch.zeros(5, 3)),
}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"final": torch.zeros(4)}, ValueError, r"final: found shape \(4,\), expected \[N, 3\]"),
        ({"final": torch.zeros(5, 3)}, ValueError, r"hidden: found shape .*, expected \[..., 5, 3\]"),
        ({"hidden": torch.zeros(2, 4, 3).int()}, TypeError, "hidden: found torch.int32"),
        ({"final": torch.zeros(4, 3).int()}, TypeError, "final: found torch.int32"),
        ({"backend": "c"}, ValueError, 'backend: found "c", expected auto, reference, torch'),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        lens_divergence(**(FITTING | arguments))
