"""The intervene stage: every change to a cell's model, evaluated and probed on the test examples.

Per batch the unmodified model, and each that a patch takes from, runs once; every change runs only the layers
above those that it has in common with one that has run (engine.planning.run_order).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from attrs import field, frozen
from torch import Tensor

from engine.models.batching import pad_right, padding_id
from engine.models.lens import Lens, find_lens
from engine.models.scoring import predictions
from engine.models.tokenizer import Tokenizer
from engine.planning.changes import Change
from engine.planning.run_order import turns
from engine.progress import Report, StopRequest
from engine.stages.adapter_layout import Arrangement
from engine.stages.example_coordinates import example_coordinates
from engine.stages.interventions.heads import Means, head_means
from engine.stages.interventions.runs import SweepRuns
from engine.stages.interventions.sequences import Answers, chunks
from engine.text.targets import Example, TargetEncoder
from specs.tables.evaluate import Evaluate
from specs.tables.probe import Probe
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
            *example_coordinates(rows),
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
class InterventionRun:
    """A model with the adapters that its changes need, and how its answers are read."""

    arrangement: Arrangement
    tokenizer: Tokenizer
    writer: TargetEncoder
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

        Memory: L + 1 residual streams of a batch for the unmodified model, for each that a patch takes from,
        and for the change that runs.
        """
        means = self._means(rows, changes)
        sequence = turns(changes, self.arrangement.trained, len(self.lens.layers))
        for first in range(start, len(rows), self.probe.batch_size):
            batch = rows[first : first + self.probe.batch_size]
            questions = [self.writer.encode_spellings(row) for row in batch]
            answers = [Answers(questions, len(self.lens.layers), self.probe.backend) for _ in changes]
            for chunk in chunks(questions, padding_id(self.tokenizer), self.lens):
                runs = SweepRuns(self.arrangement, self.lens, chunk, means, self.probe.backend)
                if first == start:
                    runs.check()
                for turn in sequence:
                    stop.check()
                    answers[turn.place].take(chunk, self.lens, *runs.take(turn))
                    report(first, len(rows), turn.change.name)
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

        with self.arrangement.using(self.arrangement.trained):
            return head_means(self.lens, layers, batches())
