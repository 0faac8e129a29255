"""What a model's routers of experts give at watched positions, taken while the model runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from engine.models.lens import Lens

ROUTED = "router_logits"  # what transformers calls a router's output


def routers_of(lens: Lens) -> dict[int, tuple[nn.Module, int]]:
    """Find the router of each block that has one: the module, and where its logits are in its output.

    transformers' models name the class of their routers. Of several in a block the last counts, which is that
    of its feed-forward part.
    """
    named = getattr(type(lens.decoder), "_can_record_outputs", None) or {}
    recorded = named.get(ROUTED, [])
    recorders = recorded if isinstance(recorded, list) else [recorded]
    found: dict[int, tuple[nn.Module, int]] = {}
    for number, block in enumerate(lens.layers, start=1):
        for recorder in recorders:
            kind: Any = getattr(recorder, "target_class", recorder)
            within = getattr(recorder, "layer_name", None) or ""
            for name, module in block.named_modules():
                if isinstance(module, kind) and within in name:
                    found[number] = module, int(getattr(recorder, "index", 0))
    return found


def experts_of(lens: Lens) -> int:
    """Give the experts that routers choose among, 0 where there is no router; runs the model over a token."""
    if not (routers := routers_of(lens)):
        return 0
    first = torch.zeros((1, 1), dtype=torch.int64, device=lens.device)
    with torch.inference_mode(), watching_routers(lens, list(routers), first) as caught:
        lens.last_hidden(first, torch.ones_like(first))
    return caught[0].shape[-1]


@contextmanager
def watching_routers(lens: Lens, layers: Sequence[int], positions: Tensor) -> Iterator[list[Tensor]]:
    """Collect the probabilities that routers give experts, while the model runs once inside the `with` block.

    They are the softmax of a router's logits over all its experts, whatever it makes of them to weight those
    that it chooses. positions: [B, P] token positions. After the block the yielded list holds [B, P, X] of
    each layer; NaN at the embedding and in blocks without router.
    """
    routers = routers_of(lens)
    caught: list[Tensor] = []
    seen: dict[int, Tensor] = {}
    rows = torch.arange(len(positions), device=positions.device)[:, None]

    def keep(layer: int, output: Any) -> None:
        logits = output if torch.is_tensor(output) else output[routers[layer][1]]
        by_token = logits.reshape(len(positions), -1, logits.shape[-1])
        seen[layer] = torch.softmax(by_token[rows, positions].float(), dim=-1)

    hooks = [
        routers[layer][0].register_forward_hook(lambda _, _args, output, layer=layer: keep(layer, output))
        for layer in layers
        if layer in routers
    ]
    try:
        yield caught
    finally:
        for hook in hooks:
            hook.remove()
    experts = max((part.shape[-1] for part in seen.values()), default=0)
    nothing = torch.full((*positions.shape, experts), torch.nan, device=positions.device)
    caught += [seen.get(layer, nothing) for layer in layers]
