"""What the ensemble says: every question's outcome, merged per conversation and dimension."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction

from attrs import field, frozen

from engine.annotation.answers import LoggedAnswer
from engine.annotation.merge import Merge, chosen_explanation, mean, merged, on_label_scale
from engine.annotation.questions import AnnotatorQuestion, MergeQuestion, RatingQuestion, Row, follow
from engine.annotation.reading import Reading
from specs.tables.annotate import Annotate, Annotator, Strategy


@frozen
class Rater:
    """One annotator asked in one way."""

    annotator: Annotator
    strategy: Strategy

    @property
    def name(self) -> str:
        """Name both."""
        return f"{self.annotator.name} / {self.strategy.name}"


@frozen
class QuestionOutcome:
    """How a question ended: its faulty attempts, and what a valid one says; unsettled if one is due."""

    faults: tuple[str, ...]
    reading: Reading | None
    settled: bool


def raters(settings: Annotate) -> list[Rater]:
    """Give every annotator with every strategy."""
    return [
        Rater(annotator, strategy) for annotator in settings.annotators for strategy in settings.strategies
    ]


def rating_questions(
    settings: Annotate, rows: Sequence[Row], annotators: Iterable[Annotator]
) -> Iterator[RatingQuestion]:
    """Yield what these annotators are asked, conversation by conversation."""
    chosen = list(annotators)
    for row in rows:
        for dimension in settings.dimensions:
            for annotator in chosen:
                for strategy in settings.strategies:
                    yield RatingQuestion(settings, annotator, strategy, dimension, row)


@frozen
class Ratings:
    """The outcomes of some conversations: dimension → conversation → rater."""

    settings: Annotate
    rows: Sequence[Row]
    outcomes: Mapping[str, list[list[QuestionOutcome]]] = field(repr=False)

    @staticmethod
    def of(settings: Annotate, rows: Sequence[Row], answers: Mapping[str, LoggedAnswer]) -> Ratings:
        """Read them from the answers that there are."""
        outcomes: dict[str, list[list[QuestionOutcome]]] = {
            name: [[] for _ in rows] for name in settings.dimensions
        }
        per_row = len(settings.dimensions) * len(raters(settings))
        for number, question in enumerate(rating_questions(settings, rows, settings.annotators)):
            outcomes[question.dimension][number // per_row].append(outcome(question, answers, settings))
        return Ratings(settings, rows, outcomes)

    @property
    def settled(self) -> bool:
        """Whether no question waits for an answer."""
        return all(one.settled for units in self.outcomes.values() for unit in units for one in unit)

    def values(self, dimension: str, index: int) -> list[Fraction | None]:
        """Give the ratings of a conversation on the labels' scale, by rater; None where one is missing."""
        return [
            None if one.reading is None else _value(one.reading, rater.strategy, self.settings)
            for one, rater in zip(self.outcomes[dimension][index], raters(self.settings), strict=True)
        ]

    def valid(self, dimension: str, index: int) -> list[Fraction]:
        """Give the ratings that there are."""
        return [value for value in self.values(dimension, index) if value is not None]

    def explanations(self, dimension: str, index: int) -> list[str]:
        """Give the explanations of the ratings that there are."""
        return [one.reading.explanation for one in self.outcomes[dimension][index] if one.reading is not None]

    def complete(self) -> list[int]:
        """Name the conversations that have enough valid answers in every dimension."""
        fewest = self.settings.min_answers
        return [
            index
            for index in range(len(self.rows))
            if all(len(self.valid(dimension, index)) >= fewest for dimension in self.settings.dimensions)
        ]


def outcome(
    question: AnnotatorQuestion, answers: Mapping[str, LoggedAnswer], settings: Annotate
) -> QuestionOutcome:
    """Say how a question ended, or that it waits."""
    thread = follow(question, answers, settings.attempts)
    return QuestionOutcome(thread.faults, thread.reading, settled=thread.request is None)


def _value(reading: Reading, strategy: Strategy, settings: Annotate) -> Fraction:
    assert reading.rating is not None  # a rating was asked for
    return on_label_scale(reading.rating, strategy, settings)


@frozen
class Annotation:
    """One conversation and dimension, merged: what the output says."""

    label: int
    mean: Fraction
    answers: int
    explanation: str | MergeQuestion  # a question where a model is to write it


def annotation(ratings: Ratings, dimension: str, index: int, how: Merge) -> Annotation:
    """Merge the answers about a conversation that has at least one."""
    settings = ratings.settings
    values, explanations = ratings.valid(dimension, index), ratings.explanations(dimension, index)
    label = merged(values, how)
    text: str | MergeQuestion
    if len(explanations) == 1:
        text = explanations[0]
    elif settings.explanations == "model":
        row = ratings.rows[index]
        text = MergeQuestion(settings, merger(settings), dimension, row, label, tuple(explanations))
    else:
        text = chosen_explanation(explanations, values, settings.explanations)
    return Annotation(label, mean(values), len(values), text)


def merger(settings: Annotate) -> Annotator:
    """Give the annotator that writes merged explanations."""
    if settings.merger is None:
        return settings.annotators[0]
    return next(annotator for annotator in settings.annotators if annotator.name == settings.merger)
