"""The bounds of the C core's elementary functions, for every path on every CPU."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def assert_within_bounds(evaluate: Callable[[int, Tensor], Tensor], *, fused: bool, step: int = 61) -> None:
    """Check exp, -log((1 + x) / 2) and tanh, which are functions 0 to 2, at every step-th float32."""
    tiny = torch.arange(0, 0x42AC0000, step, dtype=torch.int32).view(torch.float32)  # from 0 to 86
    x = torch.cat([-tiny, torch.linspace(-86, 16, 122_000_000 // step)])
    error = (evaluate(0, x).double() / x.double().exp() - 1).abs()
    bound = 1.2e-7 if fused else 2.5e-7  # with and without fused multiply-add
    assert (error <= bound + 3e-9 * x.abs()).all()
    assert (evaluate(0, torch.tensor([-105.0, -1e30, -math.inf])) < 1e-44).all()
    assert torch.isnan(evaluate(0, torch.tensor([math.nan]))).all()

    z = torch.linspace(0, 1, 61_000_000 // step)
    assert (evaluate(1, z).double() + torch.log((1 + z.double()) / 2)).abs().max() <= 1.5e-7
    assert evaluate(1, torch.ones(1)) == 0

    y = torch.cat([tiny, -tiny, torch.tensor([math.inf, -math.inf])])
    exact = torch.tanh(y.double())
    unit = 2.0 ** torch.floor(torch.log2(exact.abs().clamp_min(1e-30))) * 2**-23
    assert ((evaluate(2, y).double() - exact).abs() <= 3 * unit).all()
