"""Pass one of the lens statistics: normalisers, entropies, top tokens and ranks, from one product H Wᵀ.

A program takes one row tile through one split of the vocabulary, tile by tile. Registers are for the tile of
logits; what runs along with it rests in the program's own slots of the partial buffers (L1 holds them).

Watched logits come first, by the same kernel with `gather` set: program (row tile, watched token) computes
the one tile that holds the token. It is the same binary, so the watched logit has the very bits that the
main launch compares with; only a run-time scalar tells the launches apart. Where each row watches tokens of
its own (BY_ROW), rows whose tokens lie in one tile are packed together, and a program computes that tile.
"""

import triton
import triton.language as tl

from kernels.gpu.lens_product import logits_tile
from kernels.gpu.softmax import LOWEST, accumulate

NO_ID = tl.constexpr(2147483647)


@triton.jit
def program_tile(n_rows, n_splits, B_ROWS: tl.constexpr, GROUP: tl.constexpr):
    """Give (row offset, split); GROUP row tiles share all splits, so that L2 holds their rows."""
    i_program = tl.program_id(0)
    i_group = i_program // (GROUP * n_splits)
    size = tl.minimum(tl.cdiv(n_rows, B_ROWS) - i_group * GROUP, GROUP)
    within = i_program - i_group * (GROUP * n_splits)
    return (i_group * GROUP + within % size) * B_ROWS, within // size


@triton.jit
def store_watched(x, i_vocab, token, watched, ranks, m_row):
    """Store a watched token's logits [R] out of its own tile x [R, B], and its rank within that tile."""
    logit = tl.sum(tl.where((i_vocab == token)[None, :], x, 0.0), 1)
    before = (x > logit[:, None]) | ((x == logit[:, None]) & (i_vocab < token)[None, :])
    tl.store(watched, logit, m_row)
    tl.store(ranks, tl.sum(before.to(tl.int32), 1), m_row)


@triton.jit
def store_own(x, i_vocab, places, watch_ids, watched, ranks, m_row):
    """Store the logits of packed rows' own tokens out of their tile x [R, B], and ranks within that tile.

    places: [R] where each pair of token and row is in [J, R], -1 for a slot without one.
    """
    place = tl.load(places, m_row, other=-1)
    m_place = place >= 0
    token = tl.load(watch_ids + place, m_place, other=-1)[:, None]
    logit = tl.sum(tl.where(i_vocab[None, :] == token, x, 0.0), 1)
    before = (x > logit[:, None]) | ((x == logit[:, None]) & (i_vocab[None, :] < token))
    tl.store(watched + place, logit, m_place)
    tl.store(ranks + place, tl.sum(before.to(tl.int32), 1), m_place)


@triton.jit
def count_own(x, o_vocab, i_row, m_row, watch_ids, watched, ranks, n_rows, n_watch):
    """As `count_ranks`, for tokens of each row's own; watch_ids: [J, R]."""
    for _ in tl.range(0, n_watch, disable_licm=True):
        token = tl.load(watch_ids + i_row, m_row, other=0)
        logit = tl.load(watched + i_row, m_row, other=0.0)[:, None]
        m_late = token >= o_vocab + x.shape[1]
        before = (x > logit) | ((x == logit) & m_late[:, None])
        m_other = m_row & (m_late | (token < o_vocab))
        tl.atomic_add(ranks + i_row, tl.sum(before.to(tl.int32), 1), m_other, sem="relaxed")
        watch_ids += n_rows
        watched += n_rows
        ranks += n_rows


@triton.jit
def count_ranks(x, o_vocab, i_row, m_row, watch_ids, watched, ranks, n_rows, n_watch):
    """Add the entries of a tile x [R, B] that come before each watched token of another tile.

    Equal logits come before it if the whole tile does. Counts add up to the same whole number in any order,
    so the atomic additions leave the result deterministic.
    """
    for i_watch in tl.range(0, n_watch, disable_licm=True):
        token = tl.load(watch_ids + i_watch)
        logit = tl.load(watched + i_row, m_row, other=0.0)[:, None]
        if token < o_vocab:
            tl.atomic_add(ranks + i_row, tl.sum((x > logit).to(tl.int32), 1), m_row, sem="relaxed")
        elif token >= o_vocab + x.shape[1]:
            tl.atomic_add(ranks + i_row, tl.sum((x >= logit).to(tl.int32), 1), m_row, sem="relaxed")
        watched += n_rows
        ranks += n_rows


@triton.jit
def add_sums(x, top, maximum, total, weighted, m_row, m_old):
    """Add a tile x [R, B], whose row maxima are `top`, to its rows' sums in memory."""
    old_max = tl.load(maximum, m_old, other=-float("inf"))
    old_total = tl.load(total, m_old, other=0.0)
    old_weighted = tl.load(weighted, m_old, other=0.0)
    new_max, new_total, new_weighted = accumulate(x, top, old_max, old_total, old_weighted)
    tl.debug_barrier()  # several threads may hold a row; all have read before one writes
    tl.store(maximum, new_max, m_row)
    tl.store(total, new_total, m_row)
    tl.store(weighted, new_weighted, m_row)


