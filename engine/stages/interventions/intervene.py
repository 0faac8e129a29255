"""The intervene stage: every change to a cell's model, evaluated and probed on the test examples.

Per batch the unmodified model, and each run that changes take parts from, runs once; every change runs only
the layers above those that it has in common with one that has run, and changes that differ in what they put
in alone are rows of one batch (engine.planning.run_order).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from attrs import field, frozen
from torch import Tensor

from engine.models.batching import pad_right, padding_id
from engine.models.lens import Lens, find_lens
from engine.models.scoring import predictions
from engine.models.tokenizer import Tokenizer
from engine.planning.changes import OTHERS, SAME, Change
from engine.planning.run_order import PACKED_TOKENS, kept_parts, packs, replaced_parts, turns
from engine.progress import Report, StopRequest
from engine.stages.adapter_layout import Arrangement
from engine.stages.interventions.directions import Directions
from engine.stages.interventions.edits import Means
from engine.stages.interventions.inputs import Input
from engine.stages.interventions.layer_parts import LayerParts, part_means, parts_of
from engine.stages.interventions.layout import takes_from_others
from engine.stages.interventions.places import Asked
from engine.stages.interventions.runs import SweepRuns
from engine.stages.interventions.sequences import Answers, chunks
from engine.text.targets import Example, TargetEncoder
from specs.tables.evaluate import Evaluate
from specs.tables.probe import Probe


@frozen
class InterventionRun:
    """A model with the adapters that its changes need, and how its answers are read."""

    arrangement: Arrangement
    tokenizer: Tokenizer
    writer: TargetEncoder
    evaluate: Evaluate
    probe: Probe
    inputs: Mapping[str, Input] = field(factory=dict)  # by name, what runs read that changes take from
    directions: Directions | None = None  # where changes add some
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

        Memory: L + 1 residual streams of a batch for the unmodified model, for each run that changes take
        from, with the parts that they take, and for the changes that run together.
        """
        own = self.arrangement.trained
        sequence = list(packs(turns(changes, own, len(self.lens.layers))))
        kept, padding = kept_parts(changes, own), padding_id(self.tokenizer)
        parts = self._parts(rows, changes)
        means = self._means(rows, changes, parts)
        for first in range(start, len(rows), self.probe.batch_size):
            batch = rows[first : first + self.probe.batch_size]
            asked = self._asked(rows, range(first, first + len(batch)))
            answers = [Answers(asked[SAME], len(self.lens.layers), self.probe.backend) for _ in changes]
            for chunk in chunks(asked, padding, self.lens):
                runs = SweepRuns(
                    self.arrangement,
                    self.lens,
                    parts,
                    kept,
                    chunk,
                    means,
                    self.directions,
                    self.probe.backend,
                )
                if first == start:
                    runs.check()
                most = max(1, PACKED_TOKENS // chunk.batch.ids.numel())
                for pack in sequence:
                    for begin in range(0, len(pack), most):
                        stop.check()
                        for turn, final, entropy in runs.take(pack[begin : begin + most]):
                            answers[turn.place].take(chunk, self.lens, final, entropy)
                            report(first, len(rows), turn.change.name)
            report(first + len(batch), len(rows), "")
            yield self._values(changes, answers) | self._stand_ins(changes, range(first, first + len(batch)))

    def _asked(self, rows: Sequence[Example], numbers: Sequence[int]) -> dict[str, list[Asked]]:
        """Tokenize some of the rows, and what stands for each in other inputs."""
        asked = {SAME: [Asked.of(self.writer, rows[number]) for number in numbers]}
        for name, read in self.inputs.items():
            asked[name] = [Asked.of(read.writer, read.rows[number]) for number in numbers]
        return asked

    def _values(self, changes: Sequence[Change], answers: Sequence[Answers]) -> dict[str, np.ndarray]:
        labels, normalized = self.evaluate.labels, self.evaluate.length_normalized
        read = [predictions(a.spellings, labels, length_normalized=normalized) for a in answers]
        values = {
            "prediction": np.array([predicted for predicted, _ in read], dtype=object).T,
            "label_logprob": np.stack([scores for _, scores in read], axis=1).astype(np.float32),
            "entropy": np.stack([answer.entropy for answer in answers], axis=1),
        }
        for place, (change, answer) in enumerate(zip(changes, answers, strict=True)):
            lacking = [not one.has(change.positions) for one in answer.asked]
            values["prediction"][lacking, place] = ""
            values["label_logprob"][lacking, place] = np.nan
            values["entropy"][lacking, place] = np.nan
        return values

    def _stand_ins(self, changes: Sequence[Change], numbers: Sequence[int]) -> dict[str, np.ndarray]:
        """Give the true labels of the other examples that changes take from, "" where they take from none."""
        if not takes_from_others(changes):
            return {}
        labels = np.full((len(numbers), len(changes)), "", object)
        for place, change in enumerate(changes):
            if change.input in OTHERS:
                labels[:, place] = [self.inputs[change.input].rows[number]["label"] for number in numbers]
        return {"other_label": labels}

    def _parts(self, rows: Sequence[Example], changes: Sequence[Change]) -> LayerParts:
        """Find the parts of layers that changes read or replace."""
        return parts_of(self.lens, changes, self.writer.encode_spellings(rows[0])[0])

    def _means(self, rows: Sequence[Example], changes: Sequence[Change], parts: LayerParts) -> Means:
        """Give the mean outputs that ablations need, over all examples, whichever come next."""
        wanted = replaced_parts(change for change in changes if change.value == "mean")
        if not wanted:
            return {}
        size, padding = self.probe.batch_size, padding_id(self.tokenizer)

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            for first in range(0, len(rows), size):
                prompts = [self.writer.encode_spellings(row)[0] for row in rows[first : first + size]]
                yield pad_right(prompts, padding, self.lens.device)

        with self.arrangement.using(self.arrangement.trained):
            return part_means(self.lens, parts, sorted(wanted), batches())
