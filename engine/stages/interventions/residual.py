"""Forward passes that keep every layer's residual stream, or start from one in the middle of the model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from engine.errors import EngineError
from engine.models.block_parts import stream_in, stream_out
from engine.models.lens import Lens
from engine.planning.changes import Part
from engine.stages.interventions.layer_parts import Edit, LayerParts, Outputs


@frozen
class Batch:
    """Token sequences, and the positions [S, P] whose residual streams are wanted."""

    ids: Tensor  # [S, T]
    mask: Tensor | None  # [S, T], where the model needs one
    positions: Tensor  # [S, P]

    def at(self, states: Tensor) -> Tensor:
        """Give the wanted rows of states [S, T, D]: [S, P, D]."""
        rows = torch.arange(len(self.positions), device=states.device)[:, None]
        return states[rows, self.positions]

    def repeated(self, times: int) -> Batch:
        """Give the same sequences so many times, one time after the other."""
        if times == 1:
            return self
        mask = None if self.mask is None else self.mask.repeat(times, 1)
        return Batch(self.ids.repeat(times, 1), mask, self.positions.repeat(times, 1))


@frozen
class Record:
    """One pass: the residual stream behind each layer, 0 the embedding, [S, T, D] each."""

    states: list[Tensor]
    shapes: list[Any]  # what each layer returned beside its residual stream, None where it was nothing
    outputs: Outputs  # of the parts that were asked for


def record(lens: Lens, batch: Batch, parts: LayerParts, wanted: Collection[Part] = ()) -> Record:
    """Run the model as it is; memory for L + 1 residual streams of the batch is held, and for the parts."""
    states: list[Tensor] = []
    shapes: list[Any] = []

    def first(_: nn.Module, args: Any, kwargs: Any) -> None:
        states.append(stream_in(args, kwargs))

    def behind(_: nn.Module, _args: Any, output: Any) -> None:
        states.append(stream_out(output))
        shapes.append(output[1:] if isinstance(output, tuple) else None)

    with ExitStack() as stack:
        handle = lens.layers[0].register_forward_pre_hook(first, with_kwargs=True)
        stack.callback(handle.remove)
        for layer in lens.layers:
            stack.callback(layer.register_forward_hook(behind).remove)
        outputs = stack.enter_context(parts.kept(wanted, len(batch.ids)))
        lens.last_hidden(batch.ids, batch.mask)
    return Record(states, shapes, outputs)


def resume(
    lens: Lens,
    batch: Batch,
    shapes: list[Any],
    start: int,
    state: Tensor,
    edits: dict[int, Edit] | None = None,
    keep: int = 0,
) -> tuple[list[Tensor], Tensor]:
    """Run the layers above `start` on the residual stream `state` [S, T, D] behind it.

    Above 0, that is all layers, it is the embedding that the model makes itself. `shapes` are those of any
    Record, and `edits` change the stream behind single layers above `start`. Gives the streams behind layers
    start, …, `keep`, [S, T, D] each, and those behind layers start, …, L at the batch's positions:
    [L - start + 1, S, P, D].
    """
    kept, streams = [state], [batch.at(state)]
    if start == len(lens.layers):
        return kept, torch.stack(streams)

    def behind(layer: int, _: nn.Module, _args: Any, output: Any) -> Any:
        stream = stream_out(output)
        edited = edits[layer](stream) if edits and layer in edits else stream
        streams.append(batch.at(edited))
        if layer <= keep:
            kept.append(edited)
        return (edited, *output[1:]) if isinstance(output, tuple) else edited

    with ExitStack() as stack:
        stack.enter_context(_skipping(lens, shapes, start, state))
        for layer, module in enumerate(lens.layers[start:], start=start + 1):
            stack.callback(module.register_forward_hook(partial(behind, layer)).remove)
        lens.last_hidden(batch.ids, batch.mask)
    return kept, torch.stack(streams)


def run_layer(lens: Lens, batch: Batch, shapes: list[Any], layer: int, state: Tensor) -> None:
    """Run one layer on the residual stream `state` [S, T, D] in front of it, and no other."""
    with _skipping(lens, shapes, layer - 1, state, last=layer):
        lens.last_hidden(batch.ids, batch.mask)


def check_resumable(lens: Lens, batch: Batch, past: Record) -> None:
    """Raise EngineError where a run from the middle differs from the whole one.

    It does where a model hands more from layer to layer than one residual stream.
    """
    middle = len(lens.layers) // 2
    resumed = resume(lens, batch, past.shapes, middle, past.states[middle])[1][-1].float()
    expected = batch.at(past.states[-1]).float()
    scale = expected.abs().max().clamp_min(1e-6)
    if not (resumed - expected).abs().max() <= 1e-3 * scale:
        raise EngineError(
            f"interventions: {type(lens.decoder).__name__} hands more from layer to layer than its residual "
            "stream, so that no layer can be changed by itself; expected a decoder of plain blocks"
        )


@contextmanager
def _skipping(
    lens: Lens, shapes: list[Any], start: int, state: Tensor, last: int | None = None
) -> Iterator[None]:
    """Let the layers up to `start`, and those above `last`, do nothing but hand `state` on."""

    def passed(shape: Any) -> Callable[..., Any]:
        return lambda *_args, **_kwargs: state if shape is None else (state, *shape)

    idle = [*range(start), *(range(last, len(lens.layers)) if last is not None else ())]
    skipped = [lens.layers[place] for place in idle]
    before = [layer.__dict__.get("forward") for layer in skipped]
    try:
        for layer, place in zip(skipped, idle, strict=True):
            layer.forward = passed(shapes[place])
        yield
    finally:
        for layer, forward in zip(skipped, before, strict=True):
            if forward is None:
                del layer.__dict__["forward"]
            else:  # the layer had a wrapped one of its own, as a model spread over devices has
                layer.forward = forward
