"""The tables at the end of `engine annotate`: answers, agreement, errors against the golden set, tokens."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from fractions import Fraction

from rich.table import Table

from engine.annotation.agreement import Errors, alpha
from engine.annotation.answers import Answer
from engine.annotation.golden import Comparison
from engine.annotation.merge import MERGES, Merge, mean
from engine.annotation.ratings import Outcome, Ratings, raters
from engine.annotation.reading import FAULTS
from specs.annotate import Annotate


def tables(
    ratings: Ratings, comparison: Comparison, chosen: Merge | None, answers: Mapping[str, Answer]
) -> Iterator[Table]:
    """Yield the tables; `chosen` is the merge in use, None while too little is known to say."""
    yield _raters(ratings, comparison)
    yield _agreement(ratings)
    if comparison.golden:
        yield _merges(comparison, chosen)
    yield _tokens(ratings.settings, answers)


def _raters(ratings: Ratings, comparison: Comparison) -> Table:
    known = raters(ratings.settings)
    columns: list[list[Outcome]] = [[] for _ in known]
    values: list[list[Fraction]] = [[] for _ in known]
    for dimension, units in ratings.outcomes.items():
        for index, unit in enumerate(units):
            for place, (one, value) in enumerate(zip(unit, ratings.values(dimension, index), strict=True)):
                columns[place].append(one)
                values[place] += [] if value is None else [value]
    faults = [Counter(fault for one in column for fault in one.faults) for column in columns]
    seen = [fault for fault in FAULTS if any(found[fault] for found in faults)]
    table = _table(
        "Answers by annotator and strategy; malformed ones by what was wrong",
        [
            "rater",
            "questions",
            "valid",
            "missing",
            "to ask",
            *seen,
            "mean",
            *(["MAE", "MSE"] if comparison.golden else []),
        ],
    )
    for rater, column, found, numbers in zip(known, columns, faults, values, strict=True):
        counts = [
            len(column),
            sum(one.reading is not None for one in column),
            sum(one.settled and one.reading is None for one in column),
            sum(not one.settled for one in column),
            *(found[fault] for fault in seen),
        ]
        errors = _errors(comparison.of_raters([rater])) if comparison.golden else []
        table.add_row(
            rater.name,
            *(f"{n:,}" for n in counts),
            f"{float(mean(numbers)):.2f}" if numbers else "–",
            *errors,
        )
    return table


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


def _merges(comparison: Comparison, chosen: Merge | None) -> Table:
    table = _table("Against the golden set", ["ratings", "MAE", "MSE", "compared"])
    settings, known = comparison.ratings.settings, raters(comparison.ratings.settings)
    for annotator in settings.annotators:
        errors = comparison.of_raters([one for one in known if one.annotator == annotator])
        table.add_row(f"annotator {annotator.name}", *_errors(errors), _count(errors))
    for strategy in settings.strategies:
        errors = comparison.of_raters([one for one in known if one.strategy == strategy])
        table.add_row(f"strategy {strategy.name}", *_errors(errors), _count(errors))
    for how in MERGES:
        errors = comparison.of_merge(how)
        mark = " (in use)" if how == chosen else ""
        table.add_row(f"{how} of all, rounded{mark}", *_errors(errors), _count(errors))
    return table


def _tokens(settings: Annotate, answers: Mapping[str, Answer]) -> Table:
    table = _table(
        "Spent so far, merged explanations included",
        ["annotator", "answers", "prompt tokens", "generated tokens", "price"],
    )
    for annotator in settings.annotators:
        own = [answer for answer in answers.values() if answer.annotator == annotator.name]
        prompt = sum(answer.prompt_tokens or 0 for answer in own)
        completion = sum(answer.completion_tokens or 0 for answer in own)
        price = (prompt * annotator.prompt_price + completion * annotator.completion_price) / 1e6
        table.add_row(annotator.name, *(f"{n:,}" for n in (len(own), prompt, completion)), f"{price:,.2f}")
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
