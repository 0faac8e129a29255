"""The built-in data set: every rating is true by construction, and its explanation names the defect."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from facts import facts
from hypothesis import given
from hypothesis import strategies as st

from engine.data.graded_dialogues import (
    DIMENSIONS,
    FIELDS,
    KEPT_SHARE,
    SHUFFLED_SHARE,
    displace,
    examples,
    read_dialogues,
)
from engine.errors import DataError

pytestmark = pytest.mark.demo


def test_the_fields_are_parts_of_the_whole() -> None:
    whole = {row["id"]: row for row in examples("on-topic")}
    parts = [row for field in FIELDS for row in examples("on-topic", field)]
    assert len(parts) == len(whole) and all(whole[row["id"]] == row for row in parts)


@given(
    words=st.lists(st.text("ab", min_size=1, max_size=2), max_size=20),
    share=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
    seed=st.integers(0, 99),
)
def test_displacing_moves_exactly_the_drawn_words(words: list[str], share: float, seed: int) -> None:
    moved, places = displace(words, share, random.Random(seed))
    assert Counter(moved) == Counter(words)
    assert len(places) == (round(share * len(words)) if round(share * len(words)) > 1 else 0)
    assert all(moved[i] == words[i] for i in range(len(words)) if i not in places)
    numbered, same = displace([str(i) for i in range(len(words))], share, random.Random(seed))
    assert same == places and all(numbered[i] != str(i) for i in places)


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_every_dimension_has_every_rating_equally_often(dimension: str) -> None:
    rows = list(examples(dimension))
    assert rows == list(examples(dimension))
    counts = Counter(row["label"] for row in rows)
    assert set(counts) == set("12345") and max(counts.values()) - min(counts.values()) <= 1
    assert len({row["id"] for row in rows}) == len(rows) > 300
    assert all(row["explanation"] and row["response"] and row["context"] for row in rows)


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_all_ratings_grade_every_dialogue_five_times_in_one_group(dimension: str) -> None:
    once = [{**row, "id": ""} for row in examples(dimension)]
    rows = list(examples(dimension, all_ratings=True))
    dialogues = read_dialogues()
    assert len({row["id"] for row in rows}) == len(rows) == 5 * len(dialogues)
    for index, dialogue in enumerate(dialogues):
        mine = rows[5 * index : 5 * index + 5]
        assert [row["label"] for row in mine] == list("54321")
        assert {row["group"] for row in mine} == {dialogue.message.casefold()}
        assert mine[0]["response"] == dialogue.reply
    whole = [{**row, "id": ""} for row in rows]
    assert all(row in whole for row in once)


def test_naturalness_is_the_share_of_words_out_of_order() -> None:
    for row, dialogue in zip(examples("naturalness"), read_dialogues(), strict=True):
        words, shown = dialogue.reply.split(), row["response"].split()
        assert Counter(words) == Counter(shown)
        moved = sum(a != b for a, b in zip(words, shown, strict=True))
        # Two equal words may change places unseen; none else may move.
        assert moved <= round(SHUFFLED_SHARE[int(row["label"])] * len(words))
        if row["label"] == "5":
            assert shown == words


def test_comprehensiveness_is_the_share_that_is_kept() -> None:
    for row, dialogue in zip(examples("comprehensiveness"), read_dialogues(), strict=True):
        words, shown = dialogue.reply.split(), row["response"].split()
        assert shown == words[: len(shown)]
        assert len(shown) == max(1, round(KEPT_SHARE[int(row["label"])] * len(words)))


def test_on_topic_replies_come_from_ever_further_away() -> None:
    dialogues = read_dialogues()
    replies = {dialogue.reply for dialogue in dialogues}
    for row, dialogue in zip(examples("on-topic"), dialogues, strict=True):
        assert row["response"] in replies
        assert (row["response"] == dialogue.reply) == (row["label"] == "5")


def test_an_unknown_dimension_is_named() -> None:
    with pytest.raises(DataError, match=facts("data.dimension", '"tone"', "naturalness")):
        list(examples("tone"))
