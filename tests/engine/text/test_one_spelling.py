"""Targets that are spelled differently and have one stage key are one target, to the token."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from small_study import WORDS, writer

from engine.text.answers import read_answer
from specs.tables.loss import Loss
from specs.tables.target import CONTENT, Target

ROWS = [
    {
        "id": f"row-{number}",
        "context": f"message {number}",
        "response": WORDS[number],
        "label": str(1 + number % 3),
        "explanation": " ".join(WORDS[number : number + 4]) if number % 4 else "",
        "group": f"g{number}",
    }
    for number in range(9)
]
TARGETS = st.builds(
    Target,
    content=st.sampled_from(CONTENT.built_in),
    placement=st.sampled_from(["after", "before", "interleaved"]),
    permuted=st.sampled_from([0.0, 0.5]),
    filler=st.sampled_from([" ...", " x"]),
    separator=st.sampled_from([None, ": ", "\nRating: ", " -- "]),
    loss=st.builds(Loss, explanation=st.sampled_from([0.0, 1.0])),
)


@given(target=TARGETS, number=st.sampled_from([1, 2, 4, 7]))
def test_a_target_and_its_one_spelling_are_the_same_tokens(
    tokenizer: Any, target: Target, number: int
) -> None:
    one, other = (
        writer(tokenizer, target=spelling, examples=lambda: ROWS)
        for spelling in (target, target.in_one_spelling())
    )
    row = ROWS[number]
    assert one.encode(row) == other.encode(row)
    assert one.encode(row).segments == other.encode(row).segments
    assert one.encode_spellings(row) == other.encode_spellings(row)
    assert one.encode_prompt(row) == other.encode_prompt(row)
    assert one.first_tokens(row) == other.first_tokens(row)
    for text in ("2: because", " the model. Rating: 2", "2 -- because", "2. because"):
        assert read_answer(text, one) == read_answer(text, other)
    segments = one.target.segments
    assert segments == other.target.segments
    for segment in segments:
        assert one.target.loss.weights[segment] == other.target.loss.weights[segment]


@given(target=TARGETS)
def test_one_spelling_is_its_own(target: Target) -> None:
    assert target.in_one_spelling().in_one_spelling() == target.in_one_spelling()
