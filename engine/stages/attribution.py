"""Direct logit attribution: what each part of the residual stream adds to a token's logit.

The final residual stream is a sum of parts: the embedding, and what every block adds. The final norm divides
that sum by a scale; with this scale held as it is, norm and unembedding are linear, and a token's logit is
the sum of what the parts give (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits").
"""

from __future__ import annotations

from contextlib import ExitStack

import torch
from attrs import frozen
from torch import Tensor

from engine.errors import EngineError
from engine.models.block_parts import ATTENTION
from engine.models.block_streams import TOKENS, TOLERANCES, run_apart
from engine.models.head_outputs import output_projection, watching_head_outputs
from engine.models.lens import Lens
from kernels import Unembedding


@frozen(eq=False)
class FrozenNorm:
    """A norm with its scale held as it is at N rows: h ↦ weight ⊙ (h, less its mean) + bias."""

    weight: Tensor  # [N, D]
    bias: Tensor  # [D]
    centred: bool

    @staticmethod
    def of(lens: Lens, rows: Tensor) -> FrozenNorm:
        """Read a lens's final norm off what it makes of zeros, of ones, of other numbers and of the rows.

        Args:
            rows: [N, D] residual streams behind the last block.

        Raises:
            EngineError: where the norm is no such map, but for its scale.
        """
        width = rows.shape[-1]
        mixed = torch.ones(width, dtype=rows.dtype, device=rows.device)
        mixed[1::2] = -1
        if width % 2:
            mixed[-1] = -2
            mixed[-2] = 1
            mixed[-3] = 1
        normed = _wide(lens.norm(torch.stack([torch.zeros_like(mixed), torch.ones_like(mixed), mixed])))
        if normed.shape[-1] != width:
            raise _no_norm(lens)
        bias, gain = normed[0], (normed[2] - normed[0]) / _wide(mixed)
        centred = bool((normed[1] - bias).norm() <= 1e-3 * (normed[2] - bias).norm())
        inner, outer = _wide(rows), _wide(lens.norm(rows)) - bias
        if centred:
            inner = inner - inner.mean(dim=-1, keepdim=True)
        plain = gain * inner
        scale = (outer * plain).sum(-1) / (plain * plain).sum(-1)
        if not _near(scale[:, None] * plain, outer, rows.dtype):
            raise _no_norm(lens)
        return FrozenNorm(scale[:, None] * gain, bias, centred)

    def apply(self, parts: Tensor) -> Tensor:
        """Give what becomes of parts [..., N, D] of the rows, the bias left out."""
        inner = parts.to(self.weight.dtype)
        return self.weight * (inner - inner.mean(dim=-1, keepdim=True) if self.centred else inner)


@frozen(eq=False)
class LogitRows:
    """The rows of the unembedding that belong to J tokens, the same for all N rows or each row's own."""

    weight: Tensor  # [J, D], or [N, J, D]
    bias: Tensor  # [J] or [N, J]

    @staticmethod
    def of(unembedding: Unembedding, ids: Tensor, dtype: torch.dtype) -> LogitRows:
        """Take the rows of token ids [J] or [N, J], scaled as the logits are; a soft-cap is left out."""
        weight = unembedding.weight[ids].to(dtype) * unembedding.scale
        if unembedding.bias is None:
            return LogitRows(weight, torch.zeros(ids.shape, dtype=dtype, device=weight.device))
        return LogitRows(weight, unembedding.bias[ids].to(dtype) * unembedding.scale)

    def apply(self, normed: Tensor) -> Tensor:
        """Give what rows [..., N, D] behind the norm add to the logits, [..., N, J], without the bias."""
        if self.weight.ndim == 2:
            return normed @ self.weight.mT
        return torch.einsum("...nd,njd->...nj", normed, self.weight)


