"""What an annotator is asked: a conversation to rate, or explanations to merge."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from attrs import frozen

from engine.annotation.answers import LoggedAnswer
from engine.annotation.reading import Reading, read_answer
from engine.planning.identities import digest
from specs.tables.annotate import Annotate, Annotator, Strategy

Row = Mapping[str, str]
Message = dict[str, str]

MERGING = "(merge)"  # stands in the log where a question has no strategy; no strategy can have this name

CORRECTION = "This answer cannot be used: {fault}. Answer again, with the JSON object alone."


class AnnotatorQuestion(Protocol):
    """Something to ask one annotator about one dimension of one conversation."""

    @property
    def annotator(self) -> Annotator: ...  # noqa: D102
    @property
    def strategy_name(self) -> str: ...  # noqa: D102
    @property
    def dimension(self) -> str: ...  # noqa: D102
    @property
    def row(self) -> Row: ...  # noqa: D102
    @property
    def scale(self) -> tuple[int, int] | None:
        """Lowest and highest rating of a valid answer; None where an explanation alone is asked for."""

    def messages(self) -> list[Message]:
        """Give the first request's messages."""


@frozen
class RatingQuestion:
    """Rate a conversation and say why."""

    settings: Annotate
    annotator: Annotator
    strategy: Strategy
    dimension: str
    row: Row

    @property
    def strategy_name(self) -> str:
        """Name the strategy, for the log."""
        return self.strategy.name

    @property
    def scale(self) -> tuple[int, int]:
        """Give the strategy's own scale."""
        return self.strategy.low, self.strategy.high

    def messages(self) -> list[Message]:
        """Fill the strategy's template."""
        fields = _fields(self.settings, self.dimension, self.row) | {
            "low": self.strategy.low,
            "high": self.strategy.high,
            "examples": _examples(self.strategy, self.dimension),
        }
        user = {"role": "user", "content": self.strategy.template.format_map(fields)}
        system = self.strategy.system
        return [user] if system is None else [{"role": "system", "content": system}, user]


@frozen
class MergeQuestion:
    """Write one explanation of a merged rating from the explanations of all valid answers."""

    settings: Annotate
    annotator: Annotator
    dimension: str
    row: Row
    rating: int
    explanations: tuple[str, ...]
    strategy_name: str = MERGING
    scale: None = None

    def messages(self) -> list[Message]:
        """Fill the merge template."""
        fields = _fields(self.settings, self.dimension, self.row) | {
            "low": self.settings.low,
            "high": self.settings.high,
            "rating": self.rating,
            "explanations": "\n".join(f"- {' '.join(text.split())}" for text in self.explanations),
        }
        return [{"role": "user", "content": self.settings.merge_template.format_map(fields)}]


def _fields(settings: Annotate, dimension: str, row: Row) -> dict[str, Any]:
    return {
        "context": row["context"],
        "response": row["response"],
        "dimension": dimension,
        "definition": settings.definitions.get(dimension, ""),
    }


def _examples(strategy: Strategy, dimension: str) -> str:
    texts = []
    for example in strategy.examples:
        if example.dimension in (None, dimension):
            answer = {"rating": example.rating, "explanation": example.explanation}
            texts.append(
                f"Message: {example.context}\nReply: {example.response}\n"
                f"Answer: {json.dumps(answer, ensure_ascii=False)}\n"
            )
    return "\n".join(texts)


@frozen
class AnnotatorRequest:
    """One request: what is sent, the key that its answer is kept under, and which attempt it is."""

    body: dict[str, Any]
    key: str
    attempt: int


@frozen
class Thread:
    """How far the asking of one question has come: what was wrong so far, and the result or what is next.

    Neither `reading` nor `request`: no attempt is left, and the answer is missing for good.
    """

    faults: tuple[str, ...]
    reading: Reading | None = None
    request: AnnotatorRequest | None = None


def follow(question: AnnotatorQuestion, answers: Mapping[str, LoggedAnswer], attempts: int) -> Thread:
    """Replay a question's attempts from the answers that there are.

    After a malformed answer the next request holds it, and what is wrong with it: at temperature 0 the same
    request would be answered the same way. So the whole thread is a function of question and answers.
    """
    messages = question.messages()
    faults: list[str] = []
    while len(faults) < attempts:
        request = _request(question.annotator, messages, len(faults) + 1)
        answer = answers.get(request.key)
        if answer is None:
            return Thread(tuple(faults), request=request)
        read = read_answer(answer, question.scale)
        if isinstance(read, Reading):
            return Thread(tuple(faults), reading=read)
        faults.append(read)
        if answer.refused:
            break
        messages = [
            *messages,
            {"role": "assistant", "content": answer.text or "(nothing)"},
            {"role": "user", "content": CORRECTION.format(fault=read)},
        ]
    return Thread(tuple(faults))


def _request(annotator: Annotator, messages: Sequence[Message], attempt: int) -> AnnotatorRequest:
    body = {
        "model": annotator.model,
        "messages": list(messages),
        "temperature": annotator.temperature,
        "max_tokens": annotator.max_tokens,
        **annotator.parameters,
    }
    # Where the model runs does not count; how it was loaded here does.
    local = (
        [annotator.revision, annotator.dtype, annotator.quantization] if annotator.endpoint is None else []
    )
    return AnnotatorRequest(body, digest([annotator.name, body, *local]), attempt)
