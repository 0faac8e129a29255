"""Float32 products on a CPU, by the faster of the two libraries that torch brings for them.

torch multiplies float32 matrices by Intel's MKL, which runs slower code on other makers' CPUs. oneDNN, which
torch brings as well, does not ask for the maker.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from kernels.cpu_facts import cpu_maker

LEAST = 2**20  # multiplications of a product that make up for the 20 µs in which oneDNN sets itself up


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Give rows [..., D] times weight [N, D] transposed, plus bias [N]: [..., N]; all float32, on a CPU.

    Differentiable. A transposed view of a weight is read as it lies. `torch.compile` does not look into it.
    """
    result: Tensor = torch.ops.ablation_kernels.linear(rows, weight, bias)
    return result


def matmul(left: Tensor, right: Tensor) -> Tensor:
    """Give left [n, D] times right [D, N] of one type, on any device: [n, N]; differentiable."""
    if left.dtype == torch.float32 and left.device.type == "cpu":
        return linear(left, right.mT)
    return left @ right


@cache
def onednn_is_faster() -> bool:
    """Tell whether `linear` has a faster library here than torch takes by itself: on AMD's CPUs."""
    return (
        torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and cpu_maker() == "AuthenticAMD"
    )


def _linear(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if not onednn_is_faster() or rows.numel() * len(weight) < LEAST:
        return torch.nn.functional.linear(rows, weight, bias)
    if not weight.is_contiguous() and not weight.mT.is_contiguous():
        weight = weight.contiguous()
    return _by_onednn(rows.contiguous(), weight, bias)


def _by_onednn(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return result


def _shape(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return rows.new_empty((*rows.shape[:-1], weight.shape[0]))


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    rows, weight, _ = inputs
    ctx.save_for_backward(rows if weight.requires_grad else None, weight if rows.requires_grad else None)


def _backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
    rows, weight = ctx.saved_tensors
    by_row = slope.reshape(-1, slope.shape[-1])
    of_rows = None if weight is None else linear(slope, weight.mT)
    of_weight = None if rows is None else linear(by_row.mT, rows.reshape(-1, rows.shape[-1]).mT)
    return of_rows, of_weight, by_row.sum(0) if ctx.needs_input_grad[2] else None


_library = torch.library.Library("ablation_kernels", "DEF")  # type: ignore[no-untyped-call]
_library.define("linear(Tensor rows, Tensor weight, Tensor? bias) -> Tensor")  # type: ignore[no-untyped-call]
_library.impl("linear", _linear, "CPU")  # type: ignore[no-untyped-call]
torch.library.register_fake("ablation_kernels::linear", _shape, lib=_library)
torch.library.register_autograd("ablation_kernels::linear", _backward, setup_context=_keep, lib=_library)
