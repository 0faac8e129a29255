"""When it pays to read the tokens that several sequences begin with once for all of them."""

from __future__ import annotations

LEAST_TOKENS = 32
LEAST_SHARE = 0.25


def pays(shared: float, mean: float) -> bool:
    """Tell whether to read so many shared tokens apart from the rest of sequences of a mean length."""
    return shared >= max(LEAST_TOKENS, LEAST_SHARE * mean)
