"""What a model makes of each label after a prompt: its log-likelihood, and greedy decoding among labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from attrs import frozen

from engine.lens import Lens

# Prompt ids, and for every label the ids of its spellings: those of `Writer.encode_spellings`.
Question = tuple[list[int], list[list[list[int]]]]


@frozen
class Spelling:
    """A spelling of a label after some prompt: its tokens, each with its log-probability in nats."""

    label: int  # place of the label
    ids: list[int]
    logprobs: list[float]

    @property
    def total(self) -> float:
        """Give the log-likelihood of all tokens, in nats."""
        return sum(self.logprobs)

    @property
    def mean(self) -> float:
        """Give the log-likelihood per token, in nats."""
        return self.total / len(self.logprobs)


# An example's place, and the tokens behind its prompt that some of its spellings begin with.
Stem = tuple[int, tuple[int, ...]]


def score_spellings(lens: Lens, questions: Sequence[Question], padding: int) -> list[list[Spelling]]:
    """Score the tokens of every spelling after its prompt, by question."""
    found = unscored(questions)
    for chunk in stems(questions):
        sequences = [questions[row][0] + list(stem) for row, stem in chunk]
        hidden = lens.last_hidden(*pad_right(sequences, padding, lens.device))
        for place, (row, stem) in enumerate(chunk):
            first = len(questions[row][0]) - 1
            score(found[row], stem, lens, hidden[place, first : first + len(stem) + 1])
    return found


def unscored(questions: Sequence[Question]) -> list[list[Spelling]]:
    """Give every spelling of each question, its tokens not scored yet."""
    return [
        [Spelling(label, ids, []) for label, spellings in enumerate(labels) for ids in spellings]
        for _, labels in questions
    ]


def stems(questions: Sequence[Question]) -> list[list[Stem]]:
    """Give the sequences to run, in chunks of never more than there are questions.

    Spellings that differ in their last token alone share one forward pass, so single-token labels cost one
    pass for all of them.
    """
    found = [
        (row, stem)
        for row, (_, labels) in enumerate(questions)
        for stem in dict.fromkeys(tuple(ids[:-1]) for spellings in labels for ids in spellings)
    ]
    return [found[start : start + len(questions)] for start in range(0, len(found), len(questions))]


def score(spellings: Sequence[Spelling], stem: tuple[int, ...], lens: Lens, hidden: torch.Tensor) -> None:
    """Score those spellings that are `stem` and one token more, from normed states [len(stem) + 1, D].

    The first state is that of the prompt's last token.
    """
    logprobs = torch.log_softmax(lens.logits(hidden), dim=-1).double()
    for spelling in spellings:
        if tuple(spelling.ids[:-1]) == stem:
            spelling.logprobs.extend(logprobs[i, token].item() for i, token in enumerate(spelling.ids))


def log_likelihoods(spellings: Sequence[Spelling], labels: int) -> np.ndarray:
    """Give each label's log-likelihood, in nats: of an answer that begins with any of its spellings.

    [labels]: the logsumexp over the spellings, whose events are disjoint (`Writer.encode_spellings`).
    """
    totals = np.full(labels, -np.inf)
    for spelling in spellings:
        totals[spelling.label] = np.logaddexp(totals[spelling.label], spelling.total)
    return totals


def best_means(spellings: Sequence[Spelling], labels: int) -> np.ndarray:
    """Give the log-likelihood per token, in nats, of each label's best spelling: [labels].

    A mean per token is no log-probability: adding spellings up would favour the labels with most of them.
    """
    means = np.full(labels, -np.inf)
    for spelling in spellings:
        means[spelling.label] = max(means[spelling.label], spelling.mean)
    return means


def predictions(
    found: Sequence[Sequence[Spelling]], labels: Sequence[str], *, length_normalized: bool
) -> tuple[list[str], np.ndarray]:
    """Give the label that each question's spellings predict, and all log-likelihoods, [questions, labels]."""
    scores = np.array([log_likelihoods(spellings, len(labels)) for spellings in found])
    ranked = scores
    if length_normalized:
        ranked = np.array([best_means(spellings, len(labels)) for spellings in found])
    return [labels[index] for index in np.argmax(ranked, axis=1)], scores


def constrained_label(spellings: Sequence[Spelling]) -> int:
    """Give the place of the label that greedy decoding writes if only spellings can be written.

    At each step the likeliest token is taken among those that go on with some spelling. No spelling's
    tokens begin another's, so the walk ends with exactly one.
    """
    left, depth = list(spellings), 0
    while len(left) > 1:
        token = max(left, key=lambda spelling: spelling.logprobs[depth]).ids[depth]
        left = [spelling for spelling in left if spelling.ids[depth] == token]
        depth += 1
    return left[0].label


def pad_right(
    sequences: Sequence[Sequence[int]], padding: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give (input_ids, attention_mask), int64 [B, T]. Causal attention never looks at right padding."""
    length = max(map(len, sequences))
    ids = torch.full((len(sequences), length), padding)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
        mask[row, : len(sequence)] = 1
    return ids.to(device), mask.to(device)
