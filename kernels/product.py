"""Matrix products that are summed in float32 on every device, whatever precision the process allows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache

import torch
from torch import Tensor

from kernels.cpu_product import matmul

HALVES = (torch.bfloat16, torch.float16)
# A left factor's small entries would be lost in float16, whose least number is 6e-8.
LIFT = 2.0**14


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Keep TF32, sums in half precision and a device's autocast out of the products in this block.

    What was allowed before is allowed again behind the block. The settings are the process's own, so another
    thread's products are exact meanwhile as well.
    """
    cuda, cpu = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    kept = cuda.fp32_precision, cpu.fp32_precision, cuda.allow_fp16_accumulation
    cuda.fp32_precision = cpu.fp32_precision = "ieee"
    cuda.allow_fp16_accumulation = False
    try:
        known = torch.amp.is_autocast_available(device.type)
        with torch.autocast(device.type, enabled=False) if known else nullcontext():
            yield
    finally:
        cuda.fp32_precision, cpu.fp32_precision, cuda.allow_fp16_accumulation = kept


def product(rows: Tensor, weight: Tensor) -> Tensor:
    """Give rows [n, D] times weight [t, D] transposed: [n, t] float32, no entry rounded to less on its way.

    Operands of one half-precision type are multiplied as they are where the device can give float32 for
    them; all others are made float32, which takes t × D float32 entries of scratch.
    """
    with exact_float32(rows.device):
        if multiplies_halves(rows, weight):
            return torch.mm(rows, weight.mT, out_dtype=torch.float32)
        return matmul(rows.float(), weight.float().mT)


def unrounded_product(left: Tensor, weight: Tensor, *, rounded: bool = False) -> Tensor:
    """Give left [n, t], float32 of at most 1 in size, times weight [t, D]: [n, D] float32.

    Where halves are multiplied, left goes as a sum of two of them: entries err by 2⁻¹⁷, relative; `rounded`,
    as one: 2⁻⁹ or, in float16, 2⁻¹².
    """
    if not multiplies_halves(weight, weight):
        return split_product(left, None, weight)
    lifted = left * LIFT
    high = lifted.to(weight.dtype)
    return split_product(high, None if rounded else (lifted - high.float()).to(weight.dtype), weight)


def split_product(high: Tensor, low: Tensor | None, weight: Tensor) -> Tensor:
    """Give the product of a left factor [n, t] with weight [t, D]: [n, D] float32.

    In the weight's half precision, high + low is the factor times LIFT; in float32, high is the factor.
    """
    with exact_float32(high.device):
        if high.dtype == torch.float32:
            return matmul(high, weight.float())
        total = torch.mm(high, weight, out_dtype=torch.float32)
        if low is not None:
            total += torch.mm(low, weight, out_dtype=torch.float32)
        return total.div_(LIFT)


def multiplies_halves(rows: Tensor, weight: Tensor) -> bool:
    """Tell whether two operands are of one half-precision type whose products the device gives in float32."""
    return rows.dtype == weight.dtype and weight.dtype in HALVES and _gives_float32(rows.device, rows.dtype)


@cache
def _gives_float32(device: torch.device, dtype: torch.dtype) -> bool:
    """Try it: which devices and builds can is nowhere written down."""
    operand = torch.ones(16, 16, dtype=dtype, device=device)
    try:
        return bool((torch.mm(operand, operand, out_dtype=torch.float32) == 16).all())
    except (NotImplementedError, RuntimeError, TypeError):
        return False
