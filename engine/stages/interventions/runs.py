"""The runs of one chunk of sequences through the model and its changes."""

from __future__ import annotations

import torch
from attrs import define, field, frozen
from torch import Tensor

from engine.models.lens import Lens
from engine.planning.run_order import Patch, Turn
from engine.stages.adapter_layout import Arrangement
from engine.stages.interventions.heads import Means, ablated
from engine.stages.interventions.residual import Edit, Record, check_resumable, record, resume
from engine.stages.interventions.sequences import Chunk
from kernels import lens_statistics


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
    chunk: Chunk
    means: Means
    backend: str
    _records: dict[str, Record] = field(factory=dict)
    _wholes: dict[str, _KeptRun] = field(factory=dict)
    _last: _KeptRun | None = None

    def check(self) -> None:
        """Raise EngineError where the model cannot be run from its middle."""
        own_adapter = self.arrangement.trained
        with self.arrangement.using(own_adapter):
            check_resumable(self.lens, self.chunk.batch, self._record(own_adapter))

    def take(self, turn: Turn) -> tuple[Tensor, Tensor]:
        """Run a change: normed final states [S, P, D], and entropies [L + 1, leading sequences]."""
        past = self._last if turn.past is None else self._whole(turn.past)
        assert past is not None
        shapes = self._record(self.arrangement.trained).shapes
        state, edits = past.states[turn.start], {layer: self._edit(layer, p) for layer, p in turn.patches}
        if turn.start in edits:
            state = edits.pop(turn.start)(state)
        with (
            self.arrangement.changed(turn.steps, above=turn.start),
            ablated(self.lens, turn.change, self.means),
        ):
            kept, streams = resume(self.lens, self.chunk.batch, shapes, turn.start, state, edits, turn.keep)
        fresh = self._entropies(streams[turn.fresh - turn.start :])
        states = [*past.states[: turn.start], *kept][: turn.keep + 1]
        self._last = _KeptRun(states, torch.cat([past.entropy[: turn.fresh], fresh]))
        return self.lens.norm(streams[-1]), self._last.entropy

    def _edit(self, layer: int, patch: Patch) -> Edit:
        source, offsets = patch
        donor = self._record(source).states[layer]
        if offsets is None:
            return lambda _own: donor
        places = (
            self.chunk.batch.positions[:, :1] + 1 + torch.tensor(offsets, device=donor.device)
        ).clamp_min(0)
        rows = torch.arange(len(donor), device=donor.device)[:, None]

        def edited(stream: Tensor) -> Tensor:
            mixed = stream.clone()
            mixed[rows, places] = donor[rows, places]
            return mixed

        return edited

    def _record(self, source: str) -> Record:
        if source not in self._records:
            with self.arrangement.using(source):
                self._records[source] = record(self.lens, self.chunk.batch)
        return self._records[source]

    def _whole(self, source: str) -> _KeptRun:
        if source not in self._wholes:
            states = self._record(source).states
            streams = torch.stack([self.chunk.batch.at(state) for state in states])
            self._wholes[source] = _KeptRun(states, self._entropies(streams))
        return self._wholes[source]

    def _entropies(self, streams: Tensor) -> Tensor:
        """Give the lens entropies of streams [K, S, P, D] where labels are predicted: [K, leading]."""
        rows = self.lens.norm(streams[:, self.chunk.leading, 0])
        statistics = lens_statistics(rows.flatten(0, 1), self.lens.unembedding, top_k=0, backend=self.backend)
        return statistics.entropy.view(rows.shape[:2])
