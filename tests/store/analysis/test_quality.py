"""Measures of explanations on sets whose defects are planted."""

from __future__ import annotations

import pytest
from commands import engine

from store.quality import explanation_quality

LABELS = ["1", "2", "good"]


def rows(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"label": label, "explanation": explanation} for label, explanation in pairs]


def test_planted_defects_are_found() -> None:
    quality = explanation_quality(
        rows(
            ("1", "The reply is out of order."),
            ("2", "the reply  is out of order"),
            ("2", "This deserves a two, not a 1."),
            ("good", "A good reply; nothing is missing"),
            ("1", ""),
        ),
        LABELS,
    )
    assert quality.examples == 5 and quality.explained == 0.8
    assert quality.duplicates == 0.25 and quality.templates == 0.5
    assert quality.names_label == 0.5 and quality.names_other == 0.25
    assert quality.distinct_1 == pytest.approx(15 / 25)


def test_a_number_within_a_word_names_no_label() -> None:
    quality = explanation_quality(rows(("1", "in 1999 someone said 10"), ("good", "goods")), LABELS)
    assert quality.names_label == quality.names_other == 0


def test_reasons_score_better_than_templates() -> None:
    reasons = explanation_quality(rows(("1", "words drift apart"), ("2", "every clause follows")), LABELS)
    templates = explanation_quality(rows(("1", "it is so bad"), ("2", "it is so fine")), LABELS)
    assert reasons.distinct_2 > templates.distinct_2 and reasons.templates < templates.templates


@pytest.mark.parametrize("some", [[], rows(("1", " "))])
def test_no_explanation_is_no_error(some: list[dict[str, str]]) -> None:
    quality = explanation_quality(some, LABELS)
    assert quality.explained == quality.duplicates == quality.names_label == 0


def test_the_command_shows_splits_labels_explanations_and_lengths(write_spec) -> None:
    output = engine("data", write_spec()).output
    assert "train" in output and "validation" in output and "test" in output
    assert "label+explanation" in output and "different words per word" in output
    lines = [line for line in output.splitlines() if "label+explanation" in line]
    assert lines and "tokens" in output
