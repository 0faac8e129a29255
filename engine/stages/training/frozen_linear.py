"""Linear layers with frozen weights, multiplied by the library that is fastest on this CPU while training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from kernels.cpu_product import linear, onednn_is_faster


class FrozenLinear(nn.Linear):
    """A linear layer whose float32 products `kernels.cpu_product` makes; autocast's stay torch's."""

    def forward(self, input: Tensor) -> Tensor:
        """Give rows [..., D] times the weight [N, D] transposed, plus the bias: [..., N]."""
        if _is_float32(input):
            return linear(input, self.weight, self.bias)
        return super().forward(input)


class FrozenConv1D(Conv1D):
    """The same for the layers of GPT-2, whose weights lie transposed: [D, N]."""

    def forward(self, x: Tensor) -> Tensor:
        """Give rows [..., D] times the weight, plus the bias: [..., N]."""
        if _is_float32(x):
            return linear(x, self.weight.mT, self.bias)
        result: Tensor = super().forward(x)
        return result


KINDS: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: FrozenLinear, Conv1D: FrozenConv1D}


def multiply_faster(model: nn.Module) -> list[nn.Module]:
    """Let a model's frozen float32 layers use the faster products, where this CPU has any; give these layers.

    Results stay the same up to rounding.
    """
    if not onednn_is_faster():
        return []
    changed = [module for module in model.modules() if type(module) in KINDS and _is_frozen(module)]
    for module in changed:
        module.__class__ = KINDS[type(module)]
    return changed


@contextmanager
def faster_products(model: nn.Module) -> Iterator[None]:
    """Let a model's frozen layers use the faster products inside the `with` block."""
    changed = multiply_faster(model)
    try:
        yield
    finally:
        for module in changed:
            module.__class__ = type(module).__bases__[0]


def _is_frozen(module: nn.Module) -> bool:
    return all(
        not each.requires_grad and each.dtype == torch.float32 and each.device.type == "cpu"
        for each in module.parameters(recurse=False)
    )


def _is_float32(rows: Tensor) -> bool:
    return rows.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
