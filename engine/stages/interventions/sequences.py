"""The token sequences of a batch of examples, and what a change makes of each example's labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from attrs import field, frozen
from torch import Tensor

from engine.models.lens import Lens
from engine.models.scoring import Spelling, Stem, score, stems, unscored
from engine.planning.changes import SAME, Place
from engine.stages.interventions.places import Asked, standing_for
from engine.stages.interventions.residual import Batch


@frozen
class Places:
    """Tokens of sequences, and those of another input that stand for them: [N] indices each."""

    rows: Tensor  # of the sequences
    own: Tensor
    other: Tensor


@frozen(eq=False)
class Chunk:
    """Sequences that run together: examples' prompts, each with all but the last token of some spellings.

    The same spellings stand behind the prompts of other inputs.
    """

    stems: list[Stem]
    leading: list[int]  # the first sequence of each example that begins in this chunk
    batches: Mapping[
        str, Batch
    ]  # by input; positions: where spellings' tokens are predicted, the first first
    asked: Mapping[str, Sequence[Asked]]  # by input, of each sequence
    _places: dict[tuple[str, tuple[Place, ...] | None], Places] = field(factory=dict, init=False)

    @property
    def batch(self) -> Batch:
        """The sequences that changed models read."""
        return self.batches[SAME]

    @property
    def examples(self) -> list[int]:
        """The examples of the leading sequences."""
        return [self.stems[place][0] for place in self.leading]

    def places(self, read: str, positions: tuple[Place, ...] | None) -> Places:
        """Give the tokens at some positions, and those of an input that stand for them."""
        if (read, positions) not in self._places:
            found = [
                (row, *pair)
                for row, (_, stem) in enumerate(self.stems)
                for pair in standing_for(positions, self.asked[SAME][row], self.asked[read][row], len(stem))
            ]
            indices = torch.tensor(found, dtype=torch.int64, device=self.batch.ids.device).view(-1, 3)
            self._places[read, positions] = Places(*indices.unbind(dim=1))
        return self._places[read, positions]


def chunks(asked: Mapping[str, Sequence[Asked]], padding: int, lens: Lens) -> Iterator[Chunk]:
    """Give the sequences of a batch's examples, never more at once than examples.

    asked: by input, the examples as changed models read them, and what stands for each of them.
    """
    begun: set[int] = set()
    for sequences in stems([one.question for one in asked[SAME]]):
        leading = []
        for place, (row, _) in enumerate(sequences):
            if row not in begun:
                leading.append(place)
                begun.add(row)
        of_sequences = {read: [several[row] for row, _ in sequences] for read, several in asked.items()}
        batches = {read: _batch(several, sequences, padding, lens) for read, several in of_sequences.items()}
        yield Chunk(sequences, leading, batches, of_sequences)


def _batch(asked: Sequence[Asked], sequences: Sequence[Stem], padding: int, lens: Lens) -> Batch:
    texts = [one.question[0] + list(stem) for one, (_, stem) in zip(asked, sequences, strict=True)]
    longest = max(len(stem) for _, stem in sequences)
    positions = [
        [one.size - 1 + min(step, len(stem)) for step in range(longest + 1)]
        for one, (_, stem) in zip(asked, sequences, strict=True)
    ]
    ids, mask = lens.pad(texts, padding)
    return Batch(ids, mask, torch.tensor(positions, device=lens.device))


@frozen
class Answers:
    """What one change makes of a batch of examples."""

    asked: Sequence[Asked]
    layers: int
    backend: str  # of the probe core
    spellings: list[list[Spelling]] = field(init=False)
    entropy: np.ndarray = field(init=False)  # [examples, L + 1]

    @spellings.default
    def _unscored(self) -> list[list[Spelling]]:
        return unscored([one.question for one in self.asked])

    @entropy.default
    def _nothing_yet(self) -> np.ndarray:
        return np.empty((len(self.asked), self.layers + 1), np.float32)

    def take(self, chunk: Chunk, lens: Lens, final: Tensor, entropy: Tensor) -> None:
        """Read a chunk's normed final states [S, P, D], and entropies [L + 1, leading sequences]."""
        states = [final[place, : len(stem) + 1] for place, (_, stem) in enumerate(chunk.stems)]
        score(self.spellings, chunk.stems, lens, states, self.backend)
        self.entropy[chunk.examples] = entropy.T.cpu().numpy()
