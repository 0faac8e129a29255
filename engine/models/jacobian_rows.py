"""Rows of the Jacobians of a batch: derivatives of the last layer's residual stream by every layer's.

Exact, by one product of a vector with the Jacobian for each coordinate of the last stream: D backward passes
through the layers for a batch of texts, some of them at once where a batch is small.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from attrs import define
from torch import Tensor, nn

from engine.errors import EngineError
from engine.models.batching import pad_right
from engine.models.block_parts import stream_in, stream_out
from engine.models.lens import Lens

TOKENS = 2048  # of a backward pass, each coordinate of the last stream counting its own


def positions_read(length: int, skip: int) -> range:
    """Give the positions of a text that count: not the first ones, nor the last, which predicts nothing."""
    return range(skip, length - 1)


def jacobian_rows(
    lens: Lens, sequences: Sequence[Sequence[int]], skip: int, padding: int
) -> Iterator[tuple[slice, Tensor]]:
    """Yield the Jacobians of B texts, some rows at a time: [L, B, K, D] float32, rows K of the D.

    Row k of a text's Jacobian of layer l: the sum over positions t′ of ∂h_final[t′, k] / ∂h_l[t], averaged
    over positions t; both are those that count, and no token sees later ones, so t′ ≥ t. h are residual
    streams: of the embedding and behind each block, before the final norm.
    """
    *sources, last = _streams(lens, sequences, padding)
    batch, tokens, width = last.shape
    valid = torch.zeros(batch, tokens, device=last.device)
    for row, sequence in enumerate(sequences):
        read = positions_read(len(sequence), skip)
        valid[row, read.start : read.stop] = 1
    share = (valid / valid.sum(dim=1, keepdim=True))[None, :, None]  # [1, B, 1, T]
    products = _Products(last, sources)
    at_once = max(1, min(width, TOKENS // (batch * tokens)))
    for start in range(0, width, at_once):
        rows = slice(start, min(start + at_once, width))
        several = torch.zeros(rows.stop - start, *last.shape, dtype=last.dtype, device=last.device)
        for place, coordinate in enumerate(range(start, rows.stop)):
            several[place, ..., coordinate] = valid
        gradients = products.of(several, last=rows.stop == width)
        means = [(share @ gradient.float()).squeeze(2).transpose(0, 1) for gradient in gradients]
        yield rows, torch.stack(means)


@define
class _Products:
    """Products of vectors with the Jacobians of one forward pass."""

    final: Tensor  # [B, T, D]
    sources: Sequence[Tensor]  # L of [B, T, D]
    _together: bool = True  # whether all operations of the model can take several vectors at once

    def of(self, vectors: Tensor, *, last: bool) -> Sequence[Tensor]:
        """Give vᵀ ∂final / ∂source of vectors [K, B, T, D] for each source: [K, B, T, D].

        last: nothing more is asked of this pass.
        """
        if self._together and len(vectors) > 1:
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", message="There is a performance drop")
                    return self._gradients(vectors, retained=True, several=True)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:  # an operation that torch cannot batch, of quantised weights say
                self._together = False
        each = [
            self._gradients(vector, retained=not last or place < len(vectors) - 1)
            for place, vector in enumerate(vectors)
        ]
        return [torch.stack(of_source) for of_source in zip(*each, strict=True)]

    def _gradients(self, vectors: Tensor, *, retained: bool, several: bool = False) -> Sequence[Tensor]:
        gradients: Sequence[Tensor] = torch.autograd.grad(
            self.final, self.sources, vectors, retain_graph=retained, is_grads_batched=several
        )
        return gradients


def _streams(lens: Lens, sequences: Sequence[Sequence[int]], padding: int) -> list[Tensor]:
    """Run a model with gradients: streams [B, T, D] of the embedding and behind each block."""
    caught: list[Tensor] = []

    def begin(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        stream = stream_in(args, kwargs).detach().requires_grad_()
        caught.append(stream)
        return ((stream, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": stream})

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        caught.append(stream_out(output))

    ids, mask = pad_right(sequences, padding, lens.device)
    hooks = [lens.layers[0].register_forward_pre_hook(begin, with_kwargs=True)]
    hooks += [layer.register_forward_hook(keep) for layer in lens.layers]
    try:
        with _frozen(lens.decoder), torch.enable_grad():
            lens.last_hidden(ids, lens.needed(mask))
    finally:
        for hook in hooks:
            hook.remove()
    if len(caught) != len(lens.layers) + 1 or not caught[-1].requires_grad:
        raise EngineError(
            f"model.id: the layers of {type(lens.decoder).__name__} do not hand on one residual stream that "
            "can be differentiated, so that it has no Jacobian lens"
        )
    return caught


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Keep weights out of the graph that is made inside the `with` block."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
