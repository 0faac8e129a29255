"""KL to the final layer and its gradient on the GPU: vendor products, and between them two kernels over rows.

A product costs far more than a pass over its result, and D columns of a gradient do not fit the registers of
any program. So products are left to the vendor's library. Triton does the rest, in one read of the products
each: normalisers, then KL and slopes, which are stored as the next product wants them.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu.device import launching_on
from kernels.gpu.lens_product import tanh
from kernels.gpu.softmax import LOWEST
from kernels.lens_divergences_torch import by_blocks
from kernels.product import LIFT, multiplies_halves, product, split_product
from kernels.unembedding import Unembedding

TILE = 32768  # vocabulary entries of a product; the gradient is read and written once for each
BLOCK, WARPS = 2048, 4  # entries of a row that a program holds at once


@triton.jit
def finished(products, bias, i_column, m_column, scale, softcap):
    """Make logits of products with W, as `Unembedding.finish` does."""
    x = products
    if bias is not None:
        x += tl.load(bias + i_column, m_column, other=0.0).to(tl.float32)
    x *= scale
    if softcap is not None:
        x = softcap * tanh(x / softcap)
    return x


@triton.jit(do_not_specialize=["n_columns"])
def add_normalisers(products, bias, maximum, total, n_columns, s_row, scale, softcap, B: tl.constexpr):
    """Add a tile of one row to its maximum and Σ exp(x − maximum), [R] float32 and [R] float64.

    A NaN or infinity makes the sum, or what is computed from it, no number.
    """
    i_row = tl.program_id(0).to(tl.int64)
    row_max, row_total = tl.load(maximum + i_row), tl.load(total + i_row)
    for o_column in tl.range(0, n_columns, B):
        i_column = o_column + tl.arange(0, B)
        m_column = i_column < n_columns
        x = tl.load(products + i_row * s_row + i_column, m_column, other=0.0)
        x = tl.where(m_column, finished(x, bias, i_column, m_column, scale, softcap), LOWEST)
        new_max = tl.maximum(row_max, tl.max(x, 0))
        tile_total = tl.sum(tl.exp(x - new_max), 0).to(tl.float64)
        row_total = tl.exp(row_max - new_max).to(tl.float64) * row_total + tile_total
        row_max = new_max
    tl.store(maximum + i_row, row_max)
    tl.store(total + i_row, row_total)


@triton.jit(do_not_specialize=["n_columns", "n_positions", "n_rows"])
def slopes(
    products, final_products, bias, maximum, log_total, final_maximum, final_log_total, high, low, kl,
    n_columns, n_rows, n_positions, s_row, s_final, s_out, scale, softcap, lift,
    B: tl.constexpr,
):  # fmt: skip
    """Store lift · (q − p)(1 − (x / c)²) of B entries of one row, and their part of KL [blocks, R].

    Rows go layer by layer, each layer's in the order of the final rows. `low` is what `high`
    rounds off, or None.
    """
    i_row, i_block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    i_final = i_row % n_positions
    i_column = i_block * B + tl.arange(0, B)
    m_column = i_column < n_columns
    y = tl.load(final_products + i_final * s_final + i_column, m_column, other=0.0)
    y = finished(y, bias, i_column, m_column, scale, softcap)
    x = tl.load(products + i_row * s_row + i_column, m_column, other=0.0)
    x = finished(x, bias, i_column, m_column, scale, softcap)
    # The maximum goes off first: it is a logit itself, so large logits lose no digits to it.
    logp = (y - tl.load(final_maximum + i_final)) - tl.load(final_log_total + i_final)
    logq = (x - tl.load(maximum + i_row)) - tl.load(log_total + i_row)
    p = tl.exp(logp)
    terms = tl.where(m_column, p * (logp - logq), 0.0)
    tl.store(kl + i_block.to(tl.int64) * n_rows + i_row, tl.sum(terms, 0))
    slope = tl.exp(logq) - p
    if softcap is not None:
        slope *= 1.0 - (x / softcap) * (x / softcap)
    slope *= lift
    o_out = i_row * s_out + i_column
    rounded = slope.to(high.dtype.element_ty)
    tl.store(high + o_out, rounded, m_column)
    if low is not None:
        tl.store(low + o_out, (slope - rounded.to(tl.float32)).to(low.dtype.element_ty), m_column)


def triton_backend(
    hidden: Tensor,
    final: Tensor,
    unembedding: Unembedding,
    *,
    rounded: bool = False,
    tile: int = TILE,
    logit_bytes: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute both block by block of positions: rows [L, N, D] → [L, N] and [L, N, D].

    Scratch: as the torch backend's, and the slopes of a tile.
    """

    def block(rows: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return _block(rows, target, unembedding, tile, rounded)

    with launching_on(hidden.device):
        return by_blocks(hidden, final, unembedding, logit_bytes, block)


def _block(
    hidden: Tensor, final: Tensor, head: Unembedding, tile: int, rounded: bool
) -> tuple[Tensor, Tensor]:
    layers, positions, width = hidden.shape
    rows, device = hidden.reshape(-1, width), hidden.device
    translated, target = _Normaliser(rows), _Normaliser(final)
    starts = range(0, head.vocab_size, tile)
    kept = []
    for start in starts:
        weight = head.tokens[start : start + tile]
        pair = product(rows, weight), product(final, weight)
        translated.add(pair[0], head, start)
        target.add(pair[1], head, start)
        kept.append(pair)
    kept.reverse()
    kl = torch.zeros(len(rows), dtype=torch.float64, device=device)
    gradient = torch.zeros(rows.shape, device=device)
    normalisers = translated.maximum, translated.log_total(), target.maximum, target.log_total()
    for start in starts:
        x, y = kept.pop()
        weight, columns = head.tokens[start : start + tile], x.shape[1]
        halves = multiplies_halves(weight, weight)
        high = torch.empty(x.shape, dtype=weight.dtype if halves else torch.float32, device=device)
        low = torch.empty_like(high) if halves and not rounded else None
        blocks = triton.cdiv(columns, BLOCK)
        sums = torch.empty((blocks, len(rows)), device=device)
        slopes[len(rows), blocks](
            x,
            y,
            _bias(head, start),
            *normalisers,
            high,
            low,
            sums,
            n_columns=columns,
            n_rows=len(rows),
            n_positions=positions,
            s_row=x.stride(0),
            s_final=y.stride(0),
            s_out=high.stride(0),
            scale=float(head.scale),
            softcap=None if head.softcap is None else float(head.softcap),
            lift=LIFT if halves else 1.0,
            B=BLOCK,
            num_warps=WARPS,
            enable_fp_fusion=False,
        )
        kl += sums.sum(dim=0, dtype=torch.float64)
        gradient += split_product(high, low, weight)
    broken = ~kl.isfinite()
    kl = kl.clamp_min(0).masked_fill(broken, math.nan).float()
    gradient = gradient.mul_(head.scale).masked_fill(broken[:, None], math.nan)
    return kl.view(layers, positions), gradient.view(hidden.shape)


class _Normaliser:
    """The running maximum and Σ exp(x − maximum) of rows."""

    def __init__(self, rows: Tensor) -> None:
        self.maximum = torch.full((len(rows),), -math.inf, device=rows.device)
        self.total = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)

    def add(self, products: Tensor, head: Unembedding, start: int) -> None:
        """Add a tile of products with W's rows from `start` on."""
        add_normalisers[len(products),](
            products,
            _bias(head, start),
            self.maximum,
            self.total,
            n_columns=products.shape[1],
            s_row=products.stride(0),
            scale=float(head.scale),
            softcap=None if head.softcap is None else float(head.softcap),
            B=BLOCK,
            num_warps=WARPS,
            enable_fp_fusion=False,
        )

    def log_total(self) -> Tensor:
        """Give log Σ exp(x − maximum), [R] float32."""
        return self.total.log().float()


def _bias(head: Unembedding, start: int) -> Tensor | None:
    return None if head.token_bias is None else head.token_bias.contiguous()[start:]
