"""The entropy of a model's attention heads at watched positions, taken while the model runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from engine.errors import EngineError
from engine.models.lens import Lens
from kernels import attention_row_entropy

# Models ask this for the function that attends, at every call; it is given their own queries, keys and mask.
_choose = AttentionInterface.get_interface


@contextmanager
def watching_heads(
    lens: Lens, layers: Sequence[int], positions: Tensor, backend: str = "auto"
) -> Iterator[list[Tensor]]:
    """Collect head entropies, in nats, while the model runs once inside the `with` block.

    H = −Σⱼ aⱼ log aⱼ of each head's attention row at each watched position, as the layer itself attends:
    with its rotated queries and keys, its mask (padding and sliding window included), scale, soft-cap and
    sinks, grouped heads as they are. No [heads, T, T] weights are made. The attention is left as it is.

    layers: 0 = the embedding, which has no heads and gets NaN, l = block l. positions: [B, P], of the tokens
    that the model is called with. After the block the yielded list holds one tensor [B, P, heads] per layer.
    EngineError, then, where a layer does not attend once, through transformers' interface, with the number
    of heads in the model's config.
    """
    number = {id(module): n for n, layer in enumerate(lens.layers, start=1) for module in layer.modules()}
    entropies: dict[int, Tensor] = {}
    caught: list[Tensor] = []

    def choose(self: AttentionInterface, name: str, default: Callable[..., Any]) -> Callable[..., Any]:
        attend = _choose(self, name, default)

        def watched(module: Any, query: Tensor, key: Tensor, *rest: Any, **options: Any) -> Any:
            layer = number.get(id(module))
            if layer is not None and layer in layers:
                if layer in entropies:
                    raise _not_followed(lens, layer, "it attends more than once")
                mask = options["attention_mask"] if "attention_mask" in options else rest[1]
                entropies[layer] = _row_entropy(
                    lens, layer, module, query, key, mask, positions, options, backend
                )
            return attend(module, query, key, *rest, **options)

        return watched

    AttentionInterface.get_interface = choose
    try:
        yield caught
    finally:
        AttentionInterface.get_interface = _choose
    nothing = torch.full((*positions.shape, lens.heads), math.nan, device=lens.device)
    for layer in layers:
        if layer and layer not in entropies:
            raise _not_followed(lens, layer, "it does not attend through transformers' AttentionInterface")
        caught.append(entropies[layer] if layer else nothing)


def check_heads(lens: Lens) -> None:
    """Raise EngineError where the heads of a model cannot be watched; runs it over one token."""
    first = torch.zeros((1, 1), dtype=torch.int64, device=lens.device)
    with torch.inference_mode(), watching_heads(lens, range(1, len(lens.layers) + 1), first):
        lens.last_hidden(first, torch.ones_like(first))


def _row_entropy(
    lens: Lens,
    layer: int,
    module: Any,
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    positions: Tensor,
    options: dict[str, Any],
    backend: str,
) -> Tensor:
    """Give one layer's entropies [B, P, heads] from what its attention function is called with."""
    if query.shape[1] != lens.heads:
        raise _not_followed(lens, layer, f"it has {query.shape[1]} heads, the model's config {lens.heads}")
    if options.get("position_bias") is not None or not (mask is None or torch.is_tensor(mask)):
        raise _not_followed(lens, layer, "it attends with a position bias or a block mask")
    rows = torch.arange(len(positions), device=positions.device)[:, None]
    entropy = attention_row_entropy(
        query.transpose(1, 2)[rows, positions].transpose(1, 2),
        key,
        mask=_mask_rows(module, query, key, mask, positions, options),
        scale=options.get("scaling"),
        softcap=options.get("softcap"),
        sinks=options.get("s_aux"),
        backend=backend,
    )
    return entropy.transpose(1, 2)


def _mask_rows(
    module: Any,
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    positions: Tensor,
    options: dict[str, Any],
) -> Tensor:
    """Give the mask of the watched rows: [B, 1 or heads, P, T]; True or 0 where a key is seen.

    positions: of queries, which are the last of the T tokens.
    """
    keys = torch.arange(key.shape[2], device=key.device)
    if mask is not None and mask.ndim == 4:
        rows = torch.arange(len(positions), device=positions.device)[:, None]
        whole = mask.expand(len(positions), -1, -1, -1)[..., : len(keys)]
        return whole.transpose(1, 2)[rows, positions].transpose(1, 2)
    # Functions with a causal mode of their own get no mask, or the padding's alone, [B, T].
    distance = positions[..., None] + (len(keys) - query.shape[2]) - keys
    causal = options.get("is_causal")
    seen = torch.ones_like(distance, dtype=torch.bool)
    if getattr(module, "is_causal", True) if causal is None else causal:
        seen &= distance >= 0
    if (window := options.get("sliding_window")) is not None:
        seen &= distance < window
    if mask is not None:
        seen &= mask[:, None, : len(keys)].bool()
    return seen[:, None]


def _not_followed(lens: Lens, layer: int, why: str) -> EngineError:
    return EngineError(
        f"probe.heads: found true, but the attention of layer {layer} of {type(lens.decoder).__name__} "
        f"cannot be watched: {why}; expected false for this model"
    )
