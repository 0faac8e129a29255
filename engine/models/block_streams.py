"""What each block adds to the residual stream at watched positions, and the stream before and between."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from engine.errors import EngineError
from engine.models.block_parts import KINDS, parts_of, stream_in, stream_out
from engine.models.lens import Lens
from engine.models.stream_reading import Block, StreamReading
from specs.common.names import AFTER_ATTENTION, BEFORE_ATTENTION

# Largest relative difference of a block's output and its parts, by the type of the stream, which every sum
# rounds. Norms of transformers compute in float32 whatever the type.
TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
TOKENS = 4


@frozen
class BlockKinds:
    """What all blocks of a model do to the residual stream."""

    kinds: tuple[str, ...]  # of what they add, in the order of `KINDS`
    carries: tuple[float, ...]  # of each block, what it multiplies its input by

    def reaching(self, layer: int) -> float:
        """Give the share of what is there behind a layer (0: the embedding) that the last layer's has."""
        return math.prod(self.carries[layer:])


@contextmanager
def watching_blocks(
    lens: Lens, layers: Sequence[int], positions: Tensor, names: Sequence[str]
) -> Iterator[list[Tensor]]:
    """Collect streams within blocks while the model runs once inside the `with` block.

    Args:
        lens: the lens of the model.
        layers: ascending; 0 = the embedding, which has none, l = block l.
        positions: [B, P] token positions.
        names: of `STREAMS` or `KINDS`, S of them.

    Yields:
        a list that holds, after the block, one tensor [B, P, S, D] per layer; NaN where there is no such
        stream.

    Raises:
        EngineError: while the model runs, where what a block adds cannot be followed.
    """
    caught: list[Tensor] = []
    with _reading(lens, [layer for layer in layers if layer], positions) as seen:
        yield caught
    dtype = next((block.rows[BEFORE_ATTENTION].dtype for block in seen.values()), None)
    nothing = torch.full((*positions.shape, lens.width), math.nan, dtype=dtype, device=positions.device)
    for layer in layers:
        rows = seen[layer].rows if layer else {}
        caught.append(torch.stack([rows.get(name, nothing) for name in names], dim=2))


def check_blocks(lens: Lens, names: Collection[str] = ()) -> BlockKinds:
    """Say what a model's blocks do to the residual stream; runs it over a few tokens.

    names: the streams that are asked for.

    Raises EngineError where what they add cannot be followed, or does not add up to their output, and where
    no block has a stream between attention and MLP that is asked for.
    """
    blocks, streams = run_apart(lens)
    for layer, block in blocks.items():
        added = sum((block.rows[kind].double() for kind in KINDS if kind in block.rows), torch.tensor(0.0))
        whole, expected = block.carry * streams[layer - 1].double() + added, streams[layer].double()
        tolerance = TOLERANCES.get(streams[layer].dtype, 5e-2)
        if not (whole - expected).norm() <= tolerance * expected.norm():
            raise _not_followed(lens, layer, "what it adds does not make up its output")
    found = {name for block in blocks.values() for name in block.rows}
    if AFTER_ATTENTION in names and AFTER_ATTENTION not in found:
        raise EngineError(
            f"probe.streams: found {AFTER_ATTENTION!r}, but the blocks of {type(lens.decoder).__name__} "
            "have no residual stream between attention and MLP; expected the others alone"
        )
    kinds = tuple(kind for kind in KINDS if kind in found)
    return BlockKinds(kinds, tuple(block.carry for block in blocks.values()))


@torch.inference_mode()
def run_apart(lens: Lens) -> tuple[dict[int, Block], list[Tensor]]:
    """Run a model over a few tokens: its blocks by layer, and the streams behind all layers, [1, T, D]."""
    ids = torch.arange(1, TOKENS + 1, device=lens.device)[None] % lens.unembedding.vocab_size
    positions = torch.arange(TOKENS, device=lens.device)[None]
    layers = list(range(len(lens.layers) + 1))
    with lens.watching(layers, positions) as streams, _reading(lens, layers[1:], positions) as seen:
        lens.last_hidden(ids, torch.ones_like(ids))
    return seen, streams


@contextmanager
def _reading(lens: Lens, layers: Sequence[int], positions: Tensor) -> Iterator[dict[int, Block]]:
    """Take these blocks apart while the model runs; what is found of them is there behind each."""
    seen = {layer: Block() for layer in layers}
    reading = StreamReading(positions)

    def begin(layer: int, _: nn.Module, args: Any, kwargs: Any) -> None:
        reading.begin(stream_in(args, kwargs), seen[layer])

    def end(layer: int, _: nn.Module, _args: Any, output: Any) -> None:
        if trouble := reading.end(stream_out(output)):
            raise _not_followed(lens, layer, trouble)

    with ExitStack() as hooks:
        for layer in layers:
            block = lens.layers[layer - 1]
            handles = [
                block.register_forward_pre_hook(partial(begin, layer), with_kwargs=True),
                block.register_forward_hook(partial(end, layer)),
            ]
            for kind, part in parts_of(block):
                handles.append(part.register_forward_pre_hook(partial(reading.enter, kind)))
                handles.append(part.register_forward_hook(partial(reading.leave, kind)))
            for handle in handles:
                hooks.callback(handle.remove)
        with reading:
            yield seen


def _not_followed(lens: Lens, layer: int, why: str) -> EngineError:
    return EngineError(
        f"probe.streams, probe.attribution: block {layer} of {type(lens.decoder).__name__} cannot be taken "
        f"apart: {why}; expected neither for this model"
    )
