"""What asking will cost, before anything is paid: requests, tokens and price per annotator.

Rules of thumb: 4 characters per prompt token; an answer is as long as the mean of that annotator's answers so
far, or `max_tokens` while there are none. Malformed answers, which are asked again, come on top.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attrs import frozen
from rich.table import Table

from engine.annotation.answers import LoggedAnswer
from engine.annotation.questions import AnnotatorQuestion, Row, follow
from engine.annotation.ratings import merger, raters
from engine.planning.example_lengths import CHARACTERS_PER_TOKEN
from engine.quantities import si
from specs.tables.annotate import Annotate, Annotator


@frozen
class AnnotatorCost:
    """The requests to one annotator; tokens are estimates of what is left to do."""

    name: str
    annotator: Annotator
    questions: int
    due: int
    prompt_tokens: float
    completion_tokens: float

    @property
    def price(self) -> float:
        """Give the price of what is left."""
        prompt, completion = self.annotator.prompt_price, self.annotator.completion_price
        return (self.prompt_tokens * prompt + self.completion_tokens * completion) / 1e6


def cost(
    name: str,
    annotator: Annotator,
    questions: Iterable[AnnotatorQuestion],
    settings: Annotate,
    answers: Mapping[str, LoggedAnswer],
) -> AnnotatorCost:
    """Add up what is left of some questions."""
    total = due = characters = 0
    for question in questions:
        total += 1
        request = follow(question, answers, settings.attempts).request
        if request is not None:
            due += 1
            characters += sum(len(message["content"]) for message in request.body["messages"])
    length = _answer_length(annotator, answers)
    return AnnotatorCost(name, annotator, total, due, characters / CHARACTERS_PER_TOKEN, due * length)


def merging_to_come(
    name: str, settings: Annotate, rows: Sequence[Row], answers: Mapping[str, LoggedAnswer]
) -> AnnotatorCost:
    """Estimate the merging of explanations, supposing that every rater explains every rating."""
    count = len(rows) * len(settings.dimensions)
    texts = sum(len(row["context"]) + len(row["response"]) for row in rows) * len(settings.dimensions)
    texts += len(settings.merge_template) * count
    explanations = sum(_answer_length(rater.annotator, answers) for rater in raters(settings))
    prompts = texts / CHARACTERS_PER_TOKEN + explanations * count
    annotator = merger(settings)
    return AnnotatorCost(name, annotator, count, count, prompts, _answer_length(annotator, answers) * count)


def costs_table(costs: Sequence[AnnotatorCost]) -> Table:
    """Show what is asked of whom, and for how much."""
    table = Table(title="Requests, and estimates of what is left")
    for column in ("annotator", "questions", "answered", "to ask", "tokens in", "tokens out", "price"):
        table.add_column(column, justify="left" if column == "annotator" else "right")
    for one in costs:
        counts = (f"{count:,}" for count in (one.questions, one.questions - one.due, one.due))
        tokens = (si(count) for count in (one.prompt_tokens, one.completion_tokens))
        table.add_row(one.name, *counts, *tokens, f"{one.price:,.2f}")
    table.add_row("all", *[""] * 5, f"{sum(one.price for one in costs):,.2f}")
    return table


def _answer_length(annotator: Annotator, answers: Mapping[str, LoggedAnswer]) -> float:
    known = [
        answer.completion_tokens
        for answer in answers.values()
        if answer.annotator == annotator.name and answer.completion_tokens is not None
    ]
    return sum(known) / len(known) if known else annotator.max_tokens
