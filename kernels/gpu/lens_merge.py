"""The second stage: one program per row merges the splits' partial results, always in the same order."""

import triton
import triton.language as tl

from kernels.gpu.lens_sums import NO_ID


@triton.jit
def merge_top(values, ids, top_ids, top_logprobs, row_max, log_total, broken, vocab_size, top_k):
    """Store the k first of the splits' kept entries (values, ids) [C], ties by lower id."""
    for i_top in range(top_k):
        best = tl.max(values, 0)
        token = tl.min(tl.where(values == best, ids, NO_ID), 0)
        m_real = (token < vocab_size) & (best > -float("inf")) & (broken == 0)
        logprob = best.to(tl.float64) - row_max.to(tl.float64) - log_total
        tl.store(top_ids + i_top, tl.where(m_real, token, -1).to(tl.int64))
        tl.store(top_logprobs + i_top, tl.where(m_real, logprob, float("nan")).to(tl.float32))
        values = tl.where(ids == token, -float("inf"), values)


@triton.jit
def watched_set(logprob, m_set):
    """Give the mass of the watched set and the entropy within it; logprob [J] float64, each token once."""
    top = tl.max(tl.where(m_set, logprob, -float("inf")), 0)
    top = tl.where(top == -float("inf"), 0.0, top)  # an empty set has mass 0 and entropy 0
    shifted = tl.where(m_set, logprob - top, 0.0)
    e = tl.where(m_set, tl.exp(shifted), 0.0)
    total = tl.sum(e, 0)
    safe = tl.where(total > 0.0, total, 1.0)
    return tl.exp(top) * total, tl.log(safe) - tl.sum(e * shifted, 0) / safe


def merge_warps(kept: int) -> int:
    """Choose the warps of a program that merges so many kept entries: at most 64 per thread."""
    return 4 if kept <= 8192 else 16


@triton.jit(do_not_specialize=["n_rows", "n_splits", "n_watch", "vocab_size", "top_k"])
def merge_splits(
    maximum, total, weighted, top_values, top_ids, watched, ranks, once,
    scalars, out_top_ids, out_top_logprobs, out_logprob, out_rank,
    n_rows, n_splits, n_watch, vocab_size, top_k,
    B_SPLITS: tl.constexpr, B_TOP: tl.constexpr, B_WATCH: tl.constexpr,
):  # fmt: skip
    """Merge partial buffers [S, R] (top: [S, R, K]) and watched, ranks, once [J, R] into row i's statistics.

    scalars: [7, R] float32: logsumexp, entropy, max_prob, watch_mass, watch_entropy, and for the second pass
    the row's maximum and log Σ exp(x − maximum). A broken row gets NaN and −1 throughout.
    """
    i_row = tl.program_id(0).to(tl.int64)
    i_split = tl.arange(0, B_SPLITS)
    m_split = i_split < n_splits
    o_split = i_split.to(tl.int64) * n_rows + i_row
    split_max = tl.load(maximum + o_split, m_split, other=-float("inf"))  # [B_SPLITS]
    split_total = tl.load(total + o_split, m_split, other=0.0)
    split_weighted = tl.load(weighted + o_split, m_split, other=0.0)
    row_max = tl.max(split_max, 0)
    shift = tl.where(m_split, split_max - row_max, 0.0).to(tl.float64)
    decay = tl.exp(shift)
    row_total = tl.sum(decay * split_total, 0)
    row_weighted = tl.sum(decay * (split_weighted + shift * split_total), 0)
    broken = (row_weighted != row_weighted).to(tl.int32)
    log_total = tl.log(row_total)

    i_watch = tl.arange(0, B_WATCH)
    m_watch = i_watch < n_watch
    o_watch = i_watch.to(tl.int64) * n_rows + i_row
    logit = tl.load(watched + o_watch, m_watch, other=0.0).to(tl.float64)  # [B_WATCH]
    logprob = logit - row_max.to(tl.float64) - log_total
    m_set = m_watch & (tl.load(once + o_watch, m_watch, other=0) != 0)
    mass, within = watched_set(logprob, m_set)
    rank = tl.load(ranks + o_watch, m_watch, other=0).to(tl.int64)
    tl.store(out_rank + i_row * n_watch + i_watch, tl.where(broken != 0, -1, rank), m_watch)
    logprob = tl.where(broken != 0, float("nan"), logprob)
    tl.store(out_logprob + i_row * n_watch + i_watch, logprob.to(tl.float32), m_watch)

    poison = tl.where(broken != 0, float("nan"), 0.0)
    entropy = tl.maximum(log_total - row_weighted / row_total, 0.0)
    tl.store(scalars + i_row, (row_max.to(tl.float64) + log_total + poison).to(tl.float32))
    tl.store(scalars + n_rows + i_row, (entropy + poison).to(tl.float32))
    tl.store(scalars + 2 * n_rows + i_row, (1.0 / row_total + poison).to(tl.float32))
    tl.store(scalars + 3 * n_rows + i_row, (mass + poison).to(tl.float32))
    tl.store(scalars + 4 * n_rows + i_row, (within + poison).to(tl.float32))
    tl.store(scalars + 5 * n_rows + i_row, row_max)
    tl.store(scalars + 6 * n_rows + i_row, log_total.to(tl.float32))

    if B_TOP > 0:
        i_kept = tl.arange(0, B_SPLITS * B_TOP)
        m_kept = i_kept // B_TOP < n_splits
        o_kept = ((i_kept // B_TOP).to(tl.int64) * n_rows + i_row) * B_TOP + i_kept % B_TOP
        values = tl.load(top_values + o_kept, m_kept, other=-float("inf"))
        ids = tl.load(top_ids + o_kept, m_kept, other=NO_ID)
        o_top = i_row * top_k
        merge_top(
            values, ids, out_top_ids + o_top, out_top_logprobs + o_top,
            row_max, log_total, broken, vocab_size, top_k,
        )  # fmt: skip
