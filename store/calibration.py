"""Calibration of label probabilities, by bins of confidence."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BINS = 15


def calibration_bins(
    gold: Sequence[str] | NDArray[np.object_],
    logprobs: NDArray[np.floating],
    labels: Sequence[str],
    bins: int = BINS,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the number of examples, and the sums of confidence and of correct answers, of each bin [bins].

    logprobs: [examples, labels], nats; renormalised among the labels. Confidence: the highest probability.
    Bins are of equal width from 0 to 1 (Guo et al., arXiv 1706.04599).
    """
    shifted = logprobs - logprobs.max(axis=1, keepdims=True)
    probabilities = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    confidence = probabilities.max(axis=1)
    correct = np.asarray(labels, object)[probabilities.argmax(axis=1)] == np.asarray(gold, object)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    weights = np.ones(len(place)), confidence, correct.astype(float)
    number, sure, right = (np.bincount(place, own, bins).astype(float) for own in weights)
    return number, sure, right
