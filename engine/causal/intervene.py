"""The intervene stage: every change to a cell's model, evaluated and probed on the test examples.

Per batch the unmodified model, and each that a change takes from, runs once; its residual streams are kept,
and every change runs only the layers from its first one on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from attrs import field, frozen
from torch import Tensor

from engine.causal.arrangement import Arrangement
from engine.causal.changes import Change
from engine.causal.heads import Means, ablated, head_means
from engine.causal.residual import Edit, Record, check_resumable, record, resume
from engine.causal.sequences import Answers, Chunk, chunks
from engine.lens import Lens, find_lens
from engine.progress import Report, StopRequest
from engine.scoring import pad_right, predictions
from engine.text import Example, Writer
from engine.train import padding_id
from kernels import lens_statistics
from specs.model import Evaluate, Probe
from store import Coordinate, Family, Variable


def intervention_family(
    rows: Sequence[Example], changes: Sequence[Change], layers: int, labels: Sequence[str]
) -> Family:
    """Give the store's layout of the results of these changes for these examples."""
    dims = ("example", "intervention")

    def described(name: str, values: Sequence[Any], meaning: str) -> Coordinate:
        return Coordinate(name, "intervention", values, long_name=meaning)

    return Family(
        stage="intervene",
        coordinates=(
            Coordinate("example", "example", [row["id"] for row in rows], long_name="test example"),
            Coordinate("gold", "example", [row["label"] for row in rows], long_name="true label"),
            described("intervention", [change.name for change in changes], "change to the model"),
            described("entry", [change.entry for change in changes], "intervention of the spec"),
            described("kind", [change.kind for change in changes], "kind of intervention"),
            described("first", [min(change.layers, default=0) for change in changes], "lowest changed layer"),
            described("last", [max(change.layers, default=0) for change in changes], "highest changed layer"),
            described("source", [change.source_name for change in changes], "what it takes from"),
            described("head", [_only_head(change) for change in changes], "ablated head, -1: not one"),
            Coordinate("label", "label", list(labels), long_name="label"),
            Coordinate("layer", "layer", list(range(layers + 1)), long_name="layer, 0 = embedding"),
        ),
        variables=(
            Variable("prediction", dims, "string", "", "label of the highest log-likelihood"),
            Variable(
                "label_logprob", (*dims, "label"), "float32", "nat", "log-likelihood of the label's tokens"
            ),
            Variable(
                "entropy",
                (*dims, "layer"),
                "float32",
                "nat",
                "entropy of the lens distribution where the label is predicted",
            ),
        ),
    )


def _only_head(change: Change) -> int:
    return change.heads[0] if len(change.heads) == 1 else -1


