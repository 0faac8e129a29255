"""Drawn problems for every backend of the probe core, and what it means to agree with the reference."""

from __future__ import annotations

import math

import torch
from hypothesis import strategies as st
from torch import Tensor

from kernels import LensStatistics, Unembedding

FLOATS = (
    "logsumexp", "entropy", "max_prob", "top_logprobs", "watch_logprob", "watch_mass", "watch_entropy",
    "kl_final", "js_final",
)  # fmt: skip


@st.composite
def problems(draw: st.DrawFn) -> dict[str, object]:
    """A small problem; whole-numbered matrices make exact products and many ties."""
    rows, width, vocabulary = draw(st.integers(0, 9)), draw(st.integers(1, 24)), draw(st.integers(1, 300))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    spread = draw(st.sampled_from([0, 1, 2, 40]))
    softcap = draw(st.sampled_from([None, 30.0]))
    # Behind a soft-cap the statistics no longer show how large the products were, and so how much they round.
    exact = softcap is not None and spread == 40

    def matrix(*shape: int) -> Tensor:
        if draw(st.booleans()) or exact:
            return torch.randint(-spread, spread + 1, shape, generator=generator).float()
        return torch.randn(shape, generator=generator) * spread

    padding = draw(st.integers(0, 5))
    hidden = matrix(rows, width)
    for row in range(rows):
        if draw(st.integers(0, 9)) == 0:
            hidden[row, draw(st.integers(0, width - 1))] = draw(st.sampled_from([math.nan, math.inf]))
    final = st.lists(st.integers(0, max(0, rows - 1)), min_size=rows, max_size=rows)
    unembedding = Unembedding(
        torch.cat([matrix(vocabulary, width), torch.full((padding, width), 1e4)]),
        bias=matrix(vocabulary + padding) if draw(st.booleans()) else None,
        scale=draw(st.sampled_from([1.0, 0.125])),
        softcap=softcap,
        vocab_size=vocabulary,
    )
    watched = draw(st.integers(0, 6))
    ids = torch.randint(0, vocabulary, (rows, watched), generator=generator)  # of each row's own, or of all
    return {
        "hidden": hidden,
        "unembedding": unembedding,
        "watch_ids": (ids if draw(st.booleans()) else ids[:1].flatten()).tolist(),
        "top_k": draw(st.integers(0, 12)),
        "final_rows": draw(st.none() | final),
    }


def arguments(problem: dict[str, object]) -> tuple[object, ...]:
    """A problem as the arguments that every backend's own function takes."""
    final = problem["final_rows"]
    return (
        problem["hidden"],
        problem["unembedding"],
        torch.tensor(problem["watch_ids"], dtype=torch.int64),
        problem["top_k"],
        None if final is None else torch.tensor(final, dtype=torch.int64),
    )


def assert_close(ours: LensStatistics, truth: LensStatistics) -> None:
    """Check all statistics but ranks and top ids, which follow the backend's own rounding of the logits."""
    finite = truth.logsumexp[torch.isfinite(truth.logsumexp)]
    magnitude = float(finite.abs().max()) if len(finite) else 0.0  # float32 logits round in proportion
    for name in FLOATS:
        left, right = getattr(ours, name), getattr(truth, name)
        assert (left is None) == (right is None), name
        if left is not None:
            # Rounded logits move probabilities, and KL weighs these with differences of logits.
            of_kl = 1e-7 * magnitude**2 if name == "kl_final" else 0.0
            torch.testing.assert_close(
                left.double(),
                right.double(),
                rtol=1e-5,
                atol=1e-4 + 2e-6 * magnitude + of_kl,
                equal_nan=True,
                msg=name,
            )
    assert ours.nonfinite_rows == truth.nonfinite_rows
