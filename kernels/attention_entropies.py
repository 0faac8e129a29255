"""Entropy of attention heads, straight from queries and keys, without [heads, T, T] weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import frozen
from torch import Tensor

from kernels.backends import choose_backend, get_backend


@frozen
class Scoring:
    """How a score comes of q·k, and which keys a query sees."""

    scale: float
    causal: bool
    window: int | None
    softcap: float | None

    def visible(self, queries: Tensor, keys: Tensor, lengths: Tensor) -> Tensor:
        """Tell which key positions [k] each query position [q] sees, with `lengths` [B]: [B, q, k]."""
        distance = queries[:, None] - keys[None, :]
        seen = torch.ones_like(distance, dtype=torch.bool)
        if self.causal:
            seen &= distance >= 0
        if self.window is not None:
            seen &= distance.abs() < self.window
        return seen & (keys < lengths[:, None])[:, None, :]


def attention_entropy(
    query: Tensor,
    key: Tensor,
    *,
    scale: float | None = None,
    causal: bool = True,
    window: int | None = None,
    softcap: float | None = None,
    lengths: Tensor | Sequence[int] | None = None,
    backend: str = "auto",
) -> Tensor:
    """Give the entropy, in nats, of every query position's attention distribution: [B, Hq, T] float32.

    H = −Σₛ aₛ log aₛ with a = softmax of scale · q·k over the keys that a position sees, by the online
    softmax (Milakov & Gimelshein, arXiv 1805.02867). The float64 reference gives float64.

    A position that sees a NaN or infinite score gets NaN. Error against the reference at float32 inputs: at
    most 1e-4 nats for scores up to 100.

    Args:
        query: [B, Hq, T, E].
        key: [B, Hkv, T, E], where Hq is a multiple of Hkv (grouped-query attention, arXiv 2305.13245: query
            head h reads key head h // (Hq / Hkv)); both of one floating type, rotated if the model rotates
            them.
        scale: None is 1 / √E.
        causal: a position sees itself and those before it.
        window: only positions less than `window` away.
        softcap: c in c tanh(score / c).
        lengths: [B], sequences padded on the right; padding is no key, and its own rows are NaN.
        backend: "auto", "reference", "torch" or "triton".

    Raises:
        TypeError: the message names the argument, what was found and what was expected.
        ValueError: the message names the argument, what was found and what was expected.
    """
    check_heads(query, key)
    if window is not None and window < 1:
        raise ValueError(f"window: found {window}, expected None or 1 or more")
    check_softcap(softcap)
    compute = get_backend(choose_backend(query.device, backend, "attention_entropy"), "attention_entropy")
    scoring = Scoring(query.shape[3] ** -0.5 if scale is None else float(scale), causal, window, softcap)
    entropy: Tensor = compute(query, key, scoring, _lengths(lengths, query))
    return entropy


def check_softcap(softcap: float | None) -> None:
    """Raise ValueError for a soft-cap that is none."""
    if softcap is not None and not softcap > 0:
        raise ValueError(f"softcap: found {softcap}, expected None or a positive number")


def check_heads(query: Tensor, key: Tensor, *, same_length: bool = True) -> None:
    """Raise TypeError or ValueError where query and key do not belong together."""
    for name, heads in (("query", query), ("key", key)):
        if heads.ndim != 4 or heads.shape[3] == 0:
            raise ValueError(f"{name}: found shape {tuple(heads.shape)}, expected [B, H, T, E]")
        if not heads.is_floating_point():
            raise TypeError(f"{name}: found {heads.dtype}, expected a floating type")
    batch, count, length, width = query.shape
    keys = length if same_length else key.shape[2]
    if (key.shape[0], *key.shape[2:]) != (batch, keys, width):
        raise ValueError(f"key: found shape {tuple(key.shape)}, expected [{batch}, Hkv, {keys}, {width}]")
    if key.shape[1] == 0 or count % key.shape[1]:
        raise ValueError(f"key: found {key.shape[1]} heads, expected a divisor of the query's {count}")
    if key.dtype != query.dtype:
        raise TypeError(f"key: found {key.dtype}, expected the query's {query.dtype}")
    if key.device != query.device:
        raise ValueError(f"key: found on {key.device}, expected the query's device {query.device}")


def _lengths(lengths: Tensor | Sequence[int] | None, query: Tensor) -> Tensor:
    batch, _, length, _ = query.shape
    if lengths is None:
        return torch.full((batch,), length, device=query.device)
    tensor = torch.as_tensor(lengths, device=query.device)
    if tensor.shape != (batch,):
        raise ValueError(f"lengths: found shape {tuple(tensor.shape)}, expected ({batch},)")
    if tensor.numel() and (tensor.is_floating_point() or tensor.dtype == torch.bool):
        raise TypeError(f"lengths: found {tensor.dtype}, expected whole numbers")
    wrong = tensor[(tensor < 0) | (tensor > length)]
    if len(wrong):
        raise ValueError(f"lengths: found {int(wrong[0])}, expected 0 to {length}")
    return tensor.to(torch.int64)
