"""Jacobians of a text by their definition: torch's own derivative of whole streams, in float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engine.models.lens import Lens


def jacobian_of(lens: Lens, ids: list[int], layer: int, skip: int) -> Tensor:
    """[D, D]: of the positions that count, the sum over t′ and mean over t of ∂h_final[t′] / ∂h_layer[t]."""
    tokens, mask = torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.int64)
    everywhere = torch.arange(len(ids))[None]
    with torch.no_grad(), lens.watching([layer], everywhere) as caught:
        lens.last_hidden(tokens, mask)

    def final(stream: Tensor) -> Tensor:
        def enter(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if args:
                return (stream[None], *args[1:]), kwargs
            return args, kwargs | {"hidden_states": stream[None]}

        def leave(_: Any, __: Any, output: Any) -> Any:
            return (stream[None], *output[1:]) if isinstance(output, tuple) else stream[None]

        hook = (
            lens.layers[layer - 1].register_forward_hook(leave)
            if layer
            else lens.layers[0].register_forward_pre_hook(enter, with_kwargs=True)
        )
        with lens.watching([len(lens.layers)], everywhere) as last:
            try:
                lens.last_hidden(tokens, mask)
            finally:
                hook.remove()
        return last[0][0]

    whole = torch.autograd.functional.jacobian(final, caught[0][0])  # [T, D, T, D]
    counted = slice(skip, len(ids) - 1)
    return whole[counted][:, :, counted].sum(dim=0).mean(dim=1)


def mean_jacobian(lens: Lens, texts: list[list[int]], layer: int, skip: int) -> Tensor:
    """The mean of the texts', each text alike."""
    return torch.stack([jacobian_of(lens, ids, layer, skip) for ids in texts]).mean(dim=0)
