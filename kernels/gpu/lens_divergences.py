"""Pass two of the lens statistics: KL and JS of every row to its final layer's row.

Rows are packed so that a tile holds the final row of each of its rows (kernels.gpu.lens_packing): the final
layer's logits come out of the same product, and a row finds them by a gather within the tile.
"""

import triton
import triton.language as tl

from kernels.gpu.lens_product import logits_tile
from kernels.gpu.lens_sums import program_tile

LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def divergence_terms(logp, logq):
    """Give the terms of KL(p ‖ q) and of JS(p, q) of each entry, from log-probabilities.

    With d = log q − log p, the mixture's log is log p + log(1 + eᵈ) − log 2; written so that no large
    numbers cancel.
    """
    d = logq - logp
    p, q = tl.exp(logp), tl.exp(logq)
    common = LN2 - tl.log(1.0 + tl.exp(-tl.abs(d)))
    js = 0.5 * (p * (common - tl.maximum(d, 0.0)) + q * (common - tl.maximum(-d, 0.0)))
    return -p * d, js


@triton.jit
def add_divergences(logq, places, kl, js, PIECES: tl.constexpr):
    """Add a tile logq [R, B] to KL and JS [R], by pieces of its columns: a gather needs registers twice."""
    if PIECES == 1:
        place = tl.broadcast_to(places[:, None], logq.shape)
        kl_terms, js_terms = divergence_terms(tl.gather(logq, place, 0), logq)
        kl += tl.sum(kl_terms, 1).to(tl.float64)
        js += tl.sum(js_terms, 1).to(tl.float64)
    else:
        halves = tl.reshape(logq, [logq.shape[0], 2, logq.shape[1] // 2])
        left, right = tl.split(tl.permute(halves, [0, 2, 1]))
        kl, js = add_divergences(left, places, kl, js, PIECES // 2)
        kl, js = add_divergences(right, places, kl, js, PIECES // 2)
    return kl, js


@triton.jit(do_not_specialize=["n_rows", "n_slots", "n_splits", "vocab_size"])
def lens_divergences(
    hidden, weight, bias, slots, places, scalars, spans, divergences,
    n_rows, n_slots, n_splits, vocab_size, width, scale, softcap,
    B_ROWS: tl.constexpr, B_VOCAB: tl.constexpr, B_DEPTH: tl.constexpr,
    GROUP: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr,
    EVEN: tl.constexpr, TMA: tl.constexpr, PIECES: tl.constexpr,
):  # fmt: skip
    """Fill divergences [2, S, N] float64 (KL, JS) of N packed slots; hidden [N, D] is packed as well.

    slots: [N] the row in each slot. places: [N] the slot, within the tile, of its final row.
    """
    o_row, i_split = program_tile(n_slots, n_splits, B_ROWS, GROUP)
    i_slot = o_row + tl.arange(0, B_ROWS)
    kl = tl.zeros([B_ROWS], tl.float64)
    js = tl.zeros([B_ROWS], tl.float64)
    first, end = tl.load(spans + 2 * i_split), tl.load(spans + 2 * i_split + 1)
    for o_vocab in tl.range(first, end, B_VOCAB, disable_licm=True):
        x = logits_tile(
            hidden, weight, bias, o_row, o_vocab, n_slots, vocab_size, width, scale, softcap,
            B_ROWS, B_VOCAB, B_DEPTH, OPERAND, PRECISION, EVEN, TMA,
        )  # fmt: skip
        i_row = tl.load(slots + i_slot)
        row_max = tl.load(scalars + 5 * n_rows + i_row)[:, None]
        log_total = tl.load(scalars + 6 * n_rows + i_row)[:, None]
        # The maximum goes off first: it is a logit itself, so large logits lose no digits to it.
        logq = (x - row_max) - log_total
        m_vocab = (o_vocab + tl.arange(0, B_VOCAB) < vocab_size)[None, :]
        logq = tl.where(m_vocab, logq, -1e30)  # adds nothing: p = q = d = 0
        kl, js = add_divergences(logq, tl.load(places + i_slot), kl, js, PIECES)
    o_out = i_split.to(tl.int64) * n_slots + i_slot
    tl.store(divergences + o_out, kl)
    tl.store(divergences + n_splits.to(tl.int64) * n_slots + o_out, js)
