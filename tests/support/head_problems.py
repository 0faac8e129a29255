"""Drawn queries and keys for every backend of the attention entropy, and hidden vectors."""

from __future__ import annotations

import math

import torch
from hypothesis import strategies as st
from torch import Tensor


@st.composite
def heads(draw: st.DrawFn, longest: int = 40) -> dict[str, object]:
    """Small grouped heads; some with NaN, infinite, large or equal scores."""
    batch, groups, group = draw(st.integers(0, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    length, width = draw(st.integers(0, longest)), draw(st.integers(1, 20))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    spread = draw(st.sampled_from([0.0, 1.0, 4.0]))

    def matrix(count: int) -> Tensor:
        # Laid out as models have them, [B, T, H, E], and seen as [B, H, T, E].
        return (torch.randn(batch, length, count, width, generator=generator) * spread).transpose(1, 2)

    query, key = matrix(groups * group), matrix(groups)
    if batch and length and draw(st.integers(0, 3)) == 0:
        chosen = draw(st.sampled_from([query, key]))
        chosen[0, 0, draw(st.integers(0, length - 1)), 0] = draw(st.sampled_from([math.nan, math.inf]))
    return {
        "query": query,
        "key": key,
        "scale": draw(st.sampled_from([None, 0.5])),
        "causal": draw(st.booleans()),
        "window": draw(st.none() | st.integers(1, longest + 2)),
        "softcap": draw(st.sampled_from([None, 20.0])),
        "lengths": draw(st.none() | st.lists(st.integers(0, length), min_size=batch, max_size=batch)),
    }


@st.composite
def vectors(draw: st.DrawFn) -> Tensor:
    """A few hidden vectors [..., D]; some zero, NaN, infinite, huge or tiny."""
    shape = draw(st.sampled_from([(), (3,), (2, 2)]))
    width = draw(st.integers(1, 70))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    hidden = torch.randn(*shape, width, generator=generator) * draw(st.sampled_from([0.0, 1e-30, 1.0, 1e30]))
    if draw(st.booleans()):
        hidden[..., draw(st.integers(0, width - 1))] = draw(st.sampled_from([0.0, math.nan, math.inf]))
    return hidden
