"""Batches of examples, and the loss of their completions by segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from attrs import frozen
from torch import Tensor, nn

from engine.models.lens import Lens
from engine.process_group.alone import IGNORED
from engine.text.targets import LABEL, Encoded
from specs.tables.loss import SEGMENTS
from specs.tables.target import Target


@frozen
class Collator:
    """Pads examples on the right; the loss counts the completion's tokens alone.

    Lengths, not token values, say what is padding, so an end-of-sequence token that is also the padding
    token still takes part in the loss.
    """

    padding: int

    def __call__(self, examples: Sequence[Encoded]) -> dict[str, Tensor]:
        """Give input_ids, attention_mask, labels, segments (of the labels' tokens): int64 [B, T]."""
        length = max(map(len, examples))
        ids = torch.full((len(examples), length), self.padding)
        mask = torch.zeros_like(ids)
        labels = torch.full_like(ids, IGNORED)
        segments = torch.full_like(ids, IGNORED)
        for row, example in enumerate(examples):
            size, border = len(example), len(example.prompt)
            ids[row, :size] = torch.tensor(example.prompt + example.completion)
            mask[row, :size] = 1
            labels[row, border:size] = ids[row, border:size]
            segments[row, border:size] = torch.tensor(example.segments)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels, "segments": segments}


@frozen
class Objective:
    """What a training minimises: the weighted mean of its completions' losses."""

    weights: tuple[float, ...] = (1.0,) * len(SEGMENTS)
    balance: str = "tokens"

    @staticmethod
    def of(target: Target) -> Objective:
        """Give the objective that a spec asks for."""
        return Objective(tuple(target.loss.weights.values()), target.loss_balance)

    @property
    def is_plain(self) -> bool:
        """Whether all tokens count alike."""
        return self.balance == "tokens" and len(set(self.weights)) == 1

    def coefficients(self, counts: Tensor) -> Tensor:
        """Give what each token of a segment is multiplied by, for so many tokens of each: float64 [S].

        Segments without tokens take no part; all are 0 where no token has a weight.
        """
        weights = counts.new_tensor(self.weights, dtype=torch.float64)
        present = counts > 0
        if self.balance == "tokens":
            total = (weights * counts).sum()
            parts = weights.expand_as(counts)
        else:
            total = (weights * present).sum()
            parts = weights / counts.clamp(min=1)
        return torch.where(present & (total > 0), parts / total.clamp(min=torch.finfo(total.dtype).tiny), 0)

    def value(self, tally: Tally) -> float:
        """Give the objective, in nats, over all tokens of a tally."""
        return float((self.coefficients(tally.counts) * tally.losses).sum())


PLAIN = Objective()


@frozen
class Tally:
    """What the tokens of some batches add up to, by segment: float64 [2 S + 2], which ranks can add up."""

    sums: Tensor

    @staticmethod
    def none(device: torch.device | None = None) -> Tally:
        """Give the tally of no token."""
        return Tally(torch.zeros(2 * len(SEGMENTS) + 2, dtype=torch.float64, device=device))

    @property
    def counts(self) -> Tensor:
        """Tokens: [S]."""
        return self.sums[: len(SEGMENTS)]

    @property
    def losses(self) -> Tensor:
        """Summed cross-entropies, in nats: [S]."""
        return self.sums[len(SEGMENTS) : 2 * len(SEGMENTS)]

    @torch.no_grad()
    def add(self, log_probs: Tensor, tokens: Tensor, segments: Tensor) -> None:
        """Add tokens [N] of some segments [N], predicted by log-probabilities [N, V]."""
        device = log_probs.device
        labels = sent((segments == LABEL).nonzero()[:, 0], device)
        of_segment = sent(segments == torch.arange(len(SEGMENTS), device=segments.device)[:, None], device)
        losses = -log_probs.gather(1, tokens[:, None])[:, 0]
        rows = log_probs[labels]
        hits = (rows.argmax(-1) == tokens[labels]).sum()
        entropy = -(rows.exp() * rows.nan_to_num(neginf=0.0)).sum(dtype=torch.float64)
        self.sums.add_(
            torch.cat([of_segment.sum(1), (of_segment * losses.double()).sum(1), hits[None], entropy[None]])
        )

    def means(self) -> dict[str, float]:
        """Name the counts and means; segments without tokens have a count alone."""
        *sums, hits, entropy = self.sums.tolist()
        counts = dict(zip(SEGMENTS, sums, strict=False))
        losses = dict(zip(SEGMENTS, sums[len(SEGMENTS) :], strict=True))
        means = {f"{name}_tokens": count for name, count in counts.items()}
        means |= {f"{name}_loss": losses[name] / count for name, count in counts.items() if count}
        if count := counts["label"]:
            means |= {"label_token_accuracy": hits / count, "label_token_entropy": entropy / count}
        return means


