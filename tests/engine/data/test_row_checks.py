"""Which rows stay: every kind of row that is left out is told apart, counted once, and named by its place."""

from __future__ import annotations

import tomllib
from collections import Counter
from typing import Any

import pytest
from facts import told
from hypothesis import given
from hypothesis import strategies as st

from engine.data.row_checks import KINDS, LISTED, MISTAKES, RowChecks
from engine.errors import DataError
from specs.toml.describe import value as spell

GOOD = {"context": "how are you", "response": "fine", "label": "1", "group": "g", "explanation": "because"}


def checks(**more: Any) -> RowChecks:
    return RowChecks(**{"labels": ["1", "2"], "max_characters": None} | more)


def kind_of(row: dict[str, Any], **more: Any) -> str | None:
    """The kind that a row is counted as; None where it stays."""
    check = checks(**more)
    if check.passes(row, {}, "file, line 1"):
        assert not check.counts
        return None
    ((kind, count),) = check.counts.items()
    assert count == 1
    return kind


@pytest.mark.parametrize(
    ("change", "settings", "kind"),
    [
        ({}, {}, None),
        ({"response": None}, {}, "empty"),
        ({"response": " \u200b"}, {}, "empty"),
        ({"label": ""}, {}, "empty"),
        ({"context": None}, {}, "empty"),
        ({"context": ""}, {}, None),  # an example without a message
        ({"group": None}, {}, "empty"),
        ({"label": "3"}, {}, "label"),
        ({"label": "3"}, {"labels": None}, None),
        ({"explanation": " "}, {}, None),
        ({"explanation": " "}, {"needs_explanation": True}, "unexplained"),
        ({}, {"max_characters": 15}, None),  # 11 + 4: the limit itself is allowed
        ({}, {"max_characters": 14}, "too_long"),
        ({"label": "3"}, {"max_characters": 1}, "label"),  # a mistake counts before a choice
    ],
)
def test_the_kind_of_a_row(change: dict[str, Any], settings: dict[str, Any], kind: str | None) -> None:
    assert kind_of(GOOD | change, **settings) == kind


ROWS = st.fixed_dictionaries(
    {
        "context": st.sampled_from(["", "a", "ab", None]),
        "response": st.sampled_from(["", "b", "bbbbbb"]),
        "label": st.sampled_from(["1", "2", "3", ""]),
        "explanation": st.sampled_from(["", "why"]),
    }
)


@given(st.lists(ROWS, max_size=12), st.booleans(), st.booleans())
def test_every_row_stays_or_is_counted(rows: list[dict[str, Any]], unique: bool, explained: bool) -> None:
    check = checks(max_characters=5, unique=unique, needs_explanation=explained)
    kept = [row for row in rows if check.passes(row, {}, "")]
    assert len(kept) + check.counts.total() == len(rows)
    assert check.counts.keys() <= KINDS.keys()
    for row in kept:
        assert row["label"] in ("1", "2") and row["response"] and row["context"] is not None
        assert len(row["context"]) + len(row["response"]) <= 5
        assert row["explanation"] or not explained
    texts = Counter((row["context"], row["response"], row["label"]) for row in kept)
    if unique:
        assert all(count == 1 for count in texts.values())
    else:
        assert not check.counts["duplicate"]


@given(st.lists(ROWS.map(lambda row: row | {"context": row["context"] or "a"}), max_size=8))
def test_a_row_that_comes_again_is_left_out_and_the_first_stays(rows: list[dict[str, Any]]) -> None:
    once, twice = checks(), checks()
    first = [once.passes(row, {}, "") for row in rows]
    both = [twice.passes(row, {}, "") for row in [*rows, *rows]]
    assert both[: len(rows)] == first and not any(both[len(rows) :])


def test_rows_that_differ_in_any_text_are_not_the_same() -> None:
    check = checks(labels=None)
    rows = [("a", "b", "c"), ("ab", "", "c"), ("a", "b\0c", ""), ("a", "b", "d"), ("b", "a", "c")]
    texts = [dict(zip(("context", "response", "explanation"), row, strict=True)) for row in rows]
    assert [check._surplus(row | {"label": row["explanation"]}) for row in texts] == [None] * len(rows)


