"""Reading generated text: the label it names in any spelling, and the explanation without it."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import writer

from engine.answers import read_answer, split_label
from specs.model import Target

SPELLED = {"1": ["1"], "2": ["2", "two", "2/10"], "10": ["10"], "good": ["good", "very good"]}


@pytest.mark.parametrize(
    ("text", "label", "rest"),
    [
        (" 2\nbecause", "2", "\nbecause"),
        ("10.", "10", "."),
        ("1", "1", ""),
        ("100", "", "100"),
        ("GOOD, since", "good", ", since"),
        ("goods", "", "goods"),
        ("", "", ""),
        ("it is 2", "", "it is 2"),
        ("Two: or so", "2", ": or so"),
        ("2/10 at most", "2", " at most"),
        ("2/100", "2", "/100"),
        ("very Good!", "good", "!"),
        ("very bad", "", "very bad"),
    ],
)
def test_the_label_at_the_beginning(text: str, label: str, rest: str) -> None:
    assert split_label(text, SPELLED) == (label, rest)


@pytest.mark.parametrize(
    ("placement", "text", "label", "explanation"),
    [
        ("after", " 2: words are  in order", "2", "words are in order"),
        ("after", "two: words", "2", "words"),
        ("after", "2", "2", ""),
        ("after", "words: are", "", "words: are"),
        ("before", " words are\nRating: 2. Rating", "2", "words are"),
        ("before", "words are in", "", "words are in"),
        ("interleaved", " words are\nRating: two. in order", "2", "words are in order"),
        ("interleaved", " words are\nRating: in order", "", "words are in order"),
    ],
)
def test_the_explanation_is_the_text_without_the_label(
    tokenizer: Any, placement: str, text: str, label: str, explanation: str
) -> None:
    target = Target(content="label+explanation", placement=placement)
    answer = read_answer(text, writer(tokenizer, target=target, spellings={"2": ["two"]}))
    assert (answer.label, answer.explanation) == (label, explanation)
    assert answer.before == ("" if placement == "after" else " ".join(text.split("\n")[0].split()))


def test_what_follows_a_label_that_is_the_whole_target(tokenizer: Any) -> None:
    assert read_answer(" 2 and on", writer(tokenizer)).explanation == "and on"
