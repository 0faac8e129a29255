"""What a model makes of each label after a prompt: its log-likelihood, and greedy decoding among labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from attrs import field, frozen

from engine.errors import EngineError
from engine.models.generation import FINITE
from engine.models.lens import Lens
from engine.models.shared_prefix import Prefix, Sequences, last_hidden, shared_prefix
from kernels import lens_statistics

# Prompt ids, and for every label the ids of its spellings: those of `TargetEncoder.encode_spellings`.
Question = tuple[list[int], list[list[list[int]]]]


@frozen
class Spelling:
    """A spelling of a label after some prompt: its tokens, each with its log-probability in nats and rank."""

    label: int  # place of the label
    ids: list[int]
    logprobs: list[float]
    ranks: list[int] = field(factory=list)  # in the vocabulary, 0 = top, ties by token id

    @property
    def total(self) -> float:
        """Give the log-likelihood of all tokens, in nats."""
        return sum(self.logprobs)

    @property
    def mean(self) -> float:
        """Give the log-likelihood per token, in nats."""
        return self.total / len(self.logprobs)

    @property
    def order(self) -> list[int]:
        """Give what tells apart spellings whose log-probabilities are equal: the lower one comes first.

        A log-probability is a rounded number; ranks are a strict order of the logits themselves.
        """
        return self.ranks or self.ids


# An example's place, and the tokens behind its prompt that some of its spellings begin with.
Stem = tuple[int, tuple[int, ...]]


class PromptPasses(Protocol):
    """What runs a model over bare prompts, that more may be read of its passes."""

    def first_read(self, prompts: Sequences) -> int:
        """Give the first place at which anything is read of any prompt."""

    def last_hidden(self, prompts: Sequences, prefix: Prefix | None) -> torch.Tensor:
        """Give the last normed hidden states behind a prefix [B, T - length, D], or of whole prompts."""


def score_spellings(
    lens: Lens, questions: Sequence[Question], padding: int, passes: PromptPasses | None = None
) -> list[list[Spelling]]:
    """Score the tokens of every spelling after its prompt, by question.

    Tokens that all prompts begin with are read once for all (`shared_prefix`), where that pays. passes: what
    runs the model over bare prompts instead.
    """
    scores, prompts = unscored(questions), [prompt for prompt, _ in questions]
    prefix = shared_prefix(lens, prompts, passes.first_read(prompts) if passes else None)
    before = prefix.length if prefix else 0
    for chunk in stems(questions):
        sequences = [prompts[row] + list(stem) for row, stem in chunk]
        if passes is not None and _is_bare(chunk):
            hidden = passes.last_hidden(sequences, prefix)
        else:
            hidden = last_hidden(lens, prefix, sequences, padding)
        firsts = [len(prompts[row]) - 1 - before for row, _ in chunk]
        states = [
            hidden[place, first : first + len(stem) + 1]
            for place, (first, (_, stem)) in enumerate(zip(firsts, chunk, strict=True))
        ]
        score(scores, chunk, lens, states)
    return scores


def _is_bare(chunk: Sequence[Stem]) -> bool:
    """Tell whether a chunk is prompts with nothing behind them."""
    return not any(stem for _, stem in chunk)


def unscored(questions: Sequence[Question]) -> list[list[Spelling]]:
    """Give every spelling of each question, its tokens not scored yet."""
    return [
        [Spelling(label, ids, []) for label, spellings in enumerate(labels) for ids in spellings]
        for _, labels in questions
    ]


def stems(questions: Sequence[Question]) -> list[list[Stem]]:
    """Give the sequences to run, in chunks of never more than there are questions.

    Spellings that differ in their last token alone share one forward pass, so single-token labels cost one
    pass for all of them. Shorter stems come first: bare prompts of all questions are one chunk.
    """
    sequences = [
        (row, stem)
        for row, (_, labels) in enumerate(questions)
        for stem in dict.fromkeys(tuple(ids[:-1]) for spellings in labels for ids in spellings)
    ]
    sequences.sort(key=lambda sequence: len(sequence[1]))
    return [sequences[start : start + len(questions)] for start in range(0, len(sequences), len(questions))]


def score(
    questions: Sequence[Sequence[Spelling]],
    chunk: Sequence[Stem],
    lens: Lens,
    states: Sequence[torch.Tensor],
    backend: str = "auto",
) -> None:
    """Score those spellings of each question that are a stem of the chunk and one token more.

    states: of each stem the normed states [len(stem) + 1, D], the first that of its prompt's last token.
    Log-probabilities and ranks are the probe core's own (`kernels.lens_statistics`), of logits that are
    float32 sums, so a prediction never contradicts what the probe makes of the same states. Raises
    EngineError where a logit is NaN or infinite.
    """
    begun = [
        [spelling for spelling in questions[row] if tuple(spelling.ids[:-1]) == stem] for row, stem in chunk
    ]
    tokens = sorted({token for spellings in begun for spelling in spellings for token in spelling.ids})
    result = lens_statistics(
        torch.cat(list(states)), lens.unembedding, watch_ids=tokens, top_k=0, backend=backend
    )
    if result.nonfinite_rows:
        raise EngineError(
            f"scoring labels: found NaN or infinite logits at {result.nonfinite_rows} of "
            f"{len(result.logsumexp)} positions; {FINITE}"
        )
    places = {token: place for place, token in enumerate(tokens)}
    logprobs, ranks = result.watch_logprob.tolist(), result.watch_rank.tolist()
    first = 0
    for (_, stem), spellings in zip(chunk, begun, strict=True):
        for spelling in spellings:
            steps = [(first + step, places[token]) for step, token in enumerate(spelling.ids)]
            spelling.logprobs.extend(logprobs[row][place] for row, place in steps)
            spelling.ranks.extend(ranks[row][place] for row, place in steps)
        first += len(stem) + 1


def log_likelihoods(spellings: Sequence[Spelling], labels: int) -> np.ndarray:
    """Give each label's log-likelihood, in nats: of an answer that begins with any of its spellings.

    [labels]: the logsumexp over the spellings, whose events are disjoint (`TargetEncoder.encode_spellings`).
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
    questions: Sequence[Sequence[Spelling]], labels: Sequence[str], *, length_normalized: bool
) -> tuple[list[str], np.ndarray]:
    """Give the label that each question's spellings predict, and all log-likelihoods, [questions, labels].

    Of labels with equal scores that one is predicted whose spelling ranks first in the vocabulary.
    """
    scores = np.array([log_likelihoods(spellings, len(labels)) for spellings in questions])
    ranked = scores
    if length_normalized:
        ranked = np.array([best_means(spellings, len(labels)) for spellings in questions])
    predicted = [_best(*pair) for pair in zip(questions, ranked, strict=True)]
    return [labels[index] for index in predicted], scores


