"""Attention entropy on the GPU: kernel and launcher."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from attrs import frozen
from torch import Tensor

from kernels.attention_entropies import Scoring
from kernels.backends import interpreting
from kernels.gpu.device import launching_on
from kernels.gpu.lens_product import tanh
from kernels.gpu.softmax import LOWEST, accumulate


@triton.jit
def scores_tile(q, k, i_query, i_key, length, scale, softcap, window,
                CAUSAL: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Give the scores [B_QUERY, B_KEY] of a tile; a key that a query does not see scores LOWEST."""
    x = tl.dot(q, k, input_precision=PRECISION) * scale
    if softcap is not None:
        x = softcap * tanh(x / softcap)
    distance = i_query[:, None] - i_key[None, :]
    seen = tl.abs(distance) < window
    if CAUSAL:
        seen = seen & (distance >= 0)
    return tl.where(seen & (i_key < length)[None, :], x, LOWEST)


@triton.jit(do_not_specialize=["length_max", "window", "n_heads", "group"])
def attention_sums(
    query, key, lengths, entropy, s_query_batch, s_query_head, s_query, s_key_batch, s_key_head, s_key,
    length_max, window, n_heads, group, width, scale, softcap,
    B_QUERY: tl.constexpr, B_KEY: tl.constexpr, B_WIDTH: tl.constexpr,
    CAUSAL: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Fill the entropy [B, Hq, T] of a tile of query positions of one head; the longest start first."""
    i_tile = tl.num_programs(1) - 1 - tl.program_id(1)
    i_batch, i_head = tl.program_id(0) // n_heads, tl.program_id(0) % n_heads
    length = tl.load(lengths + i_batch)
    i_width = tl.arange(0, B_WIDTH)
    o_query = i_tile * B_QUERY
    i_query = o_query + tl.arange(0, B_QUERY)
    query += i_batch.to(tl.int64) * s_query_batch + i_head.to(tl.int64) * s_query_head
    key += i_batch.to(tl.int64) * s_key_batch + (i_head // group).to(tl.int64) * s_key_head
    m_query = (i_query < length)[:, None] & (i_width < width)[None, :]
    q = tl.load(query + i_query.to(tl.int64)[:, None] * s_query + i_width[None, :], m_query, other=0.0)
    row_max = tl.full([B_QUERY], -float("inf"), tl.float32)
    row_total = tl.zeros([B_QUERY], tl.float64)
    row_weighted = tl.zeros([B_QUERY], tl.float64)
    first = tl.maximum(o_query - window + 1, 0) // B_KEY * B_KEY
    end = tl.minimum(length, o_query + B_QUERY + (0 if CAUSAL else window))
    for o_key in tl.range(first, end, B_KEY):
        i_key = o_key + tl.arange(0, B_KEY)
        m_key = (i_key < length)[None, :] & (i_width < width)[:, None]
        k = tl.load(key + i_key.to(tl.int64)[None, :] * s_key + i_width[:, None], m_key, other=0.0)
        x = scores_tile(
            q.to(OPERAND), k.to(OPERAND), i_query, i_key, length, scale, softcap, window, CAUSAL, PRECISION
        )
        row_max, row_total, row_weighted = accumulate(x, tl.max(x, 1), row_max, row_total, row_weighted)
    value = tl.maximum(tl.log(row_total) - row_weighted / row_total, 0.0)
    value = tl.where((i_query < length) & (row_weighted == row_weighted), value, float("nan"))
    o_out = tl.program_id(0).to(tl.int64) * length_max + i_query
    tl.store(entropy + o_out, value.to(tl.float32), i_query < length_max)


@frozen
class HeadTile:
    """Query positions by key positions of a program, and its warps and stages."""

    queries: int
    keys: int
    warps: int
    stages: int


def head_tile(operand_bytes: int, width: int) -> HeadTile:
    """Choose the tile; width: the head's, padded to a power of two. One choice serves all chips."""
    if width > 256:
        return HeadTile(16, 32, 4, 1) if operand_bytes == 2 else HeadTile(16, 16, 8, 1)
    if operand_bytes == 2:
        return HeadTile(64, 64, 8, 2)
    return HeadTile(32, 32, 4, 2) if width <= 64 else HeadTile(16, 32, 8, 1)


def triton_backend(
    query: Tensor, key: Tensor, scoring: Scoring, lengths: Tensor, *, tile: HeadTile | None = None
) -> Tensor:
    """Compute the entropy in one pass over the keys that a tile of queries sees; no scratch in memory."""
    batch, heads, length, width = query.shape
    query, key = _rows_contiguous(query), _rows_contiguous(key)
    entropy = torch.empty((batch, heads, length), device=query.device)
    if entropy.numel() == 0:
        return entropy
    half = query.dtype in (torch.float16, torch.bfloat16)
    block = max(16, triton.next_power_of_2(width))
    tile = tile or head_tile(2 if half else 4, block)
    operand = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}.get(query.dtype, tl.float32)
    grid = (batch * heads, triton.cdiv(length, tile.queries))
    with launching_on(query.device):
        attention_sums[grid](
            query,
            key,
            lengths.int(),
            entropy,
            *query.stride()[:3],
            *key.stride()[:3],
            length_max=length,
            window=length if scoring.window is None else min(scoring.window, length),
            n_heads=heads,
            group=heads // key.shape[1],
            width=width,
            scale=scoring.scale,
            softcap=scoring.softcap if scoring.softcap is None else float(scoring.softcap),
            B_QUERY=tile.queries,
            B_KEY=tile.keys,
            B_WIDTH=block,
            CAUSAL=scoring.causal,
            OPERAND=tl.float32 if interpreting() else operand,
            PRECISION="ieee",
            num_warps=tile.warps,
            num_stages=tile.stages,
            enable_fp_fusion=False,
        )
    return entropy


def _rows_contiguous(heads: Tensor) -> Tensor:
    return heads if heads.stride(3) == 1 else heads.contiguous()