@triton.jit
def insert(values, ids, value, token, take):
    """Put (value, token) [R] in place of the last of the kept (values, ids) [R, K] where `take` [R]."""
    last_value = tl.min(values, 1)
    last_id = tl.max(tl.where(values == last_value[:, None], ids, -1), 1)
    m_slot = take[:, None] & (ids == last_id[:, None])
    return tl.where(m_slot, value[:, None], values), tl.where(m_slot, token[:, None], ids)


@triton.jit
def keep_top(x, top, i_vocab, top_values, top_ids, m_row, m_old, B_TOP: tl.constexpr):
    """Merge a tile x [R, B], whose row maxima are `top`, into the K kept entries of its rows.

    A row gives its entries largest first, equal ones by lower id, while any row has one that beats its last
    kept; soon few tiles have. Kept ones have lower ids, so an equal entry never displaces one.
    """
    i_slot = tl.arange(0, B_TOP)[None, :]
    values = tl.load(top_values + i_slot, m_old[:, None], other=-float("inf"))
    ids = tl.load(top_ids + i_slot, m_old[:, None], other=0)
    ids = tl.where(m_old[:, None], ids, NO_ID - i_slot)  # empty slots differ, so that one goes at a time
    value, last = top, tl.min(values, 1)
    while tl.max((value > last).to(tl.int32), 0) > 0:
        token = tl.min(tl.where(x == value[:, None], i_vocab[None, :], NO_ID), 1)
        values, ids = insert(values, ids, value, token, value > last)
        x = tl.where(i_vocab[None, :] == token[:, None], -float("inf"), x)
        value, last = tl.max(x, 1), tl.min(values, 1)
    tl.debug_barrier()
    tl.store(top_values + i_slot, values, m_row[:, None])
    tl.store(top_ids + i_slot, ids, m_row[:, None])


@triton.jit(do_not_specialize=["n_rows", "n_splits", "vocab_size", "n_watch", "gather"])
def lens_sums(
    hidden, weight, bias, watch_ids, watched, ranks, places, spans, columns,
    maximum, total, weighted, top_values, top_ids,
    n_rows, n_splits, vocab_size, width, n_watch, scale, softcap, gather,
    B_ROWS: tl.constexpr, B_VOCAB: tl.constexpr, B_DEPTH: tl.constexpr, B_TOP: tl.constexpr,
    GROUP: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr,
    EVEN: tl.constexpr, TMA: tl.constexpr, BY_ROW: tl.constexpr,
):  # fmt: skip
    """Fill the partial buffers [S, R] (top: [S, R, K]) and ranks [J, R]; with `gather`, watched [J, R]."""
    o_row, i_split = program_tile(n_rows, n_splits, B_ROWS, GROUP)
    i_span = i_split
    if BY_ROW:  # packed rows have a tile for each row tile, and no splits
        i_span = tl.where(gather != 0, o_row // B_ROWS, i_split)
    first, end = tl.load(spans + 2 * i_span), tl.load(spans + 2 * i_span + 1)
    # Hoisted out of the loop, addresses and column numbers would outlive the product, and registers spill.
    for o_vocab in tl.range(first, end, B_VOCAB, disable_licm=True):
        x = logits_tile(
            hidden, weight, bias, o_row, o_vocab, n_rows, vocab_size, width, scale, softcap,
            B_ROWS, B_VOCAB, B_DEPTH, OPERAND, PRECISION, EVEN, TMA,
        )  # fmt: skip
        i_row = o_row + tl.arange(0, B_ROWS)
        m_row = i_row < n_rows
        o_out = i_split.to(tl.int64) * n_rows + i_row
        # 0, 1, 2 … out of memory: numbers that are computed would be hoisted all the same.
        i_vocab = o_vocab + tl.load(columns + tl.arange(0, B_VOCAB))
        x = tl.where((i_vocab < vocab_size)[None, :], x, LOWEST)
        if gather != 0:
            if BY_ROW:
                store_own(x, i_vocab, places + i_row, watch_ids, watched, ranks, m_row)
            else:
                token = tl.load(watch_ids + i_split)
                store_watched(x, i_vocab, token, watched + o_out, ranks + o_out, m_row)
        else:
            if BY_ROW:
                count_own(x, o_vocab, i_row, m_row, watch_ids, watched, ranks, n_rows, n_watch)
            else:
                count_ranks(x, o_vocab, i_row, m_row, watch_ids, watched, ranks, n_rows, n_watch)
            top = tl.max(x, 1)
            m_old = m_row & (i_row * 0 + o_vocab > first)
            add_sums(x, top, maximum + o_out, total + o_out, weighted + o_out, m_row, m_old)
            if B_TOP > 0:
                o_top = o_out[:, None] * B_TOP
                keep_top(x, top, i_vocab, top_values + o_top, top_ids + o_top, m_row, m_old, B_TOP)
            tl.debug_barrier()  # what was written here may be read by other threads
