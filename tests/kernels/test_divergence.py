"""KL to the final layer and its gradient: the tiled ones, the reference, and autograd over whole logits."""

from __future__ import annotations

import math
import platform
import sys
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lens_problems import problems
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kernels import Unembedding, backends, choose_backend, cpu_paths, lens_divergence, lens_statistics
from kernels.backends import OPERATIONS, why_not
from kernels.lens_divergences_torch import torch_tiled

CPU = torch.device("cpu")
BACKENDS = [name for name in OPERATIONS["lens_divergence"] if not why_not(name, CPU, "lens_divergence")]


@st.composite
def divergences(draw: st.DrawFn) -> tuple[Tensor, Tensor, Unembedding]:
    """Rows of a few layers, the final rows among them; ties, padding, NaN, soft-caps, scales and biases."""
    problem = draw(problems())
    hidden, head = problem["hidden"], problem["unembedding"]
    layers = draw(st.integers(1, 3))
    return torch.stack([hidden.roll(layer, 0) for layer in range(layers)]), hidden, head


def assert_close(
    problem: tuple[Tensor, Tensor, Unembedding], ours: tuple[Tensor, Tensor], rounding: float = 0.0
) -> None:
    """Check both results; the gradient may be off by so much of the largest weight more."""
    hidden, final, head = problem
    kl, gradient = lens_divergence(hidden, final, head, backend="reference")
    # float32 logits round in proportion to the products they are sums of
    finite = torch.nan_to_num(hidden, 0.0, 0.0, 0.0).abs()
    magnitude = float((finite @ head.tokens.abs().T).max()) * abs(head.scale) if finite.numel() else 0.0
    slack = 1e-4 + 4e-6 * magnitude
    torch.testing.assert_close(ours[0].double(), kl, rtol=1e-5, atol=slack, equal_nan=True)
    reach = float(head.tokens.abs().max()) * abs(head.scale)
    torch.testing.assert_close(
        ours[1].double(), gradient, rtol=1e-4, atol=reach * min(2, 10 * slack + rounding), equal_nan=True
    )


@settings(max_examples=60, deadline=None)
@given(problem=divergences(), tile=st.integers(1, 64), limit=st.integers(1, 9000))
def test_tiled_agrees_with_the_reference(
    problem: tuple[Tensor, Tensor, Unembedding], tile: int, limit: int
) -> None:
    assert_close(problem, torch_tiled(*problem, tile=tile, logit_bytes=limit))


@pytest.mark.parametrize("path", cpu_paths())
@settings(max_examples=30, deadline=None)
@given(
    problem=divergences(),
    limit=st.integers(1, 9000),
    parts=st.sampled_from([1, 2, 128]),
    panels=st.integers(1, 3),
    rounded=st.booleans(),
)
def test_every_path_of_the_c_core_agrees_with_the_reference(
    path: str,
    problem: tuple[Tensor, Tensor, Unembedding],
    limit: int,
    parts: int,
    panels: int,
    rounded: bool,
) -> None:
    c = pytest.importorskip("kernels.lens_divergences_c")
    products = pytest.importorskip("kernels.lens_gradients_c")
    with (
        mock.patch.multiple(products, PART=2, BLAS_PARTS=parts, PARTS=parts, PANELS=panels),
        mock.patch.object(c, "PART", 2),
    ):
        ours = c.c_backend(*problem, rounded=rounded, path=path, logit_bytes=limit)
        assert_close(problem, ours, 2.0**-8 if rounded else 0.0)


def test_slopes_in_bfloat16_give_the_same_bits_on_any_number_of_threads() -> None:
    c = pytest.importorskip("kernels.lens_divergences_c")
    library = pytest.importorskip("kernels.c_library")
    if not library.lib.lens_path_multiplies_bfloat16(library.path_number(None)):
        pytest.skip("this CPU's path leaves gradients to BLAS")
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3000, 200, generator=generator).bfloat16()
    hidden = torch.randn(2, 9, 200, generator=generator).bfloat16()
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            found.append(c.c_backend(hidden, hidden[1], Unembedding(weight)))
    finally:
        torch.set_num_threads(threads)
    for kl, gradient in found[1:]:
        assert torch.equal(kl, found[0][0]) and torch.equal(gradient, found[0][1])


def test_a_weight_of_any_strides_is_read_as_it_is() -> None:
    """Rows that lie apart, and columns that do."""
    pytest.importorskip("kernels._lens")
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(300, 70, generator=generator).bfloat16()
    hidden = torch.randn(2, 5, 33, generator=generator).bfloat16()
    for view in (weight[:, 4:37], weight[:, ::2][:, 1:34], weight.T.contiguous().T[:, 3:36]):
        truth = lens_divergence(hidden, hidden[1], Unembedding(view), backend="reference")
        for ours, expected in zip(
            lens_divergence(hidden, hidden[1], Unembedding(view), backend="c"), truth, strict=True
        ):
            torch.testing.assert_close(ours.double(), expected, rtol=1e-4, atol=1e-4)


