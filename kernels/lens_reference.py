"""The oracle: every statistic in float64 from whole logits, written to be obviously right."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kernels.lens_result import LensStatistics
from kernels.unembedding import Unembedding
from kernels.watched_ids import by_row, first_of_each


def reference(
    hidden: Tensor,
    unembedding: Unembedding,
    watch_ids: Tensor,
    top_k: int,
    final_rows: Tensor | None,
) -> LensStatistics:
    """Compute logits [R, V] in float64, then their statistics."""
    return statistics_from_logits(whole_logits(hidden, unembedding), watch_ids, top_k, final_rows)


def whole_logits(hidden: Tensor, unembedding: Unembedding) -> Tensor:
    """Compute the lens logits [..., V] of rows [..., D] in float64."""
    logits = hidden.double() @ unembedding.tokens.double().T
    if unembedding.token_bias is not None:
        logits = logits + unembedding.token_bias.double()
    logits = unembedding.scale * logits
    if unembedding.softcap is not None:
        logits = unembedding.softcap * torch.tanh(logits / unembedding.softcap)
    return logits


def statistics_from_logits(
    logits: Tensor, watch_ids: Tensor, top_k: int, final_rows: Tensor | None = None
) -> LensStatistics:
    """Compute the statistics of ready logits [R, V], in float64; watch_ids: [J] or [R, J]."""
    rows, vocabulary = logits.shape
    finite = torch.isfinite(logits).all(dim=1)
    x = torch.where(finite[:, None], logits.double(), 0.0)
    logp = torch.log_softmax(x, dim=1)
    p = logp.exp()
    order = torch.sort(x, dim=1, descending=True, stable=True).indices
    ranks = torch.empty_like(order).scatter_(1, order, torch.arange(vocabulary).repeat(rows, 1).to(order))
    kept = min(top_k, vocabulary)
    top_ids = torch.full((rows, top_k), -1, device=x.device)
    top_logprobs = torch.full((rows, top_k), math.nan, dtype=torch.float64, device=x.device)
    top_ids[:, :kept] = order[:, :kept]
    top_logprobs[:, :kept] = logp.gather(1, order[:, :kept])
    ids = by_row(watch_ids, rows)
    watch_logprob = logp.gather(1, ids)
    once = first_of_each(ids)
    inside = watch_logprob.masked_fill(~once, -math.inf)
    mass = torch.logsumexp(inside, dim=1) if ids.shape[1] else torch.full_like(logp[:, 0], -math.inf)
    q = torch.log_softmax(inside, dim=1).masked_fill(~once, 0.0)
    result = {
        "logsumexp": torch.logsumexp(x, dim=1),
        "entropy": -(p * logp).sum(dim=1),
        "max_prob": p.amax(dim=1),
        "top_logprobs": top_logprobs,
        "watch_logprob": watch_logprob,
        "watch_mass": mass.exp(),
        "watch_entropy": -(q.exp() * q).sum(dim=1),  # a repeat counts as 1 log 1
    }
    divergences: dict[str, Tensor] = {}
    if final_rows is not None:
        final = logp[final_rows]
        mixture = torch.logaddexp(final, logp) - math.log(2)
        to_mixture = [(d.exp() * (d - mixture)).sum(dim=1) for d in (final, logp)]
        divergences["kl_final"] = (final.exp() * (final - logp)).sum(dim=1).clamp_min(0)
        divergences["js_final"] = (0.5 * sum(to_mixture)).clamp_min(0)  # type: ignore[union-attr]
        both = finite & finite[final_rows]
        divergences = {name: value.masked_fill(~both, math.nan) for name, value in divergences.items()}
    for name, value in result.items():
        mask = ~finite if value.ndim == 1 else ~finite[:, None]
        result[name] = value.masked_fill(mask, math.nan)
    return LensStatistics(
        **result,
        kl_final=divergences.get("kl_final"),
        js_final=divergences.get("js_final"),
        top_ids=top_ids.masked_fill(~finite[:, None], -1),
        watch_rank=ranks.gather(1, ids).masked_fill(~finite[:, None], -1),
        nonfinite_rows=int((~finite).sum()),
        backend="reference",
    )