def counted(inputs: Mapping[str, Tensor]) -> Tensor:
    """Count the tokens of a batch that are predicted, by segment: int64 [S]."""
    segments = inputs["segments"][:, 1:].masked_fill(inputs["labels"][:, 1:] == IGNORED, IGNORED)
    kinds = torch.arange(len(SEGMENTS), device=segments.device)
    return (segments.flatten() == kinds[:, None]).sum(1)


@frozen
class TrainingRows:
    """The rows of one training in a pass, and what its loss is made of."""

    inputs: Mapping[str, Tensor]
    """A batch of the `Collator`."""
    counts: Tensor | None = None
    """Tokens by segment of all batches of the optimiser step; those of this batch by default."""
    objective: Objective = PLAIN
    tally: Tally | None = None
    """Takes in the batch's tokens."""
    first: int = 0
    """The place of the first row among those of the pass."""

    def predicted(self) -> tuple[Tensor, Tensor]:
        """Give row and column, [N] each, of the labels behind the first column that count."""
        rows, columns = (self.inputs["labels"][:, 1:] != IGNORED).nonzero(as_tuple=True)
        return rows, columns

    def loss(self, rows: Tensor, columns: Tensor, log_probs: Tensor) -> Tensor:
        """Give the objective, in nats, by the log-probabilities [N, V] at what is `predicted`."""
        device = log_probs.device
        tokens = sent(self.inputs["labels"][:, 1:][rows, columns], device)
        segments = self.inputs["segments"][:, 1:][rows, columns]
        counts = counted(self.inputs) if self.counts is None else self.counts
        if self.tally is not None:
            self.tally.add(log_probs.detach(), tokens, segments)
        if self.objective.is_plain:
            return nn.functional.nll_loss(log_probs, tokens, reduction="sum") / sent(counts.sum(), device)
        losses = nn.functional.nll_loss(log_probs, tokens, reduction="none")
        coefficients = self.objective.coefficients(counts).to(losses.dtype)[segments.to(counts.device)]
        return (losses * sent(coefficients, device)).sum()


def completion_loss(
    lens: Lens,
    inputs: Mapping[str, Tensor],
    counts: Tensor | None = None,
    objective: Objective = PLAIN,
    tally: Tally | None = None,
) -> Tensor:
    """Give an objective, in nats, over the labelled tokens; a plain one is the causal model's own loss.

    The arguments are those of `TrainingRows`.
    """
    mask = lens.needed(inputs["attention_mask"])
    ids = sent(inputs["input_ids"], lens.device)
    hidden = lens.last_hidden(ids, None if mask is None else sent(mask, lens.device))
    return row_losses(lens, hidden, [TrainingRows(inputs, counts, objective, tally)])[0]


def row_losses(lens: Lens, hidden: Tensor, trainings: Sequence[TrainingRows]) -> list[Tensor]:
    """Give the objective of each of some trainings, by the hidden states [B, T, D] of all their rows.

    Logits are made for the labelled positions alone, not [B, T, V] of them. Where these are is read off the
    batches before they are sent to the model's device: nothing waits for a GPU.
    """
    places = [training.predicted() for training in trainings]
    rows = torch.cat([rows + training.first for training, (rows, _) in zip(trainings, places, strict=True)])
    columns = torch.cat([columns for _, columns in places])
    predicting = hidden[:, :-1][sent(rows, lens.device), sent(columns, lens.device)]
    log_probs = nn.functional.log_softmax(lens.logits(predicting), -1)
    sizes = [len(rows) for rows, _ in places]
    parts = torch.split(log_probs, sizes) if len(places) > 1 else [log_probs]
    return [
        training.loss(*place, part) for training, place, part in zip(trainings, places, parts, strict=True)
    ]


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Copy values to a device; the CPU goes on meanwhile."""
    return values.to(device, non_blocking=True)