def test_an_older_c_core_leaves_gradients_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("kernels._lens")
    monkeypatch.setitem(sys.modules, "kernels._lens", SimpleNamespace(lib=object()))
    backends._warn_once.cache_clear()
    older = "is older and has no lens_add_gradient.*slower torch backend serves"
    with pytest.warns(RuntimeWarning, match=older):
        assert choose_backend(CPU, operation="lens_divergence") == "torch"
    assert choose_backend(CPU) == "c"


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
    for backend in BACKENDS:
        kl, gradient = lens_divergence(hidden, final, head, backend=backend)
        assert kl.item() == pytest.approx(-0.5 * math.log(0.75), abs=1e-6)
        assert gradient.flatten().tolist() == pytest.approx([0.25, -0.25], abs=1e-6)
        kl, gradient = lens_divergence(final, final, head, backend=backend)
        assert kl.item() == 0 and gradient.eq(0).all()


@settings(max_examples=20, deadline=None)
@given(
    rows=st.integers(1, 70),
    vocabulary=st.integers(2, 700),
    spread=st.sampled_from([0.1, 1.0, 30.0]),
    softcap=st.sampled_from([None, 30.0]),
    half=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_logits_of_any_size(
    rows: int, vocabulary: int, spread: float, softcap: float | None, half: bool, seed: int
) -> None:
    """Logits of the given standard deviation: numbers throughout, none where a row is the final one."""
    generator = torch.Generator().manual_seed(seed)
    width = 24
    weight = torch.randn(vocabulary, width, generator=generator) / width**0.5
    head = Unembedding(weight.bfloat16() if half else weight, softcap=softcap)
    hidden = spread * torch.randn(3, rows, width, generator=generator)
    hidden[2] = hidden[0]
    truth = lens_divergence(hidden, hidden[0], head, backend="reference")
    for backend in BACKENDS:
        kl, gradient = lens_divergence(hidden, hidden[0], head, backend=backend)
        torch.testing.assert_close(kl.double(), truth[0], rtol=1e-5, atol=1e-4)
        reach = float(weight.abs().max())
        torch.testing.assert_close(gradient.double(), truth[1], rtol=0, atol=1e-3 * reach)
        assert kl[[0, 2]].abs().max() <= 1e-6 and gradient[[0, 2]].abs().max() <= 1e-5 * reach


@pytest.mark.parametrize("softcap", [None, 5.0])
def test_kl_is_differentiable(softcap: float | None) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, final = (torch.randn(*shape, 6, generator=generator).double() for shape in ((2, 3), (3,)))
    weight, bias = (torch.randn(*shape, generator=generator).double() for shape in ((11, 6), (11,)))
    head = Unembedding(weight, bias=bias, scale=0.5, softcap=softcap, vocab_size=10)
    hidden.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda rows: lens_divergence(rows, final, head, backend="reference")[0], hidden
    )
    for backend in BACKENDS:
        kl, gradient = lens_divergence(hidden, final, head, backend=backend)
        (passed,) = torch.autograd.grad((kl * torch.arange(6.0).view(2, 3)).sum(), hidden)
        assert passed.dtype == hidden.dtype and not gradient.requires_grad
        torch.testing.assert_close(passed, torch.arange(6.0).view(2, 3, 1) * gradient.double())
    assert not lens_divergence(hidden.detach(), final, head)[0].requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rows_are_taken_as_they_are(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 9, 16, generator=generator).to(dtype)
    head = Unembedding(torch.randn(300, 16, generator=generator).to(dtype))
    truths = lens_divergence(hidden, hidden[1], head, backend="reference")
    for backend in BACKENDS:
        for ours, truth in zip(
            lens_divergence(hidden, hidden[1], head, backend=backend), truths, strict=True
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
        torch_tiled(hidden, hidden[-1], Unembedding(weight), tile=100, logit_bytes=4 * 20 * vocabulary)
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
        ({"backend": "d"}, ValueError, 'backend: found "d", expected auto, reference, torch, c, triton'),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        lens_divergence(**(FITTING | arguments))


@pytest.mark.parametrize("path", cpu_paths())
def test_no_denormal_is_made_and_others_may_make_them(path: str) -> None:
    """The weight is the identity, so the gradient's entries are the slopes themselves."""
    c = pytest.importorskip("kernels.lens_divergences_c")
    width = 800
    rows = 24 * torch.randn(2, 4, width, generator=torch.Generator().manual_seed(0))
    _, slopes = c.c_backend(rows, rows[1], Unembedding(torch.eye(width)), path=path)
    assert slopes[0].abs().gt(0).any()
    if platform.machine() in ("x86_64", "AMD64"):
        assert not ((slopes != 0) & (slopes.abs() < torch.finfo(torch.float32).tiny)).any()
    assert torch.tensor(1e-30) * torch.tensor(1e-10) != 0
