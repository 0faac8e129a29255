"""Similarity of two sets of points of the same examples, from their Gram matrices.

Each is one number for all examples, given as n values whose mean it is and whose variance between examples,
or groups of them, is the jackknife's: the number plus each example's influence.
"""

import numpy as np
from numpy.typing import NDArray

from specs.common.thresholds import FEWEST_SIMILAR

Floats = NDArray[np.float64]
ROUNDING = 1e-12  # of energies: less spread is none


def centred(gram: Floats) -> Floats:
    """Return the Gram matrix [n, n] of the same points, their mean taken off."""
    means = gram.mean(axis=0)
    return np.asarray(gram - means - means[:, None] + means.mean())


def cka(one: Floats, other: Floats) -> Floats:
    """Return [n] values of linear CKA (Kornblith et al., arXiv 1905.00414).

    HSIC is the unbiased one (Song et al., 2012): the usual estimate nears 1 for few examples in many
    dimensions, whatever these are (Murphy et al., 2024). So it can be a little below 0. It is 1 for equal
    points up to rotation and scale.
    The values are those of the jackknife that leaves out one example, shifted to have CKA for their mean.
    """
    n = len(one)
    whole, left_out = (_unbiased(one, other), _unbiased(one, one), _unbiased(other, other)), []
    for place in (0, 1):
        crossed, first, second = (values[place] for values in whole)
        with np.errstate(invalid="ignore", divide="ignore"):
            left_out.append(np.asarray(crossed / np.sqrt(first * second)))
    value, without = left_out
    return np.asarray(value + (n - 1) * (without.mean() - without))


def _unbiased(one: Floats, other: Floats) -> tuple[Floats, Floats]:
    """Return unbiased HSIC of two Gram matrices, and [n] without each example."""
    n = len(one)
    one, other = (gram - np.diag(np.diag(gram)) for gram in (one, other))
    by_row, rows, columns = (one * other).sum(axis=1), one.sum(axis=1), other.sum(axis=1)
    trace, total, other_total, crossed = by_row.sum(), rows.sum(), columns.sum(), rows @ columns
    crossed_without = crossed - rows * columns - other @ rows - one @ columns + by_row
    whole = _hsic(n, trace, total, other_total, crossed)
    trace_without, total_without = trace - 2 * by_row, total - 2 * rows
    return whole, _hsic(n - 1, trace_without, total_without, other_total - 2 * columns, crossed_without)


def _hsic(n: int, trace: Floats, total: Floats, other_total: Floats, crossed: Floats) -> Floats:
    parts = trace + total * other_total / ((n - 1) * (n - 2)) - 2 / (n - 2) * crossed
    return np.asarray(parts / (n * (n - 3)))


def procrustes(one: Floats, other: Floats) -> Floats:
    """Return the Procrustes distance (Ding et al., arXiv 2108.01661; Williams et al., 2021), as [n] values.

    Points are centred and scaled to a norm of 1: √(2 − 2 t), with t the largest sum of inner products that a
    rotation of one set gives. 0 for equal points up to rotation and scale, at most √2.
    """
    n = len(one)
    one, other = centred(one), centred(other)
    root, other_root = _root(one), _root(other)
    left, singular, right = np.linalg.svd(root.T @ other_root, full_matrices=False)
    nuclear = singular.sum()
    energies = np.trace(one), np.trace(other)
    with np.errstate(invalid="ignore", divide="ignore"):
        t = nuclear / np.sqrt(energies[0] * energies[1])
        shares = [n * np.diag(gram) / energy for gram, energy in zip((one, other), energies, strict=True)]
        own = n * ((root @ left) * (other_root @ right.T)).sum(axis=1) / nuclear
        influence = t * (own - (shares[0] + shares[1]) / 2)
        distance = np.sqrt(max(2 - 2 * t, 0.0)) if t == t else np.nan
        return np.asarray(distance - (influence / distance if distance > 1e-7 else 0 * influence))


def _root(gram: Floats) -> Floats:
    """Return points [n, r] with this Gram matrix."""
    values, vectors = np.linalg.eigh(gram)
    return np.asarray(vectors * np.sqrt(values.clip(0)))


SIMILARITY = {"cka": cka, "procrustes": procrustes}


def similarity_values(name: str, one: Floats, other: Floats) -> Floats:
    """Return the [n] values of a similarity; NaN for fewer than five examples, or points without spread."""
    enough = len(one) >= FEWEST_SIMILAR
    energies = [(np.trace(centred(gram)), np.trace(gram)) for gram in (one, other)] if enough else []
    if not energies or not all(spread > ROUNDING * energy for spread, energy in energies):
        return np.full(len(one), np.nan)
    return SIMILARITY[name](one, other)