@frozen(eq=False)
class Attribution:
    """The linear map from parts of N residual streams to the logits of J tokens."""

    norm: FrozenNorm
    logits: LogitRows

    @staticmethod
    def of(lens: Lens, final: Tensor, ids: Tensor) -> Attribution:
        """Give the map at the final residual streams [N, D], before the norm, for ids [J] or [N, J]."""
        norm = FrozenNorm.of(lens, final)
        return Attribution(norm, LogitRows.of(lens.unembedding, ids, norm.weight.dtype))

    def apply(self, parts: Tensor) -> Tensor:
        """Give what parts [..., N, D] of the streams add to the logits, [..., N, J]."""
        return self.logits.apply(self.norm.apply(parts))

    @property
    def bias(self) -> Tensor:
        """What the biases of norm and unembedding add, [N, J]."""
        of_norm = self.logits.apply(self.norm.bias.expand_as(self.norm.weight))
        return of_norm + self.logits.bias


def head_parts(lens: Lens, layer: int, outputs: Tensor, added: Tensor) -> list[Tensor]:
    """Give what each of H heads adds to the residual stream, [N, D] each.

    Args:
        outputs: [N, H * head width] what enters the output projection.
        added: [N, D] what the block adds of attention; a norm or a scale may stand before the sum. It is
            held as it is, coordinate by coordinate.

    Returns:
        parts that sum to `added`, but for the share of the projection's bias, which is no head's.
    """
    projection = output_projection(lens, layer, "probe.attribution_per_head")
    with torch.no_grad():
        nothing = projection(torch.zeros_like(outputs[:1]))
        ratio = _ratio(_wide(added), _wide(projection(outputs)))
        width = outputs.shape[-1] // lens.heads
        parts = []
        for head in range(lens.heads):
            alone = torch.zeros_like(outputs)
            alone[..., head * width : (head + 1) * width] = outputs[..., head * width : (head + 1) * width]
            parts.append(ratio * _wide(projection(alone) - nothing))
    return parts


def check_attribution(lens: Lens, *, per_head: bool) -> None:
    """Raise EngineError where the final norm's scale, or heads, cannot be told; runs over a few tokens."""
    layers = list(range(1, len(lens.layers) + 1))
    positions = torch.arange(TOKENS, device=lens.device)[None]
    with ExitStack() as watching:
        outputs = watching.enter_context(watching_head_outputs(lens, layers, positions)) if per_head else []
        blocks, streams = run_apart(lens)
    FrozenNorm.of(lens, streams[-1][0])
    for layer, given in zip(layers, outputs, strict=False):
        added = blocks[layer].rows.get(ATTENTION)
        if not lens.heads or given.shape[-1] % lens.heads or added is None:
            raise _no_heads(lens, layer, "it has no attention of as many heads as the configuration names")
        with torch.no_grad():
            whole = _wide(output_projection(lens, layer)(given[0]))
        if not _is_scaled(whole, _wide(added[0]), given.dtype):
            raise _no_heads(lens, layer, "what it adds is not the output of one projection, scaled or normed")


def _is_scaled(whole: Tensor, added: Tensor, dtype: torch.dtype) -> bool:
    """Tell whether rows [N, D] are others times a factor for each row and one for each coordinate."""
    gained = _ratio(added[0], whole[0]) * whole
    scale = (added * gained).sum(-1) / gained.square().sum(-1).clamp_min(1e-30)
    return _near(scale[:, None] * gained, added, dtype)


def _ratio(added: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole == 0, 0, added / whole)


def _wide(values: Tensor) -> Tensor:
    """Give float32, or float64 where the model has it."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _near(values: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    return bool((values - expected).norm() <= TOLERANCES.get(dtype, 5e-2) * expected.norm())


def _no_norm(lens: Lens) -> EngineError:
    return EngineError(
        f"probe.attribution: the final norm of {type(lens.decoder).__name__} is not a scale, a gain and a "
        "bias; expected false for this model"
    )


def _no_heads(lens: Lens, layer: int, why: str) -> EngineError:
    return EngineError(
        f"probe.attribution_per_head: the heads of layer {layer} of {type(lens.decoder).__name__} cannot be "
        f"told apart: {why}; expected false for this model"
    )
