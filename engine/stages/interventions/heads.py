"""Ablation of attention heads: what a head writes is replaced where it enters the output projection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from engine.models.head_outputs import output_projection
from engine.models.lens import Lens
from engine.planning.changes import Change

Means = Mapping[int, Tensor]  # by layer, the heads' mean outputs [H * head width]


@contextmanager
def ablated(lens: Lens, change: Change, means: Means) -> Iterator[None]:
    """Replace the outputs of a change's heads by zero or their means inside the `with` block."""
    with ExitStack() as stack:
        for layer in change.layers if change.kind == "heads" else ():
            mean = means[layer] if change.ablation == "mean" else None

            def replace(_: nn.Module, args: Any, mean: Tensor | None = mean) -> Any:
                written = args[0].clone()
                by_head = written.view(*written.shape[:-1], lens.heads, -1)
                for head in change.heads:
                    by_head[..., head, :] = 0 if mean is None else mean.view(lens.heads, -1)[head]
                return (written, *args[1:])

            stack.callback(output_projection(lens, layer).register_forward_pre_hook(replace).remove)
        yield


@torch.inference_mode()
def head_means(
    lens: Lens, layers: Iterable[int], batches: Iterable[tuple[Tensor, Tensor]]
) -> dict[int, Tensor]:
    """Give the mean output of the heads of each layer over all tokens of the batches, padding left out.

    batches: token ids and mask, [S, T] each.
    """
    sums: dict[int, Tensor] = {}
    tokens = 0
    for ids, mask in batches:
        kept = mask.bool()
        tokens += int(kept.sum())
        with ExitStack() as stack:
            for layer in layers:

                def add(_: nn.Module, args: Any, layer: int = layer, kept: Tensor = kept) -> None:
                    summed = args[0][kept].double().sum(dim=0)
                    sums[layer] = sums[layer] + summed if layer in sums else summed

                stack.callback(output_projection(lens, layer).register_forward_pre_hook(add).remove)
            lens.last_hidden(ids, lens.needed(mask))
    return {layer: total / tokens for layer, total in sums.items()}
