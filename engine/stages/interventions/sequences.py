"""The token sequences of a batch of examples, and what a change makes of each example's labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from attrs import field, frozen
from torch import Tensor

from engine.models.lens import Lens
from engine.models.scoring import Question, Spelling, Stem, score, stems, unscored
from engine.stages.interventions.residual import Batch


@frozen
class Chunk:
    """Sequences that run together: examples' prompts, each with all but the last token of some spellings."""

    batch: Batch  # its positions: where a spelling's tokens are predicted, the first of them first
    stems: list[Stem]
    leading: list[int]  # the first sequence of each example that begins in this chunk

    @property
    def examples(self) -> list[int]:
        """The examples of the leading sequences."""
        return [self.stems[place][0] for place in self.leading]


def chunks(questions: Sequence[Question], padding: int, lens: Lens) -> Iterator[Chunk]:
    """Give the sequences of a batch's questions, never more at once than questions."""
    begun: set[int] = set()
    for sequences in stems(questions):
        prompts = [questions[row][0] for row, _ in sequences]
        texts = [prompt + list(stem) for prompt, (_, stem) in zip(prompts, sequences, strict=True)]
        longest = max(len(stem) for _, stem in sequences)
        positions = [
            [len(prompt) - 1 + min(step, len(stem)) for step in range(longest + 1)]
            for prompt, (_, stem) in zip(prompts, sequences, strict=True)
        ]
        leading = []
        for place, (row, _) in enumerate(sequences):
            if row not in begun:
                leading.append(place)
                begun.add(row)
        ids, mask = lens.pad(texts, padding)
        yield Chunk(Batch(ids, mask, torch.tensor(positions, device=lens.device)), sequences, leading)


@frozen
class Answers:
    """What one change makes of a batch of examples."""

    questions: Sequence[Question]
    layers: int
    backend: str  # of the probe core
    spellings: list[list[Spelling]] = field(init=False)
    entropy: np.ndarray = field(init=False)  # [examples, L + 1]

    @spellings.default
    def _unscored(self) -> list[list[Spelling]]:
        return unscored(self.questions)

    @entropy.default
    def _nothing_yet(self) -> np.ndarray:
        return np.empty((len(self.questions), self.layers + 1), np.float32)

    def take(self, chunk: Chunk, lens: Lens, final: Tensor, entropy: Tensor) -> None:
        """Read a chunk's normed final states [S, P, D], and entropies [L + 1, leading sequences]."""
        states = [final[place, : len(stem) + 1] for place, (_, stem) in enumerate(chunk.stems)]
        score(self.spellings, chunk.stems, lens, states, self.backend)
        self.entropy[chunk.examples] = entropy.T.cpu().numpy()
