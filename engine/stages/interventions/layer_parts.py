"""What a layer's attention, MLP and heads hand on, read or replaced where they do.

A head's output is its part of what enters the projection behind the attention. Those of attention and MLP are
what the layer adds to the residual stream, behind a norm of their own where a layer has one (Gemma 2). The
module that gives it is found by running the model: the one whose output, beside the other's, makes up the
difference between the layer's input and output. Where none does, the layer cannot be taken apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import product
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from engine.errors import EngineError
from engine.models.block_parts import attention_modules, stream_in, stream_out
from engine.models.head_outputs import output_projection
from engine.models.lens import Lens
from engine.planning.changes import OWN, Change, Part
from engine.planning.run_order import kept_parts, replaced_parts

_ROUNDINGS = 2  # of numbers as large as the terms, in two products and two sums
_FIRST_TOKENS = 8  # of a prompt, by which modules are found
_CLOSE = 1e-3  # a factor as near to 1 as this is 1, but for rounding

Edit = Callable[[Tensor], Tensor]  # a part's output [S, T, width] to another one
Outputs = dict[Part, Tensor]  # [S, T, width] each


@frozen(eq=False)
class LayerParts:
    """The modules at which the parts of some layers are read and replaced."""

    sites: Mapping[Part, nn.Module]
    scales: Mapping[int, float]  # by which a layer multiplies what attention and MLP give before it adds that

    @contextmanager
    def edited(self, edits: Mapping[Part, Edit], sequences: int) -> Iterator[None]:
        """Replace the outputs of some parts, of so many sequences, inside the `with` block."""
        with ExitStack() as stack:
            for part, edit in edits.items():
                stack.callback(self._hook(part, sequences, edit).remove)
            yield

    @contextmanager
    def kept(self, parts: Iterable[Part], sequences: int) -> Iterator[Outputs]:
        """Keep the outputs of some parts while the model runs once inside the `with` block."""
        outputs: Outputs = {}

        def keep(part: Part, output: Tensor) -> None:
            outputs[part] = output.clone()  # some layers add to it in place

        with ExitStack() as stack:
            for part in parts:
                stack.callback(self._hook(part, sequences, partial(keep, part)).remove)
            yield outputs

    def _hook(self, part: Part, sequences: int, function: Callable[[Tensor], Tensor | None]) -> Any:
        """Have a function read a part's output, or replace it by what it gives."""

        def called(output: Tensor) -> Tensor | None:
            changed = function(output.view(sequences, -1, output.shape[-1]))
            return None if changed is None else changed.view(output.shape)

        if part[0] == "heads":

            def before(_: nn.Module, args: Any) -> Any:
                changed = called(args[0])
                return None if changed is None else (changed, *args[1:])

            return self.sites[part].register_forward_pre_hook(before)

        def behind(_: nn.Module, _args: Any, output: Any) -> Any:
            changed = called(stream_out(output))
            if changed is None or not isinstance(output, tuple):
                return changed
            return (changed, *output[1:])

        return self.sites[part].register_forward_hook(behind)


def parts_of(lens: Lens, changes: Iterable[Change], prompt: Sequence[int]) -> LayerParts:
    """Find the parts of layers that changes read or replace, by a run over some tokens of a prompt.

    Raises EngineError where a layer cannot be taken apart.
    """
    changes = list(changes)
    wanted = replaced_parts(changes).union(*kept_parts(changes, OWN).values())
    return find_parts(lens, wanted, torch.tensor([prompt[:_FIRST_TOKENS]], device=lens.device))


def find_parts(lens: Lens, parts: Iterable[Part], ids: Tensor) -> LayerParts:
    """Find the modules of some parts, by a run over ids [1, T] where they are those of attention or MLP.

    Raises EngineError where a layer cannot be taken apart.
    """
    wanted = set(parts)
    sites: dict[Part, nn.Module] = {
        (kind, layer): lens.layers[layer - 1] if kind == "residual" else output_projection(lens, layer)
        for kind, layer in wanted
        if kind in ("residual", "heads")
    }
    scales: dict[int, float] = {}
    for layer in sorted({layer for kind, layer in wanted if kind in ("attention", "mlp")}):
        found = _writers(lens, layer, ids)
        sites["attention", layer], sites["mlp", layer], scales[layer] = found
    return LayerParts(sites, scales)


