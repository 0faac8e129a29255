"""Whole lens logits in float32, for a loss or a look; the statistics need none of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.cpu_product import matmul
from kernels.product import HALVES, multiplies_halves, product
from kernels.unembedding import Unembedding

TILE = 8192  # rows of the weight that are made float32 at once, where it has to be


def lens_logits(hidden: Tensor, unembedding: Unembedding) -> Tensor:
    """Give the logits [..., V] of rows [..., D], in float32 whatever the weight's type; differentiable.

    Operands are of the weight's type, or of autocast's where it is on; their products are summed in float32
    and never rounded to less. The gradients have the operands' types, as those of
    `torch.nn.functional.linear` have.

    Memory: V float32 numbers per row, twice that with a soft-cap; where the device cannot multiply halves
    into float32, `TILE` rows of the weight in float32 beside it.

    Args:
        hidden: rows after the model's final norm, any floating type.
    """
    weight = unembedding.tokens
    kind = hidden.device.type
    operand = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    rows, weight = hidden.reshape(-1, hidden.shape[-1]).to(operand), weight.to(operand)
    products: Tensor = _Product.apply(rows, weight)  # type: ignore[no-untyped-call]
    return unembedding.finish(products.view(*hidden.shape[:-1], len(weight)))


class _Product(torch.autograd.Function):
    """rows [n, D] times weight [V, D] transposed, [n, V] float32."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weight)
        if _whole(rows, weight):
            return product(rows, weight)
        out = torch.empty(len(rows), len(weight), device=rows.device)
        for start in range(0, len(weight), TILE):
            out[:, start : start + TILE] = product(rows, weight[start : start + TILE])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        of_rows = of_weight = None
        if ctx.needs_input_grad[0]:
            if _whole(rows, weight):
                of_rows = matmul(slope.to(weight.dtype), weight)
            else:
                of_rows = torch.zeros(rows.shape, device=rows.device)
                for start in range(0, len(weight), TILE):
                    of_rows += matmul(slope[:, start : start + TILE], weight[start : start + TILE].float())
            of_rows = of_rows.to(rows.dtype)
        if ctx.needs_input_grad[1]:
            kind = rows.dtype if _whole(rows, weight) else torch.float32
            of_weight = (slope.to(kind).mT @ rows.to(kind)).to(weight.dtype)
        return of_rows, of_weight


def _whole(rows: Tensor, weight: Tensor) -> bool:
    """Tell whether the product needs no float32 copy of the weight."""
    return weight.dtype not in HALVES or multiplies_halves(rows, weight)
