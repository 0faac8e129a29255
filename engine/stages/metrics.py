"""How well labels were predicted: agreement with the true labels, and calibration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from store.calibration import calibration_bins

Labels = Sequence[str] | np.ndarray


def label_metrics(gold: Labels, predicted: Labels, labels: Sequence[str]) -> dict[str, float]:
    """Give `accuracy` and `macro_f1`; for labels that are whole numbers also `mae` and `qwk`.

    macro_f1: the mean of F1 over the labels that occur in either sequence. mae: mean absolute error, in
    rating points. qwk: Cohen's kappa with quadratic weights (Cohen, 1968), NaN where it is undefined because
    nothing varies. A prediction that is no label ("") is wrong for the first two; the others leave it out.
    """
    from sklearn.metrics import f1_score

    truth, guess = np.asarray(gold, object), np.asarray(predicted, object)
    present = [label for label in labels if label in truth or label in guess]
    found = {
        "accuracy": float(np.mean(truth == guess)),
        "macro_f1": float(f1_score(truth, guess, labels=present, average="macro", zero_division=0.0)),
    }
    if all(label.lstrip("-").isdigit() for label in labels):
        parsed = guess != ""
        found |= _ordinal(truth[parsed].astype(int), guess[parsed].astype(int), sorted(map(int, labels)))
    return found


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
