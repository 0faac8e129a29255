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
        ("2/100", "", "2/100"),
        ("very Good!", "good", "!"),
        ("very bad", "", "very bad"),
        *[(f"2{rest}", "2", rest) for rest in [
            ".", ". because", ", because", ",because", ": good", ":good", "; no", " - good", "\u2014because",
            " because 3 words", ", 3 words", ". 3 words", ": 3 words", "\n- 3 words", "--good", " (of 5)",
            ")", "\"", "*", " out of 5", "\n10", "/", "/ because", "...", "!",
        ]],
    ],
)  # fmt: skip
def test_the_label_at_the_beginning(text: str, label: str, rest: str) -> None:
    assert split_label(text, SPELLED) == (label, rest)


@pytest.mark.parametrize(
    "text",
    [
        "2.5", "2,5", "2.50 because", "2,000", "2.000.000", "1,000", "2'000", "2\u202f000",
        "2\u00a0000", "2-3", "2 - 3", "2\u20133", "2 \u2014 3", "2~3", "2/3", "2 / 3", "2\u20443",
        "2/5 stars", "2%", "2 %", "2\u2030", "2:30", "2/3/2024", "2nd", "2x", "2e5", "2\u00bd",
        "2\u00b2", "2*3", "2^3", "2+", "2-", "2- because", "2+1", "2_000", "-2", "\u22122", ".2", "20",
        "1.0", "01", "10.5", "2/10.5", "2/10%", "two-faced", "two's", "good-natured", "good\u2019s",
        "goodness", "very good-natured", "2 000", "2 000,5", "2 1/2", "2 \u00bd", "2\u0301",
    ],
)  # fmt: skip
def test_a_number_or_word_that_is_no_label_is_none(text: str) -> None:
    assert split_label(text, SPELLED) == ("", text)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("+", "+"), ("++", "++"), ("+++", ""), ("+: fine", "+"), ("++.", "++"), ("+ good", "+"),
        ("+1", ""), ("-1", "-1"), ("-1.5", ""), ("-10", ""), ("A. So", "A."), ("A.B", ""), ("A", ""),
        ("B", "B"), ("B+", ""), ("B-", ""), ("B-movie", ""), ("B+, so", ""), ("B, so", "B"),
        ("yes!", "yes!"), ("yes!!", "yes!"), ("yes", ""), ("4/5", "4/5"), ("4/50", ""), ("4.5", "4.5"),
        ("4.55", ""), ("4", ""),
    ],
)  # fmt: skip
def test_labels_of_any_kind_end_where_they_end(text: str, label: str) -> None:
    labels = ["+", "++", "-1", "A.", "B", "yes!", "4/5", "4.5"]
    assert split_label(text, {label: [label] for label in labels})[0] == label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("si", "si"), ("si\u0300", ""), ("s\u00ec", ""), ("de\u0301ja\u0300 vu", "d\u00e9j\u00e0"),
        ("d\u00e9j\u00e0", "d\u00e9j\u00e0"), ("\u0915\u092e", "\u0915\u092e"),
        ("\u0915\u092e\u0940", ""), ("\u0905\u091a\u094d\u091b\u093e.", "\u0905\u091a\u094d\u091b\u093e"),
        ("\u0905\u091a\u094d\u091b\u093e-\u0915", ""), ("\u0628\u062f\u200c\u062a\u0631", ""),
        ("\u0628\u062f\u200c", "\u0628\u062f"), ("\U0001f44d\ufe0f", "\U0001f44d"), ("2\ufe0f\u20e3", "2"),
        ("2 because 10", "2"), ("2 1000", "2"),
    ],
)  # fmt: skip
def test_accents_vowel_signs_and_joiners_belong_to_the_word(text: str, label: str) -> None:
    labels = ["si", "d\u00e9j\u00e0", "\u0915\u092e", "\u0905\u091a\u094d\u091b\u093e", "\u0628\u062f"]
    labels += ["\U0001f44d", "2"]
    assert split_label(text, {label: [label] for label in labels})[0] == label


@pytest.mark.parametrize("separator", [",", "-", ".", "/", ": ", " - "])
def test_the_text_that_a_target_has_behind_its_label_ends_it(tokenizer: Any, separator: str) -> None:
    target = Target(content="label+explanation", separator=separator)
    answer = read_answer(f" 2{separator}3 words are", writer(tokenizer, target=target))
    assert (answer.label, answer.explanation) == ("2", "3 words are")
    plain = read_answer(f" 2{separator}3 words are", writer(tokenizer, target=Target(separator=separator)))
    assert plain.label == ("2" if separator == ": " else "")


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
