"""How well labels were predicted: agreement with the true labels, and calibration."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from attrs import frozen

from specs.common.names import AGREEMENT
from specs.errors import PluginError
from specs.registry import METRICS
from store.calibration import calibration_bins

Labels = Sequence[str] | np.ndarray
STANDARD = ("agreement", "calibration")  # always there; others where `evaluate.metrics` names them


@frozen(eq=False)
class Predictions:
    """What a metric is computed from: the test examples in order."""

    gold: Sequence[str]
    predicted: Labels  # "": none of the labels
    labels: Sequence[str]  # all that there are, in rating order
    logprobs: np.ndarray | None = None  # [examples, labels] log-likelihoods in nats, where labels were scored


@frozen
class Metric:
    """One or several numbers of the summary."""

    of: Callable[[Predictions], Mapping[str, float]]
    names: tuple[str, ...]  # that it can give; the summary has `generated_NAME`, `base_NAME` …, too
    version: str = "1"  # of a plug-in: part of stage keys, to be raised when any number changes

    def __attrs_post_init__(self) -> None:
        if wrong := [name for name in self.names if not re.fullmatch("[a-z][a-z0-9_]*", name)]:
            raise ValueError(f"names of a metric: expected small letters, digits and _; found {wrong[0]!r}")


def metrics(predictions: Predictions, further: Sequence[str] = ()) -> dict[str, float]:
    """Give the standard metrics of predictions, and further ones by name."""
    numbers: dict[str, float] = {}
    for name in dict.fromkeys((*STANDARD, *further)):
        metric = METRICS.get(name, Metric)
        values = dict(metric.of(predictions))
        plugin = METRICS.plugin(name) or name
        if wrong := [number for number in values if number not in metric.names]:
            raise PluginError(
                f"{plugin}: expected numbers of the names {', '.join(metric.names)}, as it declares them; "
                f'found "{wrong[0]}"'
            )
        try:
            numbers |= {part: float(value) for part, value in values.items()}
        except (TypeError, ValueError) as error:
            raise PluginError(f"{plugin}: expected numbers; found {values}") from error
    return numbers


def label_metrics(gold: Labels, predicted: Labels, labels: Sequence[str]) -> dict[str, float]:
    """Give `accuracy` and `macro_f1`; for labels that are whole numbers also `mae` and `qwk`.

    macro_f1: the mean of F1 over the labels that occur in either sequence. mae: mean absolute error, in
    rating points. qwk: Cohen's kappa with quadratic weights (Cohen, 1968), NaN where it is undefined because
    nothing varies. A prediction that is no label ("") is wrong for the first two; the others leave it out.
    """
    from sklearn.metrics import f1_score

    truth, guess = np.asarray(gold, object), np.asarray(predicted, object)
    present = [label for label in labels if label in truth or label in guess]
    numbers = {
        "accuracy": float(np.mean(truth == guess)),
        "macro_f1": float(f1_score(truth, guess, labels=present, average="macro", zero_division=0.0)),
    }
    if all(label.lstrip("-").isdigit() for label in labels):
        parsed = guess != ""
        numbers |= _ordinal(truth[parsed].astype(int), guess[parsed].astype(int), sorted(map(int, labels)))
    return numbers


def _ordinal(gold: np.ndarray, predicted: np.ndarray, ratings: list[int]) -> dict[str, float]:
    from sklearn.metrics import cohen_kappa_score

    if not len(gold):
        return {"mae": float("nan"), "qwk": float("nan")}
    varies = len({*gold, *predicted}) > 1
    kappa = (
        cohen_kappa_score(gold, predicted, weights="quadratic", labels=ratings) if varies else float("nan")
    )
    return {"mae": float(np.mean(np.abs(predicted - gold))), "qwk": float(kappa)}


def calibration_error(gold: Labels, logprobs: np.ndarray, labels: Sequence[str]) -> float:
    """Give the expected calibration error of the labels' probabilities, renormalised among the labels.

    logprobs: [examples, labels], nats. The mean gap between confidence and accuracy over 15 bins of equal
    width, weighted by their examples (Guo et al., arXiv 1706.04599).
    """
    _, confidence, correct = calibration_bins(gold, logprobs, labels)
    return float(np.abs(correct - confidence).sum() / len(gold))


def _agreement(predictions: Predictions) -> dict[str, float]:
    return label_metrics(predictions.gold, predictions.predicted, predictions.labels)


def _calibration(predictions: Predictions) -> dict[str, float]:
    if predictions.logprobs is None:
        return {}
    return {"ece": calibration_error(predictions.gold, predictions.logprobs, predictions.labels)}


METRICS.add("agreement", Metric(_agreement, AGREEMENT))
METRICS.add("calibration", Metric(_calibration, ("ece",)))
