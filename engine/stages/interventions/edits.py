"""What is put in the place of a part: nothing, a mean, what another run or a path gives there, or a sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from attrs import frozen
from torch import Tensor

from engine.models.lens import Lens
from engine.planning.changes import SAME, Addition, Part, Path
from engine.planning.run_order import Put, Run
from engine.stages.interventions.directions import Directions
from engine.stages.interventions.layer_parts import Edit, LayerParts
from engine.stages.interventions.residual import Record, run_layer
from engine.stages.interventions.sequences import Chunk

Means = Mapping[Part, Tensor]  # [width] each


@frozen(eq=False)
class Edits:
    """Makes the edits of one chunk."""

    lens: Lens
    parts: LayerParts
    chunk: Chunk
    means: Means
    directions: Directions | None  # where some are added
    own: Run  # of the cell's model, unchanged
    recorded: Callable[[Run], Record]

    def of(self, layer: int, put: Put) -> Edit:
        """Give what changes a part's output: [S, T, width] to such a one."""
        if put.path is not None:
            return self._received(put.path, put)
        heads = put.heads if put.part == "heads" else None
        if put.value == "run":
            return self._taken((put.part, layer), put, heads)
        if put.addition is not None:
            return self._added(put.addition, layer, put)
        mean = self.means[put.part, layer] if put.value == "mean" else None

        def edited(output: Tensor) -> Tensor:
            new = torch.zeros_like(output) if mean is None else mean.to(output.dtype).expand_as(output)
            return self._mixed(output, new, put, heads)

        return edited

    def _added(self, addition: Addition, layer: int, put: Put) -> Edit:
        """Give the edit that adds a direction."""
        assert self.directions is not None
        direction = self.directions.of(addition, layer)
        return lambda output: self._mixed(output, output + direction.to(output), put, None)

    def _taken(self, part: Part, put: Put, heads: tuple[int, ...] | None) -> Edit:
        """Give the edit that puts in what a part gave in the run that `put` names."""
        assert put.run is not None
        record = self.recorded(put.run)
        new = record.states[part[1]] if part[0] == "residual" else record.outputs[part]
        return lambda output: self._mixed(output, new, put, heads)

    def _mixed(self, output: Tensor, new: Tensor, put: Put, heads: tuple[int, ...] | None) -> Tensor:
        """Give an output with what is new at the positions of `put`, of some heads where they are given.

        new: [S, T, width], of the run's own input.
        """
        read = put.run.input if put.run and put.value != "mean" else SAME
        everywhere = put.positions is None and read == SAME
        if everywhere and heads is None:
            return new.clone()  # some layers add to it in place
        mixed = output.clone()
        columns = slice(None) if heads is None else self._columns(heads, output.shape[-1])
        if everywhere:
            mixed[..., columns] = new[..., columns]
            return mixed
        places = self.chunk.places(read, put.positions)
        rows = mixed[places.rows, places.own]
        rows[:, columns] = new[places.rows, places.other][:, columns]
        mixed[places.rows, places.own] = rows
        return mixed

    def _columns(self, heads: tuple[int, ...], width: int) -> Tensor:
        """Give the numbers of some heads in what enters the projection."""
        each = width // self.lens.heads
        first = torch.tensor(heads, device=self.lens.device)[:, None] * each
        return (first + torch.arange(each, device=self.lens.device)).flatten()

    def _received(self, path: Path, put: Put) -> Edit:
        """Give the edit of a receiver: what it gives where it alone reads what the senders write instead."""
        own = self.recorded(self.own)
        brought = {layer: self._brought(layer, path, put) for layer in path.layers}
        if path.receiver == "final":
            return lambda stream: stream + sum(brought.values())
        layer, part = path.layer, (path.receiver, path.layer)
        state = own.states[layer - 1] + sum(of for sender, of in brought.items() if sender < layer)
        frozen: dict[Part, Edit] = {}
        if path.receiver == "mlp":  # the attention of its layer gives what it gave, or is a sender itself
            attention = own.outputs["attention", layer]
            if layer in brought:
                attention = attention + brought[layer] / self.parts.scales[layer]
            frozen["attention", layer] = lambda _output: attention
        received = self._layer_run(layer, state, frozen, part)
        heads = path.receiver_heads if path.receiver == "heads" else None
        if heads is None:
            return lambda _output: received
        columns = self._columns(heads, received.shape[-1])

        def edited(output: Tensor) -> Tensor:
            mixed = output.clone()
            mixed[..., columns] = received[..., columns]
            return mixed

        return edited

    def _brought(self, layer: int, path: Path, put: Put) -> Tensor:
        """Give by how much a layer's senders write another sum to the residual stream: [S, T, D]."""
        own, part = self.recorded(self.own), (path.sender, layer)
        if path.sender == "heads":
            written: Part = ("attention", layer)
            edit = self._taken(part, put, path.heads)
            changed = self._layer_run(layer, own.states[layer - 1], {part: edit}, written)
        else:
            written = part
            changed = self._taken(part, put, None)(own.outputs[part])
        return self.parts.scales[layer] * (changed - own.outputs[written])

    def _layer_run(self, layer: int, state: Tensor, edits: Mapping[Part, Edit], part: Part) -> Tensor:
        """Run one layer alone, some of its parts edited, and give what one part of it gives."""
        batch, shapes = self.chunk.batch, self.recorded(self.own).shapes
        with self.parts.edited(edits, len(batch.ids)), self.parts.kept([part], len(batch.ids)) as outputs:
            run_layer(self.lens, batch, shapes, layer, state)
        return outputs[part]
