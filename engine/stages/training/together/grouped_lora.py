"""A linear module with the LoRA adapters of several trainings, each at work on its own rows.

The products with the adapters' matrices are batched ones over the trainings: h = x A^T, then y + h B^T, where
the matrices of all are stacked, smaller ranks filled up with zeros (LoRA: arXiv 2106.09685; many adapters at
once in one batch: arXiv 2310.18547). Rows of different trainings never meet in a sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from attrs import define, field, frozen
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from engine.stages.training.micro_batches import Draws

NAME = "default"  # of a training's adapter, as peft calls the first


@frozen
class Adapter:
    """One training's matrices of one module: `a` [r, D_in], `b` [D_out, r]."""

    a: nn.Parameter
    b: nn.Parameter
    scale: float
    dropout: float

    @classmethod
    def of(cls, layer: LoraLayer) -> Adapter:
        """Take them from a module as peft has adapted it."""
        dropout = getattr(layer.lora_dropout[NAME], "p", 0.0)
        return cls(layer.lora_A[NAME].weight, layer.lora_B[NAME].weight, layer.scaling[NAME], dropout)


@define(eq=False)
class RowLayout:
    """Whose the rows of a pass are: n trainings have R each, one after another, of T tokens.

    A training with fewer or shorter examples has others in their place, which take no part in its loss.
    """

    sizes: list[tuple[int, int]]  # rows and tokens of each training's own batch
    device: torch.device
    draws: list[Draws] = field(factory=list)  # of each training's dropout, as far as they have been drawn

    @property
    def rows(self) -> int:
        """R."""
        return max(rows for rows, _ in self.sizes)

    @property
    def tokens(self) -> int:
        """T."""
        return max(tokens for _, tokens in self.sizes)

    def by_training(self, x: Tensor) -> Tensor:
        """Give the input of a module, [n R, .., D] or [n R T, D], as [n, R, .., D].

        ValueError where it is none, as of a module to which chosen tokens go.
        """
        count, rows, tokens = len(self.sizes), self.rows, self.tokens
        if x.ndim == 2 and len(x) == count * rows * tokens:
            return x.reshape(count, rows, tokens, x.shape[-1])
        if x.ndim > 2 and len(x) == count * rows:
            return x.reshape(count, rows, *x.shape[1:])
        raise ValueError(
            f"an input of shape {list(x.shape)} where rows and tokens are {[count * rows, tokens]}"
        )

    def dropped(self, x: Tensor, training: int, share: float) -> Tensor:
        """Give the input [R, T, D] of one training with dropout, drawn as for its own batch by itself."""
        rows, tokens = self.sizes[training]
        if x.ndim != 3 or x.shape[1] != self.tokens:
            raise ValueError(f"dropout of an input of shape {list(x.shape)} where tokens are {self.tokens}")
        before = Draws.now(self.device)
        self.draws[training].restore(self.device)
        kept = nn.functional.dropout(x[:rows, :tokens], share, training=True)
        self.draws[training] = Draws.now(self.device)
        before.restore(self.device)
        return nn.functional.pad(kept, (0, 0, 0, x.shape[1] - tokens, 0, x.shape[0] - rows))


@define(eq=False)
class Stack:
    """The matrices of one module's adapters in one tensor each, which a pass has its gradients of."""

    adapters: Mapping[int, Adapter]  # by the number of the training in the pass
    a: Tensor = field(init=False)  # [m, r, D_in]
    b: Tensor = field(init=False)  # [m, D_out, r]
    scale: Tensor | float = field(init=False)  # of all, or [m, 1, 1]
    places: Tensor = field(init=False)  # the numbers of the trainings [m]

    def __attrs_post_init__(self) -> None:
        each = list(self.adapters.values())
        rank, first = max(len(adapter.a) for adapter in each), each[0]
        self.a = first.a.new_zeros(len(each), rank, first.a.shape[1]).requires_grad_()
        self.b = first.b.new_zeros(len(each), first.b.shape[0], rank).requires_grad_()
        scales, device = [adapter.scale for adapter in each], first.a.device
        precise = torch.promote_types(first.a.dtype, torch.float32)
        alike = len(set(scales)) == 1
        self.scale = scales[0] if alike else torch.tensor(scales, dtype=precise, device=device)[:, None, None]
        self.places = torch.tensor(list(self.adapters), device=device)

    def pairs(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Yield each matrix of a training and its place in the stack, of its shape."""
        for place, adapter in enumerate(self.adapters.values()):
            rank = len(adapter.a)
            yield adapter.a, self.a.detach()[place, :rank]
            yield adapter.b, self.b.detach()[place, :, :rank]

    def gradients(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Yield each matrix of a training with its gradient; none where the module took no part."""
        if self.a.grad is None or self.b.grad is None:
            return
        for place, adapter in enumerate(self.adapters.values()):
            rank = len(adapter.a)
            yield adapter.a, self.a.grad[place, :rank]
            yield adapter.b, self.b.grad[place, :, :rank].contiguous()

    def clear(self) -> None:
        """Forget the gradients."""
        self.a.grad = self.b.grad = None


class GroupedLora(nn.Module):
    """A linear module with the adapters of those trainings of a pass that have one here."""

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.stack: Stack | None = None
        self.layout: RowLayout | None = None  # of the pass under way

    def forward(self, x: Tensor, *arguments: Any, **options: Any) -> Tensor:
        """Give the module's output, of the shape that it has without adapters."""
        result: Tensor = self.base_layer(x, *arguments, **options)
        if self.stack is None or self.layout is None:
            return result
        stack, layout = self.stack, self.layout
        whole = len(stack.adapters) == len(layout.sizes)
        inputs = self._inputs(layout.by_training(x), stack, layout, whole=whole)
        h, b = torch.bmm(inputs, stack.a.transpose(1, 2)), stack.b.transpose(1, 2)
        plain = result.reshape(len(layout.sizes), -1, result.shape[-1])
        # float16 is to overflow where it does in peft's order of products: steps are left out for that.
        if whole and h.dtype == result.dtype != torch.float16:
            if isinstance(stack.scale, float):
                return torch.baddbmm(plain, h, b, alpha=stack.scale).view(result.shape)
            return torch.baddbmm(plain, (h * stack.scale).to(h.dtype), b).view(result.shape)
        delta = torch.bmm(h, b) * stack.scale
        if whole:
            return (plain + delta).to(result.dtype).view(result.shape)
        return plain.index_add(0, stack.places, delta.to(result.dtype)).view(result.shape)

    def _inputs(self, x: Tensor, stack: Stack, layout: RowLayout, *, whole: bool) -> Tensor:
        """Give what the adapters read [m, .., D] of the input [n, R, .., D], as peft hands it to them."""
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(stack.a.dtype)
        if self.training and any(adapter.dropout for adapter in stack.adapters.values()):
            each = [
                layout.dropped(x[place], place, adapter.dropout) if adapter.dropout else x[place]
                for place, adapter in stack.adapters.items()
            ]
            return torch.stack(each).flatten(1, -2)
        return (x if whole else x.index_select(0, stack.places)).flatten(1, -2)

    def __getattr__(self, name: str) -> Any:
        """Give what the model's own code reads of a linear module, such as its weight."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.base_layer, name)