@frozen
class Experiment:
    """A model with the adapters that its changes need, and how its answers are read."""

    arrangement: Arrangement
    tokenizer: Any
    writer: Writer
    evaluate: Evaluate
    probe: Probe
    lens: Lens = field(init=False)

    @lens.default
    def _find_lens(self) -> Lens:
        return find_lens(self.arrangement.model)

    @torch.inference_mode()
    def run(
        self,
        rows: Sequence[Example],
        changes: Sequence[Change],
        report: Report,
        stop: StopRequest,
        start: int = 0,
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yield the family's variables for the rows from `start` on, batch by batch: [B, changes, ...].

        Memory: for each model that is taken from, and the unmodified one, L + 1 residual streams of a batch.
        """
        means = self._means(rows, changes)
        for first in range(start, len(rows), self.probe.batch_size):
            batch = rows[first : first + self.probe.batch_size]
            questions = [self.writer.encode_spellings(row) for row in batch]
            answers = [Answers(questions, len(self.lens.layers)) for _ in changes]
            for chunk in chunks(questions, padding_id(self.tokenizer), self.lens.device):
                runs = _Runs(self, chunk, means)
                if first == start:
                    runs.check()
                for change, answer in zip(changes, answers, strict=True):
                    stop.check()
                    answer.take(chunk, self.lens, *runs.changed(change))
                    report(first, len(rows), change.name)
            report(first + len(batch), len(rows), "")
            yield self._values(answers)

    def _values(self, answers: Sequence[Answers]) -> dict[str, np.ndarray]:
        labels, normalized = self.evaluate.labels, self.evaluate.length_normalized
        read = [predictions(a.spellings, labels, length_normalized=normalized) for a in answers]
        return {
            "prediction": np.array([predicted for predicted, _ in read], dtype=object).T,
            "label_logprob": np.stack([scores for _, scores in read], axis=1).astype(np.float32),
            "entropy": np.stack([answer.entropy for answer in answers], axis=1),
        }

    def _means(self, rows: Sequence[Example], changes: Sequence[Change]) -> Means:
        """Give the mean head outputs that ablations need, over all examples, whichever come next."""
        ablations = (change for change in changes if change.kind == "heads" and change.ablation == "mean")
        layers = sorted({layer for change in ablations for layer in change.layers})
        if not layers:
            return {}
        size, padding = self.probe.batch_size, padding_id(self.tokenizer)

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            for first in range(0, len(rows), size):
                prompts = [self.writer.encode_spellings(row)[0] for row in rows[first : first + size]]
                yield pad_right(prompts, padding, self.lens.device)

        with self.arrangement.using(self.arrangement.own):
            return head_means(self.lens, layers, batches())


@frozen
class _Runs:
    """The runs of one chunk of sequences; the whole run of each model is made at most once."""

    experiment: Experiment
    chunk: Chunk
    means: Means
    _records: dict[str, Record] = field(factory=dict)
    _entropies: dict[str, Tensor] = field(factory=dict)  # [L + 1, leading sequences]

    def check(self) -> None:
        """Raise EngineError where the model cannot be run from its middle."""
        own = self.experiment.arrangement.own
        with self.experiment.arrangement.using(own):
            check_resumable(self.experiment.lens, self.chunk.batch, self._record(own))

    def changed(self, change: Change) -> tuple[Tensor, Tensor]:
        """Run a change: normed final states [S, P, D], and entropies [L + 1, leading sequences]."""
        origin, start = self._origin(change), change.start(len(self.experiment.lens.layers))
        streams = self._streams(change, self._record(origin), start)
        entropy = torch.cat([self._entropy(origin)[:start], self._entropies_of(streams)])
        return self.experiment.lens.norm(streams[-1]), entropy

    def _streams(self, change: Change, past: Record, start: int) -> Tensor:
        """Give the streams from layer `start` on: [L - start + 1, S, P, D]."""
        experiment, state = self.experiment, past.states[start]
        edits: dict[int, Edit] = {}
        if change.kind == "patch":
            edits = {layer: self._patch(change, layer) for layer in change.layers}
            state = edits.pop(start)(state)
        with ExitStack() as stack:
            if not change.swaps_below:  # what lies above is the model's own
                stack.enter_context(experiment.arrangement.changed(change))
            stack.enter_context(ablated(experiment.lens, change, self.means))
            return resume(experiment.lens, self.chunk.batch, past, start, state, edits)

    def _origin(self, change: Change) -> str:
        """Give the model whose run the change's lowest layers are part of."""
        taken = change.kind == "source" or change.swaps_below
        return change.source if taken else self.experiment.arrangement.own

    def _patch(self, change: Change, layer: int) -> Edit:
        donor = self._record(change.source).states[layer]
        if change.positions is None:
            return lambda _own: donor
        offsets = torch.tensor(change.positions, device=donor.device)
        places = (self.chunk.batch.positions[:, :1] + 1 + offsets).clamp_min(0)
        rows = torch.arange(len(donor), device=donor.device)[:, None]

        def patched(own: Tensor) -> Tensor:
            mixed = own.clone()
            mixed[rows, places] = donor[rows, places]
            return mixed

        return patched

    def _record(self, source: str) -> Record:
        if source not in self._records:
            with self.experiment.arrangement.using(source):
                self._records[source] = record(self.experiment.lens, self.chunk.batch)
        return self._records[source]

    def _entropy(self, source: str) -> Tensor:
        if source not in self._entropies:
            states = self._record(source).states
            streams = torch.stack([self.chunk.batch.at(state) for state in states])
            self._entropies[source] = self._entropies_of(streams)
        return self._entropies[source]

    def _entropies_of(self, streams: Tensor) -> Tensor:
        """Give the lens entropies of streams [K, S, P, D] where labels are predicted: [K, leading]."""
        lens = self.experiment.lens
        rows = lens.norm(streams[:, self.chunk.leading, 0])
        found = lens_statistics(
            rows.flatten(0, 1), lens.unembedding, top_k=0, backend=self.experiment.probe.backend
        )
        return found.entropy.view(rows.shape[:2])
