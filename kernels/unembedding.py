"""The map from normed hidden states to lens logits, whose statistics the probe core computes."""

from __future__ import annotations

import math
from numbers import Real

import torch
from attrs import Attribute, field, frozen
from torch import Tensor

# Soft-caps that stay what they are in float32, and whose reciprocal does.
LEAST_CAP, LARGEST_CAP = 1e-37, 1e37


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_matrix(_: Unembedding, attribute: Attribute[Tensor], weight: Tensor) -> None:
    if not isinstance(weight, Tensor):
        raise TypeError(f"{attribute.name}: found {type(weight).__name__}, expected a tensor")
    if weight.ndim != 2 or 0 in weight.shape:
        raise ValueError(f"{attribute.name}: found shape {tuple(weight.shape)}, expected [V, D]")
    if not weight.is_floating_point():
        raise TypeError(f"{attribute.name}: found {weight.dtype}, expected a floating type")


@frozen(eq=False)
class Unembedding:
    """Lens logits x = scale (H Wᵀ + b), then c tanh(x / c) where there is a soft-cap c.

    The soft-cap is Gemma 2's (arXiv 2408.00118), the scale Cohere's. Raises TypeError or ValueError that
    names the argument, what was found and what was expected.
    """

    weight: Tensor = field(validator=_is_matrix)  # [V', D], any floating type
    bias: Tensor | None = field(default=None, kw_only=True)  # [V']
    scale: float = field(default=1.0, kw_only=True)
    softcap: float | None = field(default=None, kw_only=True)
    vocab_size: int = field(kw_only=True)  # rows from here on are padding and count as no tokens

    @vocab_size.default
    def _all_rows(self) -> int:
        return len(self.weight)

    @vocab_size.validator
    def _within_weight(self, _: Attribute[int], size: int) -> None:
        if not 1 <= size <= len(self.weight):
            raise ValueError(f"vocab_size: found {size}, expected 1 to {len(self.weight)}")

    @bias.validator
    def _fits_weight(self, _: Attribute[Tensor | None], bias: Tensor | None) -> None:
        if bias is None:
            return
        if bias.shape != self.weight.shape[:1]:
            raise ValueError(f"bias: found shape {tuple(bias.shape)}, expected ({len(self.weight)},)")
        if not bias.is_floating_point():
            raise TypeError(f"bias: found {bias.dtype}, expected a floating type")
        if bias.device != self.weight.device:
            raise ValueError(f"bias: found on {bias.device}, expected weight's device {self.weight.device}")

    @scale.validator
    def _is_finite(self, _: Attribute[float], scale: float) -> None:
        if not _is_number(scale):
            raise TypeError(f"scale: found {scale!r}, expected a number")
        if not math.isfinite(scale):
            raise ValueError(f"scale: found {scale}, expected a finite number")

    @softcap.validator
    def _is_positive(self, _: Attribute[float | None], softcap: float | None) -> None:
        if softcap is None:
            return
        if not _is_number(softcap):
            raise TypeError(f"softcap: found {softcap!r}, expected None or a number")
        if not LEAST_CAP <= softcap <= LARGEST_CAP:
            raise ValueError(
                f"softcap: found {softcap}, expected None or a positive number that float32 holds"
            )

    @property
    def width(self) -> int:
        """D."""
        return self.weight.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the weight is."""
        return self.weight.device

    @property
    def tokens(self) -> Tensor:
        """The weight's rows that are tokens, [V, D], and no padding."""
        return self.weight[: self.vocab_size]

    @property
    def token_bias(self) -> Tensor | None:
        """The bias of `tokens`, [V]."""
        return None if self.bias is None else self.bias[: self.vocab_size]

    def finish(self, products: Tensor, start: int = 0) -> Tensor:
        """Make logits of products with the weight's rows, in place where it can.

        Args:
            products: hidden states times rows of the weight [..., t].
            start: the first of these rows.

        Returns:
            logits [..., t].
        """
        x = products
        if self.bias is not None:
            x += self.bias[start : start + x.shape[-1]].to(x.dtype)
        if self.scale != 1.0:
            x *= self.scale
        return x if self.softcap is None else self.softcap * torch.tanh(x / self.softcap)