def _best(spellings: Sequence[Spelling], scores: np.ndarray) -> int:
    """Give the place of the highest of the scores [labels]."""
    tied = np.flatnonzero(scores == scores.max()).tolist()
    return min(tied, key=lambda label: min(s.order for s in spellings if s.label == label))


def constrained_spelling(spellings: Sequence[Spelling]) -> Spelling:
    """Give the spelling that greedy decoding writes if only spellings can be written.

    At each step the likeliest token is taken among those that go on with some spelling, of equally likely
    ones that which ranks first.
    """

    def likeliest(left: Sequence[Spelling], depth: int) -> int:
        return min(left, key=lambda s: (-s.logprobs[depth], s.order[depth])).ids[depth]

    return walked(spellings, likeliest)


def walked(spellings: Sequence[Spelling], choose: Callable[[Sequence[Spelling], int], int]) -> Spelling:
    """Give the spelling at which a walk ends that takes one token after another.

    choose: gives the next token, of the spellings that are left and the number of tokens taken. No spelling's
    tokens begin another's, so the walk ends with exactly one.
    """
    left, depth = list(spellings), 0
    while len(left) > 1:
        token = choose(left, depth)
        left = [spelling for spelling in left if spelling.ids[depth] == token]
        depth += 1
    return left[0]
