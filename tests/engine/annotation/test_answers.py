"""Reading answers, merging them, agreement, and the log of what was answered."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from facts import facts
from hypothesis import given
from hypothesis import strategies as st

from engine.annotation import reading
from engine.annotation.agreement import Errors, alpha
from engine.annotation.answers import LoggedAnswer, open_log, read_answers
from engine.annotation.merge import MERGES, chosen_explanation, mean, merged, on_label_scale, rounded
from engine.annotation.reading import FAULTS, Reading, read_answer
from engine.errors import DataError
from specs.tables.annotate import Annotate, Annotator, Strategy

GOOD = '{"rating": 2, "explanation": "so"}'


def settings(low: int = 1, high: int = 5) -> Annotate:
    return Annotate(
        output="o.jsonl",
        dimensions=["d"],
        annotators=[Annotator(name="a", model="m")],
        strategies=[Strategy(name="s")],
        low=low,
        high=high,
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD, Reading(2, "so")),
        (f"```json\n{GOOD}\n```", Reading(2, "so")),
        (f"The set {{1, 2}} is {{rated}} {GOOD} {{", Reading(2, "so")),
        (f"{GOOD} or, once more, {GOOD}", Reading(2, "so")),
        ('{"rating": 2, "explanation": "two\nlines", "sure": true}', Reading(2, "two\nlines")),
        ("", reading.EMPTY),
        ("  \n", reading.EMPTY),
        ("4, because it is good", reading.NO_JSON),
        ('["rating", 4]', reading.NO_JSON),
        ('{"score": 4, "explanation": "so"}', reading.NO_JSON),
        ('{"answer": {"rating": 4, "explanation": "so"}}', reading.NO_JSON),
        ("{'rating': 4}", reading.NO_JSON),
        ('{"a":' * 3_000, reading.TRUNCATED),
        (GOOD[:-1], reading.TRUNCATED),
        (GOOD[:-3], reading.TRUNCATED),
        (GOOD[:11], reading.TRUNCATED),
        (f'{GOOD} {{"rating": 3, "explanation": "so"}}', reading.AMBIGUOUS),
        ('{"rating": 2.0, "explanation": "so"}', reading.NOT_INTEGER),
        ('{"rating": "2", "explanation": "so"}', reading.NOT_INTEGER),
        ('{"rating": true, "explanation": "so"}', reading.NOT_INTEGER),
        ('{"rating": null, "explanation": "so"}', reading.NOT_INTEGER),
        ('{"rating": 0, "explanation": "so"}', reading.OUT_OF_SCALE),
        ('{"rating": 6, "explanation": "so"}', reading.OUT_OF_SCALE),
        ('{"rating": 2}', reading.NO_EXPLANATION),
        ('{"rating": 2, "explanation": ["so"]}', reading.NO_EXPLANATION),
        ('{"rating": 2, "explanation": " "}', reading.NO_EXPLANATION),
    ],
)
def test_an_answer_is_read_as_it_stands_or_named(text: str, expected: object) -> None:
    assert read_answer(LoggedAnswer(text), (1, 5)) == expected


def test_what_is_asked_for_decides_what_is_valid() -> None:
    assert read_answer(LoggedAnswer('{"explanation": "so"}'), None) == Reading(None, "so")
    assert read_answer(LoggedAnswer("I think it is", "length"), (1, 5)) == reading.TRUNCATED
    assert read_answer(LoggedAnswer(GOOD, status=400), (1, 5)) == reading.REFUSED


@given(st.text() | st.text(alphabet='{}[]":,1 ratinge\\xplno'))
def test_no_text_breaks_the_reader_and_none_is_read_without_both_parts(text: str) -> None:
    found = read_answer(LoggedAnswer(text), (1, 5))
    if isinstance(found, Reading):
        assert '"rating"' in text and found.explanation
    else:
        assert found in FAULTS


def test_a_number_of_more_digits_than_python_reads_is_no_answer() -> None:
    answer = LoggedAnswer('{"rating": ' + "9" * 6000 + ', "explanation": "why"}')
    assert isinstance(read_answer(answer, (1, 5)), str)


@pytest.mark.parametrize("piece", ["{", '{"', '{"a":', '{"rating": ', "{ ", "{\n\t"])
def test_many_braces_are_given_up(piece: str) -> None:
    """A reader whose time grows with their square would be at it for hours."""
    assert read_answer(LoggedAnswer(piece * 400_000), (1, 5)) in FAULTS


@given(st.integers(-3, 3), st.integers(1, 6), st.data())
def test_scales_map_end_to_end_in_equal_steps(low: int, width: int, data: st.DataObject) -> None:
    strategy = Strategy(name="s", low=low, high=low + width)
    rating = data.draw(st.integers(low, low + width))
    found = on_label_scale(rating, strategy, settings(2, 9))
    assert found == 2 + Fraction(7 * (rating - low), width)


def test_merges_by_hand() -> None:
    thirds = [on_label_scale(x, Strategy(name="s", high=4), settings()) for x in (1, 2, 3, 4)]
    assert thirds == [1, Fraction(7, 3), Fraction(11, 3), 5]
    assert merged([Fraction(7, 3), Fraction(8, 3)], "mean") == 3  # exactly 2.5, which floats may miss
    numbers = [Fraction(x) for x in (1, 1, 2, 5, 5)]
    assert {how: merged(numbers, how) for how in MERGES} == {"mean": 3, "median": 2, "majority": 1}
    assert merged([*numbers[1:4], Fraction(4)], "median") == 3
    assert [merged([Fraction(x) for x in tie], "majority") for tie in ((1, 3), (1, 1, 4, 4, 5))] == [1, 4]
    assert [rounded(Fraction(x)) for x in ("2.5", "2.49", "-0.5", "-0.51")] == [3, 2, 0, -1]
    texts = ["aa", "b", "cccc"]
    found = [chosen_explanation(texts, numbers[1:4], how) for how in ("first", "nearest", "longest")]
    assert found == ["aa", "b", "cccc"]


@given(st.lists(st.integers(1, 5).map(Fraction), min_size=1), st.sampled_from(MERGES))
def test_a_merge_lies_between_its_ratings_in_any_order(numbers: list[Fraction], how: str) -> None:
    found = merged(numbers, how)  # type: ignore[arg-type]
    assert min(numbers) <= found <= max(numbers)
    assert found == merged(numbers[::-1], how)  # type: ignore[arg-type]
    assert min(numbers) <= mean(numbers) <= max(numbers)


# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), example C: 4 observers, 12 units.
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


def test_alpha_of_the_published_example() -> None:
    units = [[None if x is None else Fraction(x) for x in unit] for unit in zip(*OBSERVERS, strict=True)]
    assert alpha(units, "ordinal") == pytest.approx(0.815, abs=5e-4)
    assert alpha(units, "interval") == pytest.approx(0.849, abs=5e-4)
    assert math.isnan(alpha([[Fraction(3), Fraction(3)], [Fraction(4), None]], "interval"))
    assert math.isnan(alpha([], "ordinal"))


@given(st.lists(st.lists(st.integers(1, 5), min_size=3, max_size=3), min_size=2, max_size=9))
def test_interval_alpha_is_one_less_observed_over_expected_disagreement(table: list[list[int]]) -> None:
    numbers = np.array(table, float)
    pooled = numbers.ravel()
    expected = ((pooled[:, None] - pooled) ** 2).sum() / (pooled.size * (pooled.size - 1))
    within = ((numbers[:, :, None] - numbers[:, None, :]) ** 2).sum(axis=(1, 2)) / 6
    found = alpha([[Fraction(x) for x in unit] for unit in table], "interval")
    if expected == 0:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(1 - within.mean() / expected)


def test_errors_are_ordered_by_mae_then_mse() -> None:
    two = Errors.of([(3, Fraction(1)), (2, Fraction(2))])
    one = Errors.of([(Fraction(3), Fraction(2)), (3, Fraction(2))])
    assert two == Errors(1.0, 2.0, 2) and one == Errors(1.0, 1.0, 2)
    assert one < two and Errors.of([]) is None


def test_the_log_gives_back_what_it_was_given_whatever_tore_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "log.jsonl"
    first, second = (
        LoggedAnswer("é \n{", "stop", 3, None, 200, "a"),
        LoggedAnswer("no", status=400, annotator="b"),
    )
    with open_log(path) as log:
        log.add("1", first, {"id": "x"})
        log.add("2", second, {"id": "y"})
        assert read_answers(path) == log.answers == {"1": first, "2": second}
    whole = path.read_bytes()
    start = whole.index(b"\n") + 1
    for length in range(start, len(whole) + 1):
        path.write_bytes(whole[:length])
        kept = {"1": first} | ({"2": second} if length >= len(whole) - 1 else {})
        assert read_answers(path) == kept
        with open_log(path) as log:
            assert log.answers == kept
            log.add("3", first, {})
        assert read_answers(path) == kept | {"3": first}
    path.write_bytes(b"{}\n" + whole)
    with pytest.raises(DataError, match=facts("log.jsonl:1", "delete")):
        read_answers(path)
    assert json.loads(whole.splitlines()[0])["text"] == first.text
