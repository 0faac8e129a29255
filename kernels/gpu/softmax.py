"""Running sums of a softmax over tiles, as device functions."""

import triton
import triton.language as tl

LOWEST = tl.constexpr(-3.4028234663852886e38)  # a masked score: no part of a sum, and not NaN as 0 · −∞ is


@triton.jit
def add_pairs(a, b, c, d):
    """Add two pairs."""
    return a + c, b + d


@triton.jit
def accumulate(x, top, old_max, old_total, old_weighted):
    """Add a tile x [R, B], whose row maxima are `top`, to max, Σ e and Σ e (x − max): arXiv 1805.02867.

    Sums over tiles are float64. A NaN or infinite score makes Σ e (x − max) NaN; that is its only mark.
    """
    new_max = tl.maximum(old_max, top)
    shifted = x - new_max[:, None]
    e = tl.exp(shifted)
    tile_total, tile_weighted = tl.reduce((e, e * shifted), 1, add_pairs)
    shift = tl.where(old_max == -float("inf"), 0.0, old_max - new_max)
    decay = tl.exp(shift).to(tl.float64)
    total = decay * old_total
    weighted = decay * old_weighted + shift.to(tl.float64) * total
    return new_max, total + tile_total.to(tl.float64), weighted + tile_weighted.to(tl.float64)
