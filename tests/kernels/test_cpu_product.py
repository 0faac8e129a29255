"""Products by oneDNN are those of float64 up to float32's rounding, as are their gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onednn_products import Shape, choose, needs_onednn, noted
from torch import Tensor

from kernels import cpu_facts, cpu_product
from kernels.cpu_product import linear, matmul, onednn_is_faster


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Shape, Shape]]:
    """The shapes of rows and weights that oneDNN has multiplied."""
    return noted(monkeypatch)


def bound(rows: Tensor, weight: Tensor) -> Tensor:
    """What the rounding of float32 can make of sums of products, by entry."""
    exact = rows.double().abs() @ weight.double().abs().mT
    return (rows.shape[-1] + 2) * torch.finfo(torch.float32).eps * exact + 1e-30


@needs_onednn
@settings(deadline=None, max_examples=60)
@given(
    shape=st.lists(st.integers(1, 7), max_size=3),
    width=st.integers(1, 70),
    outputs=st.integers(1, 70),
    layout=st.sampled_from(["plain", "transposed", "strided", "tail"]),
    has_bias=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_products_and_gradients_are_those_of_float64(
    shape: list[int], width: int, outputs: int, layout: str, has_bias: bool, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randn(*shape, width, generator=draw, requires_grad=True)
    whole = {
        "plain": (outputs, width),
        "transposed": (width, outputs),
        "strided": (2 * outputs, 2 * width),
        "tail": (outputs + 3, width),
    }[layout]
    held = torch.randn(whole, generator=draw, requires_grad=True)
    views = {"transposed": held.mT, "strided": held[::2, ::2], "tail": held[3:]}
    weight = views.get(layout, held)
    bias = torch.randn(outputs, generator=draw, requires_grad=True) if has_bias else None
    slope = torch.randn(1, generator=draw).expand(*shape, outputs)  # as that of a sum, with no strides
    with pytest.MonkeyPatch.context() as patch:
        choose(patch, onednn=True)
        result = linear(rows, weight, bias)
        inputs = [rows, held] + ([] if bias is None else [bias])
        found = torch.autograd.grad(result, inputs, slope)
    doubles = [each.detach().double().requires_grad_() for each in inputs]
    of_held = {"transposed": doubles[1].mT, "strided": doubles[1][::2, ::2], "tail": doubles[1][3:]}
    exact = torch.nn.functional.linear(
        doubles[0], of_held.get(layout, doubles[1]), doubles[2] if has_bias else None
    )
    expected = torch.autograd.grad(exact, doubles, slope.double())
    near = bound(rows.detach(), weight.detach()) + 1e-6
    assert bool(((result.double() - exact).abs() <= near).all())
    for gradient, other in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient.double(), other, rtol=1e-4, atol=1e-4)


@needs_onednn
def test_it_is_onednn_that_multiplies_and_on_other_cpus_not(
    products: list[tuple[Shape, Shape]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, weight = torch.randn(5, 8), torch.randn(3, 8)
    torch.testing.assert_close(linear(rows, weight), rows @ weight.mT)
    assert products == [((5, 8), (3, 8))]
    linear(rows[:0], weight)
    matmul(rows.half(), weight.half().mT)
    assert products == [((5, 8), (3, 8))]  # neither no rows, nor halves
    torch.testing.assert_close(matmul(rows, weight.mT), rows @ weight.mT)
    assert products == 2 * [((5, 8), (3, 8))]
    monkeypatch.setattr(cpu_product, "LEAST", 5 * 8 * 3 + 1)
    linear(rows, weight)
    choose(monkeypatch, onednn=False)
    assert torch.equal(linear(rows, weight), rows @ weight.mT)
    assert len(products) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\n", True),
        ("processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\n", False),
        ("processor\t: 0\nBogoMIPS\t: 243.75\nCPU implementer\t: 0x41\n", False),
        ("", False),
    ],
)
def test_the_maker_of_the_cpu_decides(
    text: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(cpu_facts, "FILE", tmp_path / "cpuinfo")
    monkeypatch.setattr(cpu_facts.platform, "processor", lambda: "")
    assert onednn_is_faster.__wrapped__() == (expected and torch.backends.mkl.is_available())


def test_windows_names_the_maker_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_facts, "FILE", tmp_path / "none")
    monkeypatch.setattr(
        cpu_facts.platform, "processor", lambda: "AMD64 Family 25 Model 17 Stepping 1, AuthenticAMD"
    )
    assert onednn_is_faster.__wrapped__() == torch.backends.mkl.is_available()


@needs_onednn
def test_compiled_code_takes_it_as_it_is(products: list[tuple[Shape, Shape]]) -> None:
    weight = torch.randn(6, 8)

    def twice(rows: Tensor) -> Tensor:
        return linear(torch.relu(linear(rows, weight)), weight.mT)

    rows = torch.randn(5, 8, requires_grad=True)
    compiled = torch.compile(twice, dynamic=True, fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(twice(rows).square().sum(), rows)[0]
    products.clear()
    torch.testing.assert_close(torch.autograd.grad(compiled(rows).square().sum(), rows)[0], expected)
    assert [rows for rows, _ in products] == [(5, 8), (5, 6), (5, 8), (5, 6)]
