"""The parts of a decoder's block, known by the names that transformers' models give them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

ATTENTION, MLP, OTHER = "attention", "mlp", "other"
KINDS = (ATTENTION, MLP, OTHER)
"""Who adds to the residual stream: what reads other tokens, what reads each by itself, anything else."""

# State-space models, convolutions and recurrences read other tokens in place of attention.
_MIXERS = re.compile(r"attn|attention|mixer|mamba|ssm|conv|lstm|temporal|recurrent")
_MLPS = re.compile(r"mlp|ffn|feed_?forward|moe|expert|fc\d", re.IGNORECASE)
_BETWEEN = re.compile(r"norm|ln_?\d|dropout")
_ANY_MIXER = "mixer"  # Blocks of one part each call it so, whatever it is.


def attention_modules(layer: nn.Module) -> list[nn.Module]:
    """Give a layer's attention, by the names that transformers uses: self_attn, attn, attention, ..."""
    return [
        child
        for name, child in layer.named_children()
        if ("attn" in name or "attention" in name or name == _ANY_MIXER) and "norm" not in name
    ]


def stream_in(args: Any, kwargs: Any) -> Tensor:
    """Give the residual stream that a block is called with."""
    stream: Tensor = args[0] if args else kwargs["hidden_states"]
    return stream


def stream_out(output: Any) -> Tensor:
    """Give what a block, or a part of one, gives first; blocks give the residual stream first."""
    stream: Tensor = output[0] if isinstance(output, tuple | list) else output
    return stream


def parts_of(block: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Give the outermost modules of a block that read other tokens, or each by itself, with their kinds."""
    for name, child in block.named_children():
        kind = _kind(name, child)
        if kind and isinstance(child, nn.ModuleList):
            yield from ((kind, module) for module in child)
        elif kind:
            yield kind, child
        else:
            inner = list(parts_of(child))
            # A norm may have an MLP as its gate; what holds attention is a norm by name alone (DBRX).
            if not _BETWEEN.search(name) or any(kind == ATTENTION for kind, _ in inner):
                yield from inner


def _kind(name: str, module: nn.Module) -> str:
    if _BETWEEN.search(name):
        return ""
    if _MLPS.search(type(module).__name__ if name == _ANY_MIXER else name):
        return MLP
    return ATTENTION if _MIXERS.search(name) else ""
