"""Attention entropy in torch: the float64 oracle from whole scores, and the backend that tiles them."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from kernels.attention_entropies import Scoring
from kernels.product import exact_float32

QUERIES, KEYS = 256, 512  # positions per tile: float32 scores take 512 KiB per head


def reference(query: Tensor, key: Tensor, scoring: Scoring, lengths: Tensor) -> Tensor:
    """Compute all scores in float64, then their entropy: [B, Hq, T] float64."""
    positions = torch.arange(query.shape[2], device=query.device)
    seen = scoring.visible(positions, positions, lengths)[:, None]
    scores = head_scores(query.double(), key.double(), scoring)
    broken = (seen & ~torch.isfinite(scores)).any(dim=3)
    scores = scores.masked_fill(~seen, -math.inf).masked_fill(broken[..., None], 0.0)
    logp = torch.log_softmax(scores, dim=3)
    terms = logp.exp() * logp
    entropy = -torch.where(seen, terms, 0.0).sum(dim=3)
    padded = (positions >= lengths[:, None])[:, None]
    return entropy.masked_fill(broken | padded, math.nan)


def torch_tiled(query: Tensor, key: Tensor, scoring: Scoring, lengths: Tensor) -> Tensor:
    """Compute the entropy block by block of queries; scratch is O(B · Hq), whatever T is."""
    query, key = query.float(), key.float()  # else the scores would be rounded to half precision
    entropy = torch.full(query.shape[:3], math.nan, device=query.device)
    positions = torch.arange(query.shape[2], device=query.device)
    for queries in torch.split(positions, QUERIES) if entropy.numel() else ():
        block = query[:, :, queries[0] : queries[-1] + 1]
        entropy[:, :, queries] = _block(block, key, queries, positions, scoring, lengths)
    return entropy


def _block(
    query: Tensor, key: Tensor, queries: Tensor, positions: Tensor, scoring: Scoring, lengths: Tensor
) -> Tensor:
    """Give the entropies [B, Hq, q] of a block of queries."""

    def tiles() -> Iterable[tuple[Tensor, Tensor]]:
        for keys in torch.split(positions, KEYS):
            seen = scoring.visible(queries, keys, lengths)[:, None]
            if seen.any():
                yield seen, head_scores(query, key[:, :, keys[0] : keys[-1] + 1], scoring).float()

    entropy, _ = online_entropy(tiles(), query)
    return entropy.masked_fill((queries >= lengths[:, None])[:, None], math.nan).float()


def online_entropy(tiles: Iterable[tuple[Tensor, Tensor]], query: Tensor) -> tuple[Tensor, Tensor]:
    """Give entropy and log Σ exp score over all keys, each [B, Hq, q] float64, for query [B, Hq, q, E].

    tiles: of some keys each, which of them are seen [B, 1 or Hq, q, k], and their scores [B, Hq, q, k]. A
    query that sees no key, or a NaN or infinite score, gets NaN.
    """
    maximum = torch.full(query.shape[:3], -math.inf, dtype=torch.float64, device=query.device)
    total, weighted = torch.zeros_like(maximum), torch.zeros_like(maximum)
    for seen, scores in tiles:
        # A NaN or infinite score makes the weighted sum NaN (0 · −∞ included); that is its only mark.
        new = torch.maximum(maximum, torch.where(seen, scores, -math.inf).amax(dim=3).double())
        safe = torch.where(new == -math.inf, 0.0, new)
        shifted = torch.where(seen, scores - safe[..., None].float(), 0.0)
        e = torch.where(seen, shifted.exp(), 0.0)
        shift = torch.where(maximum == -math.inf, 0.0, maximum - safe)
        total = shift.exp() * total
        weighted = shift.exp() * weighted + shift * total + (e * shifted).sum(dim=3, dtype=torch.float64)
        total, maximum = total + e.sum(dim=3, dtype=torch.float64), new
    return (total.log() - weighted / total).clamp_min(0), maximum + total.log()


def head_scores(query: Tensor, key: Tensor, scoring: Scoring) -> Tensor:
    """Give scores [B, Hq, q, k]; a group of query heads reads one key head."""
    batch, heads, length, width = query.shape
    groups, keys = key.shape[1:3]
    grouped = query.reshape(batch, groups, heads // groups * length, width)
    with exact_float32(query.device):
        scores = scoring.scale * (grouped @ key.transpose(2, 3)).reshape(batch, heads, length, keys)
    return scores if scoring.softcap is None else scoring.softcap * torch.tanh(scores / scoring.softcap)
