"""The tables at the end of `engine annotate`: answers, agreement, errors against the golden set, tokens."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping

from rich.table import Table

from engine.annotation.agreement import Errors, alpha
from engine.annotation.answers import LoggedAnswer
from engine.annotation.golden import GoldenComparison
from engine.annotation.merge import MERGES, Merge, mean
from engine.annotation.ratings import QuestionOutcome, Rater, Ratings, raters
from engine.annotation.reading import FAULTS
from specs.tables.annotate import Annotate


def tables(
    ratings: Ratings, comparison: GoldenComparison, used: Merge | None, answers: Mapping[str, LoggedAnswer]
) -> Iterator[Table]:
    """Yield the tables; `used` is the merge in use, None while too little is known to say."""
    yield _raters(ratings, comparison)
    if any(one.faults for one in _outcomes(ratings, raters(ratings.settings))):
        yield _faults(ratings)
    yield _agreement(ratings)
    if comparison.golden:
        yield _merges(comparison, used)
    yield _tokens(ratings.settings, answers)


def _raters(ratings: Ratings, comparison: GoldenComparison) -> Table:
    columns = ["rater", "questions", "valid", "missing", "to ask", "malformed", "mean"]
    if comparison.golden:
        columns += ["MAE", "MSE"]
    table = _table("Answers by annotator and strategy", columns)
    for place, rater in enumerate(raters(ratings.settings)):
        outcomes = _outcomes(ratings, [rater])
        values = [
            value
            for dimension in ratings.settings.dimensions
            for index in range(len(ratings.rows))
            if (value := ratings.values(dimension, index)[place]) is not None
        ]
        counts = (
            len(outcomes),
            len(values),
            sum(one.settled and one.reading is None for one in outcomes),
            sum(not one.settled for one in outcomes),
            sum(len(one.faults) for one in outcomes),
        )
        errors = _errors(comparison.of_raters([rater])) if comparison.golden else []
        average = f"{float(mean(values)):.2f}" if values else "–"
        table.add_row(rater.name, *(f"{count:,}" for count in counts), average, *errors)
    return table


def _faults(ratings: Ratings) -> Table:
    groups = _groups(ratings.settings)
    table = _table("Malformed answers, each asked again", ["what is wrong", *groups])
    counts = [
        Counter(fault for one in _outcomes(ratings, chosen) for fault in one.faults)
        for chosen in groups.values()
    ]
    for fault in FAULTS:
        if any(count[fault] for count in counts):
            table.add_row(fault, *(f"{count[fault]:,}" for count in counts))
    return table


def _outcomes(ratings: Ratings, chosen: Collection[Rater]) -> list[QuestionOutcome]:
    wanted = [rater in chosen for rater in raters(ratings.settings)]
    units = (unit for by_row in ratings.outcomes.values() for unit in by_row)
    return [one for unit in units for one, take in zip(unit, wanted, strict=True) if take]


def _groups(settings: Annotate) -> dict[str, list[Rater]]:
    """Give the raters of every annotator and of every strategy."""
    known = raters(settings)
    annotators = {
        f"annotator {x.name}": [one for one in known if one.annotator == x] for x in settings.annotators
    }
    strategies = {
        f"strategy {x.name}": [one for one in known if one.strategy == x] for x in settings.strategies
    }
    return annotators | strategies


def _agreement(ratings: Ratings) -> Table:
    table = _table(
        "Agreement between raters: Krippendorff's alpha", ["dimension", "interval", "ordinal", "compared"]
    )
    for dimension in ratings.settings.dimensions:
        units = [ratings.values(dimension, index) for index in range(len(ratings.rows))]
        compared = sum(sum(value is not None for value in unit) >= 2 for unit in units)
        table.add_row(
            dimension, _number(alpha(units, "interval")), _number(alpha(units, "ordinal")), f"{compared:,}"
        )
    return table


def _merges(comparison: GoldenComparison, used: Merge | None) -> Table:
    table = _table("Against the golden set", ["ratings", "MAE", "MSE", "compared"])
    for name, chosen in _groups(comparison.ratings.settings).items():
        errors = comparison.of_raters(chosen)
        table.add_row(name, *_errors(errors), _count(errors))
    for how in MERGES:
        errors = comparison.of_merge(how)
        mark = " (in use)" if how == used else ""
        table.add_row(f"{how} of all, rounded{mark}", *_errors(errors), _count(errors))
    return table


def _tokens(settings: Annotate, answers: Mapping[str, LoggedAnswer]) -> Table:
    table = _table(
        "Spent so far, merged explanations included",
        ["annotator", "answers", "prompt tokens", "generated tokens", "price"],
    )
    for annotator in settings.annotators:
        given = [answer for answer in answers.values() if answer.annotator == annotator.name]
        prompt = sum(answer.prompt_tokens or 0 for answer in given)
        completion = sum(answer.completion_tokens or 0 for answer in given)
        price = (prompt * annotator.prompt_price + completion * annotator.completion_price) / 1e6
        table.add_row(annotator.name, *(f"{n:,}" for n in (len(given), prompt, completion)), f"{price:,.2f}")
    return table


def _table(title: str, columns: list[str]) -> Table:
    table = Table(title=title)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    return table


def _errors(errors: Errors | None) -> list[str]:
    return ["–", "–"] if errors is None else [f"{errors.mae:.3f}", f"{errors.mse:.3f}"]


def _count(errors: Errors | None) -> str:
    return f"{0 if errors is None else errors.count:,}"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
