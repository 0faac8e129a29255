"""What a block's attention heads give: the input of the projection that mixes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import EngineError
from engine.models.block_parts import attention_modules
from engine.models.lens import Lens

# The names of the projection behind the heads in the attention modules of transformers.
PROJECTIONS = ("o_proj", "out_proj", "c_proj", "dense", "wo")


def output_projection(lens: Lens, layer: int, asking: str = "interventions") -> nn.Module:
    """Give the module that mixes a layer's heads; EngineError where none is known by its name.

    asking: the key of the spec that takes heads apart, for messages.
    """
    for attention in attention_modules(lens.layers[layer - 1]):
        for module_name, module in attention.named_modules():
            if module_name.rpartition(".")[2] in PROJECTIONS:
                return module
    raise EngineError(
        f"{asking}: found no output projection in the attention of layer {layer} of "
        f"{type(lens.decoder).__name__}; looked for {', '.join(PROJECTIONS)}"
    )


@contextmanager
def watching_head_outputs(lens: Lens, layers: Sequence[int], positions: Tensor) -> Iterator[list[Tensor]]:
    """Collect what the heads give while the model runs once inside the `with` block.

    positions: [B, P] token positions. After the block the yielded list holds [B, P, H * head width] of each
    layer; an empty tensor for the embedding, which has no heads.
    """
    caught: list[Tensor] = []
    seen: dict[int, Tensor] = {}
    rows = torch.arange(len(positions), device=positions.device)[:, None]

    def keep(layer: int, args: Any) -> None:
        seen[layer] = args[0].reshape(len(positions), -1, args[0].shape[-1])[rows, positions]

    hooks = [
        output_projection(lens, layer, "probe.attribution_per_head").register_forward_pre_hook(
            lambda _, args, layer=layer: keep(layer, args)
        )
        for layer in layers
        if layer
    ]
    try:
        yield caught
    finally:
        for hook in hooks:
            hook.remove()
    nothing = torch.empty(*positions.shape, 0, device=positions.device)
    caught += [seen.get(layer, nothing) for layer in layers]
