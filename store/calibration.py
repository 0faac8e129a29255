"""Calibration of label probabilities, by bins of confidence."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15
FEWEST = 10  # examples of a bin of equal numbers of examples
Labels = Sequence[str] | NDArray[np.object_]


def confidences(
    gold: Labels, logprobs: NDArray[np.floating], labels: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the highest label probability, and 1 or 0 for whether it is the true label's [examples].

    logprobs: [examples, labels], nats; renormalised among the labels.
    """
    shifted: Any = np.exp(logprobs - logprobs.max(axis=1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    right = np.asarray(labels, object)[probabilities.argmax(axis=1)] == np.asarray(gold, object)
    return probabilities.max(axis=1), np.asarray(right, float)


def calibration_bins(
    gold: Labels, logprobs: NDArray[np.floating], labels: Sequence[str], bins: int = BINS
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the number of examples, and the sums of confidence and of correct answers, of each bin [bins].

    logprobs: as of `confidences`. Bins are of equal width from 0 to 1 (Guo et al., arXiv 1706.04599).
    """
    confidence, correct = confidences(gold, logprobs, labels)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    weights = np.ones(len(place)), confidence, correct
    number, sure, right = (np.bincount(place, weight, bins).astype(float) for weight in weights)
    return number, sure, right


def debiased_squares(
    confidence: NDArray[np.float64], correct: NDArray[np.float64], groups: NDArray[np.intp], bins: int = BINS
) -> tuple[NDArray[np.float64], float]:
    """Return pseudo-values [example] whose mean is the debiased squared calibration error, and the bias.

    It is the weighted mean over bins of equal numbers of examples of (confidence − accuracy)². The square of
    a bin's mean is too large by its variance (Bröcker, 2012, Climate Dynamics 39; Kumar et al., arXiv
    1909.10155), so the products of different examples are averaged, and of different groups where examples
    belong to such: an average that is right whatever the scores are. The bias is that of the plain square,
    which is left out. groups: the number of each example's. NaN where no bin has two groups.
    """
    order = np.argsort(confidence, kind="stable")
    count = max(1, min(bins, len(order) // FEWEST))
    while count > 1 and any(len(set(groups[part])) < 2 for part in np.array_split(order, count)):
        count //= 2
    gap, pseudo_values, plain = confidence - correct, np.full(len(order), np.nan), 0.0
    for part in np.array_split(order, count):
        member = np.unique(groups[part], return_inverse=True)[1]
        sums, sizes = np.bincount(member, gap[part]), np.bincount(member)
        plain += gap[part].sum() ** 2 / len(part)
        pairs = float((sizes * (len(part) - sizes)).sum())
        if pairs > 0:
            others = (gap[part].sum() - sums) / pairs
            pseudo_values[part] = 2 * len(part) * gap[part] * others[member] - (sums * others).sum()
    return pseudo_values, plain / len(order) - float(pseudo_values.mean())
