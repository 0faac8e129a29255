"""Reading generated text: the label it names in any spelling, and the explanation without it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from small_study import writer

from engine.text.answers import read_answer, split_label
from specs.tables.target import Target

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


SCALE = ["1", "2", "3", "4", "5"]
WORDS = ["yes", "no", "good", "bad", "very good"]
GRADES = ["A", "A+", "A-", "B", "B+", "n/a", "+", "++", "-"]
FOREIGN = ["\u0434\u0430", "\u043d\u0435\u0442", "\u597d", "\u574f", "gut", "schlecht", "\U0001f44d",
"\U0001f44e"]  # fmt: skip


def named(text: str, labels: list[str]) -> str:
    return split_label(text, {label: [label] for label in labels})[0]


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        *[(SCALE, text) for text in [
            "4 or 5", "4 or 5.", "4, or 5", "4 or maybe 5", "4 (or 5)", "3 to 5", "4 and 5", "4|5", "4 & 5",
            "4/5", "3 - 4", "4, 5", "1, 2, 3, 4 or 5", "1 2 3 4 5", "1, 2 and 3 are there", "3 or 3.5",
            "4 or 10", "4 vs. 5", "4 and a half", "4 percent", "4\u20ac", "$4", "4\u00b0", "4 + 1", "4#",
            "between 3 and 4", "either 4 or 5", "from 3 to 5", "4 or 4 or 5", "4; 5",
            '4" or "5"', "4** or **5**",
        ]],
        *[(WORDS, text) for text in [
            "yes/no", "yes / no", "yes or no", "Yes or No?", "yes, no", "yes, no.", "yes and no", "yes\\no",
            "yes no", "yes - no", "yes\u2013no", "yes\u2014no", "no|yes", "good or very good",
            "good to bad, as it is",
            "very good or good", "good, bad or none", "yes (no)", "no/yes/no",
        ]],
        *[(GRADES, text) for text in [
            "A++", "A+-", "A--", "A#", "B++", "A or B", "A/B", "A, B", "A+ or A-", "+++", "+-", "+/-",
            "+ or -",
            "++ to +", "n/ab", "A+/A-", "A+, A", "n/a or A", "A&B", "--",
        ]],
        *[(FOREIGN, text) for text in [
            "\u0434\u0430 \u0438\u043b\u0438 \u043d\u0435\u0442", "\u0434\u0430/\u043d\u0435\u0442",
            "\u597d\u6216\u574f", "\u597d\u3001\u574f", "\u597d\uff0f\u574f", "\u597d, \u574f",
            "gut oder schlecht", "\U0001f44d\U0001f44e", "\U0001f44d or \U0001f44e",
        ]],
    ],
)  # fmt: skip
def test_an_answer_that_names_several_labels_or_a_longer_one_names_none(labels: list[str], text: str) -> None:
    assert named(text, labels) == ""


@pytest.mark.parametrize(
    ("labels", "text", "label"),
    [
        *[(SCALE, text, "4") for text in [
            "4 or so", "4, 5 words would do", "4 or four", "4 or 4", "4, because 5 is too much",
            "4. 5 is too much",
            "4\n5", "4: 5 is too much", "4 (of 5)", "4 out of 5", "4, or nearly", "4 to be fair",
            "4 and nothing else",
            "4, a 5 in other words", "4; 10 words", "4 stars", "4!", "4 - because", "4=good",
        ]],
        (WORDS, "yes, no problem", "yes"), (WORDS, "good - bad spelling though", "good"),
        (WORDS, "good, not bad", "good"), (WORDS, "yes. No doubt", "yes"), (WORDS, "very good, good!", ""),
        (WORDS, "no or yes-men", "no"), (WORDS, "yes, yes", "yes"), (WORDS, "good--bad spelling", "good"),
        (["yes", "no", "yes and no"], "yes and no", "yes and no"), (["A", "B", "A/B"], "A/B", "A/B"),
        (GRADES, "A-", "A-"), (GRADES, "A- because", "A-"), (GRADES, "A+, so", "A+"), (GRADES, "n/a.", "n/a"),
        (GRADES, "+, so", "+"), (GRADES, "A--because", "A"), (GRADES, "B: A would do", "B"),
        (FOREIGN, "\u0434\u0430, \u043d\u043e", "\u0434\u0430"), (FOREIGN, "\u597d\u3002", "\u597d"),
        (FOREIGN, "\U0001f44d\U0001f3fd", "\U0001f44d"), (FOREIGN, "\U0001f44d \U0001f389", "\U0001f44d"),
    ],
)  # fmt: skip
def test_the_first_label_counts_where_others_do_not_stand_beside_it(
    labels: list[str], text: str, label: str
) -> None:
    assert named(text, labels) == label


# Labels of every kind, and what may stand between labels that are named side by side.
LABELS = [
    *map(str, range(12)), "4.5", "-1", "yes", "no", "Yes!", "very good", "good", "bad", "A", "B", "A+",
    "A-", "A++",
    "+", "++", "-", "0/1", "n/a", "d\u00e9j\u00e0", "\u0434\u0430", "\u043d\u0435\u0442", "\u597d", "\u574f",
    "\u0905\u091a\u094d\u091b\u093e", "\u0628\u062f", "\U0001f44d", "\U0001f44e", "*", "**", "(a)", "(b)",
    "a.", "C#",
]  # fmt: skip
JOINED = [" or ", " and ", " to ", ", or ", " / ", " & ", " | ", " oder ", " (or ", " or even "]


@given(labels=st.lists(st.sampled_from(LABELS), min_size=2, max_size=8, unique=True), data=st.data())
def test_any_label_is_read_alone_and_none_beside_another(labels: list[str], data: st.DataObject) -> None:
    assume(len({label.casefold() for label in labels}) == len(labels))
    first, second = data.draw(st.permutations(labels))[:2]
    longer = [label.casefold() for label in labels if len(label) > len(first)]
    for end in ("", ".", "\n", "\nno", " because it is so", ": so", " \u2014 so"):
        if not f"{first}{end}".casefold().startswith(tuple(longer)):  # "A." may be the label "a."
            assert named(f" {first}{end}", labels) == first, end
    join = data.draw(st.sampled_from(JOINED))
    assume(not any(label.strip("+-*") in join for label in (first, second)))
    assert named(f"{first}{join}{second}", labels) == ""
    assert named(f"{first}{join}{second} because it is so", labels) == ""
    if not (_numeric(first) and "/" in join):  # a fraction
        assert named(f"{first}{join}{first}.", labels) == first
    assert named(f"{first}, {second}.", labels) == ("" if _numeric(first) == _numeric(second) else first)


@given(labels=st.lists(st.sampled_from(LABELS), min_size=2, max_size=8, unique=True), data=st.data())
def test_no_label_is_read_where_it_goes_on(labels: list[str], data: st.DataObject) -> None:
    first = data.draw(st.sampled_from(labels))
    more = data.draw(st.sampled_from(["7", "x", "\u0436", "+", "#", first[-1], "-x"]))
    assume(first[-1] not in "!." or more.isalnum())
    assert named(first + more, [label for label in labels if label != first + more]) != first


def _numeric(label: str) -> bool:
    return label[-1].isnumeric()