@pytest.mark.parametrize(
    ("labels", "text", "label"),
    [
        (["1", "2"], "1", "1"),
        (["1", "2"], "2.0", "2"),  # as a table with gaps writes it
        (["1.0", "2.0"], "1", "1.0"),
        (["1", "1.0"], "1.00", "1.00"),  # two labels might be meant
        (["1", "2"], "good", "good"),
        (None, "2.0", "2.0"),
        (["1"], None, None),
    ],
)
def test_a_label_may_have_lost_or_won_a_point(labels: Any, text: Any, label: Any) -> None:
    assert checks(labels=labels).label_of(text) == label


def test_mistakes_are_counted_by_kind_and_the_first_are_named() -> None:
    check = checks()
    for line in range(1, 10):
        check.passes(GOOD | {"label": str(line)}, {"label": "rating"}, f"file, line {line}")
    check.passes(GOOD | {"response": ""}, {}, "file, line 10")
    check.passes(GOOD, {}, "file, line 11")
    check.passes(GOOD | {"label": "2"}, {}, "file, line 12")
    assert dict(check.counts) == {"label": 7, "empty": 1, "duplicate": 2}
    with pytest.raises(DataError) as raised:
        check.close("the-file")
    head, *lines = str(raised.value).splitlines()
    assert head.startswith("the-file: ") and "7 " in head and "1 " in head
    named = [line.strip().partition(":")[0] for line in lines if "line" in line]
    assert named == [f"file, line {line}" for line in range(3, 3 + LISTED)]
    assert all('"rating"' in line and "1, 2" in line for line in lines[:LISTED])
    assert str(8 - LISTED) in lines[LISTED] and 'data.invalid = "drop"' in lines[-1]


def test_leaving_out_is_no_advice_where_every_row_would_go() -> None:
    check = checks()
    for number in range(3):
        check.passes(GOOD | {"response": "  "}, {"response": "text"}, f"file, row {number}")
    with pytest.raises(DataError, match="no row has all its values") as error:
        check.close("file")
    assert "drop" not in str(error.value)
    check.passes(GOOD, {}, "file, row 4")
    with pytest.raises(DataError, match="drop"):
        check.close("file")


def test_rows_that_are_no_mistake_raise_nothing() -> None:
    check = checks(max_characters=1, needs_explanation=True)
    for row in (
        GOOD,
        GOOD | {"explanation": ""},
        {"context": "", "response": "a", "label": "1", "explanation": "b"},
    ):
        check.passes(row, {}, "")
    assert set(check.counts) == {"too_long", "unexplained"} and not set(check.counts) & set(MISTAKES)
    check.close("the-file")


def advice(*values: str, labels: tuple[str, ...] = ("1", "2")) -> str:
    """What an error says of a column that holds these values."""
    check = checks(labels=list(labels))
    for number, value in enumerate(values):
        check.passes(GOOD | {"label": value, "response": f"{number}"}, {}, f"line {number}")
    with pytest.raises(DataError) as caught:
        check.close("file")
    return str(caught.value)


@given(st.lists(st.sampled_from(["good", "bad", "schön", 'it\'s "b"', "a\\b", "1"]), min_size=1, max_size=20))
def test_labels_that_are_found_are_counted_and_written_as_the_spec_has_them(values: list[str]) -> None:
    if len(set(values)) == 1:
        return
    said = advice(*values)
    line = next(line for line in said.splitlines() if "evaluate.labels" in line)
    assert tomllib.loads(line)["evaluate"]["labels"] == sorted(set(values))
    for value, count in Counter(values).items():
        assert f"{spell(value)} ({count})" in said
    assert ("data.invalid" in said) == ("1" in values)  # else all rows would be left out


def test_one_value_alone_is_no_task() -> None:
    said = advice("good", "good")
    assert told(said, '"good" alone', "one label is no task", "expected", "data.columns.label")
    assert "evaluate.labels" not in said


def test_numbers_are_in_their_order_and_many_values_are_no_labels() -> None:
    line = next(line for line in advice("10", "9", "-1", "2.5").splitlines() if "evaluate.labels" in line)
    assert tomllib.loads(line)["evaluate"]["labels"] == ["-1", "2.5", "9", "10"]
    said = advice(*(f"text {number}" for number in range(300)))
    assert "data.columns.label" in said and "text 299" not in said and "evaluate.labels = [" not in said
