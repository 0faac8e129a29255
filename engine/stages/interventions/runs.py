"""The runs of one chunk of sequences through the model and its changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
from attrs import define, field, frozen
from torch import Tensor

from engine.models.lens import Lens
from engine.planning.changes import Part
from engine.planning.run_order import Run, Turn
from engine.stages.adapter_layout import Arrangement
from engine.stages.interventions.directions import Directions
from engine.stages.interventions.edits import Edits, Means
from engine.stages.interventions.layer_parts import Edit, LayerParts
from engine.stages.interventions.residual import Record, check_resumable, record, resume
from engine.stages.interventions.sequences import Chunk
from kernels import lens_statistics

Taken = tuple[Turn, Tensor, Tensor]  # normed final states [S, P, D], and entropies [L + 1, leading sequences]


@frozen(eq=False)
class _KeptRun:
    """What is kept of a run, for those that go on from it."""

    states: list[Tensor]  # the residual stream behind each layer that may be asked for, 0 the embedding
    entropy: Tensor  # of each layer's lens distribution where labels are predicted: [L + 1, leading]


@define(eq=False)
class SweepRuns:
    """Runs a chunk through the changes of a sweep, turn by turn; whole models run when first needed."""

    arrangement: Arrangement
    lens: Lens
    parts: LayerParts
    kept_parts: Mapping[Run, frozenset[Part]]
    chunk: Chunk
    means: Means
    directions: Directions | None
    backend: str
    _records: dict[Run, Record] = field(factory=dict)
    _wholes: dict[Run, _KeptRun] = field(factory=dict)
    _last: _KeptRun | None = None

    @property
    def _own(self) -> Run:
        return Run(self.arrangement.trained)

    def check(self) -> None:
        """Raise EngineError where the model cannot be run from its middle."""
        with self.arrangement.using(self.arrangement.trained):
            check_resumable(self.lens, self.chunk.batch, self._record(self._own))

    def take(self, turns: Sequence[Turn]) -> Iterator[Taken]:
        """Run changes that go on from one run at one layer together, or one by itself.

        Several are rows of one batch: they differ in what is put in alone.
        """
        first = turns[0]
        past = self._last if first.past is None else self._whole(first.past)
        assert past is not None
        batch = self.chunk.batch if first.past is None else self.chunk.batches[first.past.input]
        edits = [self._edits(turn) for turn in turns]
        at_start = [own.pop(("residual", first.start), _unchanged) for own in edits]
        state = torch.cat([edit(past.states[first.start]) for edit in at_start])
        inner = _side_by_side(edits, len(batch.ids))
        behind = {layer: edit for (part, layer), edit in inner.items() if part == "residual"}
        within = {part: edit for part, edit in inner.items() if part[0] != "residual"}
        repeated = batch.repeated(len(turns))
        with (
            self.arrangement.changed(first.steps, above=first.start),
            self.parts.edited(within, len(repeated.ids)),
        ):
            shapes = self._record(self._own).shapes
            kept, streams = resume(self.lens, repeated, shapes, first.start, state, behind, first.keep)
        for place, turn in enumerate(turns):
            rows = slice(place * len(batch.ids), (place + 1) * len(batch.ids))
            fresh = self._entropies(streams[turn.fresh - turn.start :, rows])
            entropy = torch.cat([past.entropy[: turn.fresh], fresh])
            self._last = _KeptRun([*past.states[: turn.start], *kept][: turn.keep + 1], entropy)
            yield turn, self.lens.norm(streams[-1, rows]), entropy

    def _edits(self, turn: Turn) -> dict[Part, Edit]:
        made = Edits(self.lens, self.parts, self.chunk, self.means, self.directions, self._own, self._record)
        return {(put.part, layer): made.of(layer, put) for layer, put in turn.puts}

    def _record(self, run: Run) -> Record:
        if run not in self._records:
            wanted = self.kept_parts.get(run, frozenset())
            with self.arrangement.using(run.adapter):
                self._records[run] = record(self.lens, self.chunk.batches[run.input], self.parts, wanted)
        return self._records[run]

    def _whole(self, run: Run) -> _KeptRun:
        if run not in self._wholes:
            states = self._record(run).states
            batch = self.chunk.batches[run.input]
            streams = torch.stack([batch.at(state) for state in states])
            self._wholes[run] = _KeptRun(states, self._entropies(streams))
        return self._wholes[run]

    def _entropies(self, streams: Tensor) -> Tensor:
        """Give the lens entropies of streams [K, S, P, D] where labels are predicted: [K, leading]."""
        rows = self.lens.norm(streams[:, self.chunk.leading, 0])
        statistics = lens_statistics(rows.flatten(0, 1), self.lens.unembedding, top_k=0, backend=self.backend)
        return statistics.entropy.view(rows.shape[:2])


def _unchanged(stream: Tensor) -> Tensor:
    return stream


def _side_by_side(several: Sequence[Mapping[Part, Edit]], sequences: int) -> dict[Part, Edit]:
    """Give the edits of a batch that holds so many sequences of each change, one change after the other."""
    if len(several) == 1:
        return dict(several[0])

    def edited(part: Part, output: Tensor) -> Tensor:
        rows = torch.split(output, sequences)
        return torch.cat([own.get(part, _unchanged)(of) for own, of in zip(several, rows, strict=True)])

    return {part: partial(edited, part) for own in several for part in own}
