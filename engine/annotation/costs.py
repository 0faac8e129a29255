"""What asking will cost, before anything is paid: requests, tokens and price per annotator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attrs import define
from rich.table import Table

from engine.annotation.answers import Answer
from engine.annotation.questions import MergeQuestion, Question, Row, follow
from engine.annotation.ratings import merger, rating_questions
from engine.estimate import CHARACTERS_PER_TOKEN
from specs.annotate import Annotate, Annotator


@define
class Cost:
    """The requests to one annotator; tokens are estimates of what is left to do."""

    questions: int = 0
    due: int = 0
    prompt_tokens: float = 0.0
    completion_tokens: float = 0.0

    def price(self, annotator: Annotator) -> float:
        """Give the price of what is left."""
        prompt, completion = annotator.prompt_price, annotator.completion_price
        return (self.prompt_tokens * prompt + self.completion_tokens * completion) / 1e6


def costs_table(
    settings: Annotate,
    rows: Sequence[Row],
    merged_rows: Sequence[Row],
    merging: Sequence[MergeQuestion] | None,
    answers: Mapping[str, Answer],
) -> Table:
    """Give a table of what is asked of each annotator about `rows`, and of the merging of explanations.

    `merging`: the questions of the merger, None while they hang on ratings to come.

    Rules of thumb: 4 characters per prompt token; an answer is as long as the mean of that annotator's
    answers so far, or `max_tokens` while there are none. Malformed answers, asked again, come on top.
    """
    table = Table(title="Requests, with estimates of what is left; malformed answers are asked again on top")
    for column in (
        "annotator",
        "questions",
        "answered",
        "to ask",
        "prompt tokens",
        "generated tokens",
        "price",
    ):
        table.add_column(column, justify="left" if column == "annotator" else "right")
    prices = []
    for annotator in settings.annotators:
        questions = rating_questions(settings, rows, [annotator])
        cost = _cost(annotator, questions, settings, answers)
        prices.append(cost.price(annotator))
        table.add_row(annotator.name, *_cells(cost, annotator))
    if settings.explanations == "model" and len(settings.annotators) * len(settings.strategies) > 1:
        annotator = merger(settings)
        if merging is None:
            cost = _merging_to_come(settings, merged_rows, answers)
        else:
            cost = _cost(annotator, merging, settings, answers)
        prices.append(cost.price(annotator))
        table.add_row(f"{annotator.name}, merging", *_cells(cost, annotator))
    table.add_row("all", "", "", "", "", "", f"{sum(prices):,.2f}")
    return table


def _cells(cost: Cost, annotator: Annotator) -> list[str]:
    counts = (cost.questions, cost.questions - cost.due, cost.due, cost.prompt_tokens, cost.completion_tokens)
    return [*(f"{count:,.0f}" for count in counts), f"{cost.price(annotator):,.2f}"]


def _cost(
    annotator: Annotator, questions: Iterable[Question], settings: Annotate, answers: Mapping[str, Answer]
) -> Cost:
    cost, length = Cost(), _answer_length(annotator, answers)
    for question in questions:
        cost.questions += 1
        request = follow(question, answers, settings.attempts).request
        if request is not None:
            cost.due += 1
            characters = sum(len(message["content"]) for message in request.body["messages"])
            cost.prompt_tokens += characters / CHARACTERS_PER_TOKEN
            cost.completion_tokens += length
    return cost


def _merging_to_come(settings: Annotate, rows: Sequence[Row], answers: Mapping[str, Answer]) -> Cost:
    """Suppose that every rater gives an explanation of every conversation."""
    count = len(rows) * len(settings.dimensions)
    lengths = [_answer_length(annotator, answers) for annotator in settings.annotators]
    explanations = sum(lengths) * len(settings.strategies)
    characters = sum(len(row["context"]) + len(row["response"]) for row in rows) * len(settings.dimensions)
    characters += len(settings.merge_template) * count
    return Cost(
        questions=count,
        due=count,
        prompt_tokens=characters / CHARACTERS_PER_TOKEN + explanations * count,
        completion_tokens=_answer_length(merger(settings), answers) * count,
    )


def _answer_length(annotator: Annotator, answers: Mapping[str, Answer]) -> float:
    known = [
        answer.completion_tokens
        for answer in answers.values()
        if answer.annotator == annotator.name and answer.completion_tokens is not None
    ]
    return sum(known) / len(known) if known else annotator.max_tokens