@torch.inference_mode()
def part_means(
    lens: Lens, parts: LayerParts, wanted: Iterable[Part], batches: Iterable[tuple[Tensor, Tensor]]
) -> dict[Part, Tensor]:
    """Give the mean output of each part over all tokens of the batches, padding left out: [width].

    batches: token ids and mask, [S, T] each.
    """
    sums: dict[Part, Tensor] = {}
    tokens = 0
    for ids, mask in batches:
        kept = mask.bool()
        tokens += int(kept.sum())
        with parts.kept(wanted, len(ids)) as outputs:
            lens.last_hidden(ids, lens.needed(mask))
        for part, output in outputs.items():
            summed = output[kept].double().sum(dim=0)
            sums[part] = sums[part] + summed if part in sums else summed
    return {part: total / tokens for part, total in sums.items()}


@frozen(eq=False)
class _Given:
    """What a module directly in a layer gave while the layer ran."""

    module: nn.Module
    of_attention: bool  # it is the attention, or was given what that gave
    output: Tensor  # as it was then; layers add in place


@torch.inference_mode()
def _writers(lens: Lens, layer: int, ids: Tensor) -> tuple[nn.Module, nn.Module, float]:
    """Give the modules whose outputs a layer adds to its stream, of attention and MLP, and their factor."""
    block = lens.layers[layer - 1]
    attention = {id(module) for module in attention_modules(block)}
    given: list[_Given] = []
    chain: list[Tensor] = []  # the attention's output, and what modules behind it make of that
    ends: list[Tensor] = []

    def copied(tensor: Tensor) -> Tensor:
        return tensor.to(torch.float64, copy=True)

    def begin(_: nn.Module, args: Any, kwargs: Any) -> None:
        ends.append(copied(stream_in(args, kwargs)))

    def child(module: nn.Module, args: Any, output: Any) -> None:
        result = stream_out(output)
        chained = id(module) in attention or any(args and args[0] is tensor for tensor in chain)
        if chained:
            chain.append(result)
        if torch.is_tensor(result) and result.numel() == ends[0].numel():
            given.append(_Given(module, chained, copied(result).view(ends[0].shape)))

    def end(_: nn.Module, _args: Any, output: Any) -> None:
        stream = stream_out(output)
        ends.append(copied(stream))
        precision.append(torch.finfo(stream.dtype).eps)

    precision: list[float] = []
    with ExitStack() as stack:
        stack.callback(block.register_forward_pre_hook(begin, with_kwargs=True).remove)
        stack.callback(block.register_forward_hook(end).remove)
        for module in block.children():
            stack.callback(module.register_forward_hook(child).remove)
        lens.last_hidden(ids)
    before, behind = ends
    found = None
    least = math.inf
    for one, other in product(given, given):
        if not one.of_attention or other.of_attention:
            continue
        added = one.output + other.output
        scale = ((behind - before) * added).sum().item() / max((added * added).sum().item(), 1e-300)
        scale = 1.0 if abs(scale - 1) < _CLOSE else scale
        off = (before + scale * added - behind).abs()
        rounded = before.abs() + behind.abs() + abs(scale) * (one.output.abs() + other.output.abs())
        if off.mean().item() < least and (off <= _ROUNDINGS * precision[0] * rounded).all():
            found, least = (one.module, other.module, scale), off.mean().item()
    if found is None:
        raise EngineError(
            f"interventions: layer {layer} of {type(lens.decoder).__name__} does not add what its attention "
            "and one other module of it give to the residual stream, so that neither can be put in; expected "
            'stream = "residual", or a decoder of plain blocks'
        )
    return found
