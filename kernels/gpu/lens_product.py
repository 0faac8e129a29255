"""Device functions that every lens kernel shares: a tile of logits, and tanh."""

import triton
import triton.language as tl


@triton.jit
def tanh(x):
    """Hyperbolic tangent to 1e-6 relative: a Taylor polynomial near zero, where 1 − e would cancel."""
    a = tl.abs(x)
    e = tl.exp(-2.0 * a)
    far = (1.0 - e) / (1.0 + e)
    s = x * x
    near = a * (1.0 + s * (-1.0 / 3.0 + s * (2.0 / 15.0 + s * (-17.0 / 315.0))))
    magnitude = tl.where(a < 0.2, near, far)
    return tl.where(x < 0.0, -magnitude, magnitude)


@triton.jit
def logits_tile(
    hidden, weight, bias, o_row, o_vocab, n_rows, vocab_size, width, scale, softcap,
    B_ROWS: tl.constexpr, B_VOCAB: tl.constexpr, B_DEPTH: tl.constexpr,
    OPERAND: tl.constexpr, PRECISION: tl.constexpr, EVEN: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """Give the logits [B_ROWS, B_VOCAB] of a tile in float32; rows and columns past the end repeat the last.

    One loop order, one instruction shape: a tile has the same bits wherever it is computed with equal blocks.
    """
    x = tl.zeros([B_ROWS, B_VOCAB], tl.float32)
    i_vocab = tl.minimum(o_vocab + tl.arange(0, B_VOCAB), vocab_size - 1)  # [B_VOCAB]
    if TMA:
        for o_depth in tl.range(0, width, B_DEPTH):
            h = hidden.load([o_row, o_depth])  # [B_ROWS, B_DEPTH], zeros past the end
            w = weight.load([o_vocab, o_depth])  # [B_VOCAB, B_DEPTH]
            x = tl.dot(h.to(OPERAND), w.to(OPERAND).T, x, input_precision=PRECISION)
    else:
        i_row = tl.minimum(o_row + tl.arange(0, B_ROWS), n_rows - 1).to(tl.int64)  # [B_ROWS]
        i_depth = tl.arange(0, B_DEPTH)
        h_pointers = hidden + i_row[:, None] * width + i_depth[None, :]
        w_pointers = weight + i_vocab.to(tl.int64)[:, None] * width + i_depth[None, :]
        for o_depth in tl.range(0, width, B_DEPTH):
            if EVEN:
                h, w = tl.load(h_pointers), tl.load(w_pointers)
            else:
                m_depth = (o_depth + i_depth < width)[None, :]
                h, w = tl.load(h_pointers, m_depth, other=0.0), tl.load(w_pointers, m_depth, other=0.0)
            x = tl.dot(h.to(OPERAND), w.to(OPERAND).T, x, input_precision=PRECISION)
            h_pointers += B_DEPTH
            w_pointers += B_DEPTH
    if bias is not None:
        x += tl.load(bias + i_vocab).to(tl.float32)[None, :]
    x *= scale
    if softcap is not None:
        x = softcap * tanh(x / softcap)
    return x
