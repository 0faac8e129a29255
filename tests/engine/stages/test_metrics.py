"""Metrics against hand-computed values and their defining properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from facts import facts
from hypothesis import given
from hypothesis import strategies as st

from engine.stages.metrics import Metric, Predictions, calibration_error, label_metrics, metrics
from specs.errors import PluginError
from specs.registry import METRICS

LABELS = ["1", "2", "3"]
ratings = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=40)


def test_hand_computed_values() -> None:
    found = label_metrics(["1", "1", "2", "3"], ["1", "2", "2", "1"], LABELS)
    assert found["accuracy"] == 0.5
    # F1: label 1 has precision 1/2, recall 1/2; label 2 precision 1/2, recall 1; label 3 none.
    assert found["macro_f1"] == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)
    assert found["mae"] == pytest.approx((0 + 1 + 0 + 2) / 4)
    # Observed squared differences: 5 / 4. By chance, from gold 2:1:1 and predicted 2:2:0: (2+0+2 + ...) / 16.
    chance = sum((g - p) ** 2 for g in (1, 1, 2, 3) for p in (1, 2, 2, 1)) / 16
    assert found["qwk"] == pytest.approx(1 - (5 / 4) / chance)


@given(pairs=ratings)
def test_perfect_predictions_are_perfect(pairs: list[tuple[str, str]]) -> None:
    gold = [left for left, _ in pairs]
    found = label_metrics(gold, gold, LABELS)
    assert found["accuracy"] == found["macro_f1"] == 1 and found["mae"] == 0
    assert found["qwk"] == 1 if len(set(gold)) > 1 else math.isnan(found["qwk"])


@given(pairs=ratings)
def test_kappa_is_the_ratio_of_observed_to_expected_disagreement(pairs: list[tuple[str, str]]) -> None:
    gold, predicted = zip(*((int(left), int(right)) for left, right in pairs), strict=True)
    found = label_metrics([str(g) for g in gold], [str(p) for p in predicted], LABELS)
    observed = np.mean([(g - p) ** 2 for g, p in zip(gold, predicted, strict=True)])
    expected = np.mean([(g - p) ** 2 for g in gold for p in predicted])
    if expected:
        assert found["qwk"] == pytest.approx(1 - observed / expected)
    else:
        assert math.isnan(found["qwk"])


def test_what_is_no_label_is_wrong_but_no_rating() -> None:
    found = label_metrics(["1", "2"], ["", "2"], LABELS)
    assert found["accuracy"] == 0.5 and found["macro_f1"] == 0.5 and found["mae"] == 0
    assert math.isnan(label_metrics(["1"], [""], LABELS)["mae"])


def test_labels_that_are_words_have_no_distance() -> None:
    assert set(label_metrics(["good"], ["bad"], ["good", "bad"])) == {"accuracy", "macro_f1"}


def test_calibration() -> None:
    sure = np.log(np.array([[0.8, 0.2]] * 5))
    assert calibration_error(["a"] * 4 + ["b"], sure, ["a", "b"]) == pytest.approx(0)
    assert calibration_error(["b"] * 5, sure, ["a", "b"]) == pytest.approx(0.8)
    # Two bins with opposite gaps do not cancel.
    mixed = np.log(np.array([[0.9, 0.1], [0.6, 0.4]]))
    assert calibration_error(["a", "b"], mixed, ["a", "b"]) == pytest.approx((0.1 + 0.6) / 2)
    # Probability outside the labels does not count.
    assert calibration_error(["a"], sure[:1] - 7, ["a", "b"]) == pytest.approx(0.2)


@pytest.mark.parametrize("value", ["much", None, [1.0, 2.0]])
def test_what_a_further_metric_gives_must_be_a_number(value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    further = Metric(lambda _: {"odd": value}, names=("odd",))  # type: ignore[dict-item]
    monkeypatch.setitem(METRICS._own, "odd", further)
    with pytest.raises(PluginError, match=facts("odd", "numbers", str(value).strip("[]"))):
        metrics(Predictions(["1"], ["1"], ["1", "2"]), ["odd"])
