"""Entropy of attention heads at a few query positions, under whatever mask a model has made."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from kernels.attention_entropies import Scoring, check_heads, check_softcap
from kernels.attention_entropies_torch import KEYS, head_scores, online_entropy
from kernels.backends import choose_backend, get_backend


def attention_row_entropy(
    query: Tensor,
    key: Tensor,
    *,
    mask: Tensor | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Give the entropy, in nats, of the attention distribution of P chosen queries: [B, Hq, P] float32.

    H = −Σⱼ aⱼ log aⱼ over the keys j, with aⱼ = exp xⱼ / (Σ exp x + exp sink) and x = c tanh(scale · q·k / c)
    + mask. The float64 reference gives float64. Scratch is O(B · Hq · P).

    A query that sees no key, or a NaN or infinite score, gets NaN. Error against the reference at float32
    inputs: at most 1e-4 nats for scores up to 100.

    Args:
        query: [B, Hq, P, E].
        key: [B, Hkv, T, E], where Hq is a multiple of Hkv (query head h reads key head h // (Hq / Hkv)); both
            of one floating type, rotated if the model rotates them.
        mask: [B or 1, Hq or 1, P, T], boolean (True: seen) or a float to add, of which −∞ and the type's
            lowest number hide a key; None: every key is seen.
        scale: None is 1 / √E.
        softcap: c.
        sinks: [Hq] logits that take weight but are no keys (Xiao et al., arXiv 2309.17453; learned, as in
            gpt-oss): what they take is left out of the sum.
        backend: "auto", "reference" or "torch".

    Raises:
        TypeError: the message names the argument, what was found and what was expected.
        ValueError: the message names the argument, what was found and what was expected.
    """
    check_heads(query, key, same_length=False)
    check_softcap(softcap)
    _check_mask(mask, query, key)
    if sinks is not None and sinks.shape != query.shape[1:2]:
        raise ValueError(f"sinks: found shape {tuple(sinks.shape)}, expected ({query.shape[1]},)")
    scoring = Scoring(query.shape[3] ** -0.5 if scale is None else float(scale), False, None, softcap)
    operation = "attention_row_entropy"
    compute = get_backend(choose_backend(query.device, backend, operation), operation)
    entropy: Tensor = compute(query, key, mask, scoring, sinks)
    return entropy


def reference(
    query: Tensor, key: Tensor, mask: Tensor | None, scoring: Scoring, sinks: Tensor | None
) -> Tensor:
    """Compute all weights in float64, then their entropy: [B, Hq, P] float64."""
    seen, scores = _masked(head_scores(query.double(), key.double(), scoring), mask)
    seen = seen.expand_as(scores)
    broken = (seen & ~torch.isfinite(scores)).any(dim=3) | ~seen.any(dim=3)
    scores = scores.masked_fill(~seen, -math.inf).masked_fill(broken[..., None], 0.0)
    if sinks is not None:
        scores = torch.cat([scores, sinks.double()[:, None, None].expand(*scores.shape[:3], 1)], dim=3)
    weights = scores.softmax(dim=3)[..., : key.shape[2]]
    return -torch.xlogy(weights, weights).sum(dim=3).masked_fill(broken, math.nan)


def torch_tiled(
    query: Tensor, key: Tensor, mask: Tensor | None, scoring: Scoring, sinks: Tensor | None
) -> Tensor:
    """Compute the entropy over blocks of keys, in float32 with sums in float64."""
    query = query.float()  # the rows are few, so products in full precision cost little

    def tiles() -> Iterable[tuple[Tensor, Tensor]]:
        for start in range(0, key.shape[2], KEYS):
            keys = slice(start, start + KEYS)
            scores = head_scores(query, key[:, :, keys].float(), scoring)
            yield _masked(scores, None if mask is None else mask[..., keys])

    entropy, logsumexp = online_entropy(tiles(), query)
    if sinks is not None:  # aⱼ = s cⱼ, where the cⱼ add up to 1: H = s (H(c) − log s)
        log_share = -torch.nn.functional.softplus(sinks.double()[:, None] - logsumexp)
        entropy = log_share.exp() * (entropy - log_share)
    return entropy.float()


def _masked(scores: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Give which keys are seen, [1 or B, 1 or Hq, P, k], and the scores with the mask added."""
    if mask is None:
        return torch.ones_like(scores[:1, :1], dtype=torch.bool), scores
    if mask.dtype == torch.bool:
        return mask, scores
    seen = mask > torch.finfo(mask.dtype).min
    return seen, scores + torch.where(seen, mask, 0.0).to(scores.dtype)


def _check_mask(mask: Tensor | None, query: Tensor, key: Tensor) -> None:
    if mask is None:
        return
    batch, heads, rows, _ = query.shape
    expected = f"[{batch} or 1, {heads} or 1, {rows}, {key.shape[2]}]"
    fits = mask.ndim == 4 and mask.shape[0] in (1, batch) and mask.shape[1] in (1, heads)
    if not fits or tuple(mask.shape[2:]) != (rows, key.shape[2]):
        raise ValueError(f"mask: found shape {tuple(mask.shape)}, expected {expected}")
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise TypeError(f"mask: found {mask.dtype}, expected bool or a floating type")
