"""Geometry of points, the residual streams of examples at one layer and position, in float64.

A measure T is one number for all n points. It is given as n values whose mean is T: T plus each point's
influence on it, the values of the infinitesimal jackknife (Jaeckel, 1972; Efron, 1982). Means of such values
over examples are T, and their variance between examples, or groups of them, is the jackknife's; so every
analysis of examples serves for geometry as well. Influences are exact derivatives by the points' weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from attrs import define
from numpy.typing import NDArray

from specs.common.thresholds import FEWEST_POINTS
from store.analysis.gram import ROUNDING, centred

Floats = NDArray[np.float64]


@define(eq=False, slots=False)
class Points:
    """n points in D dimensions, [n, D], and what several measures need of them."""

    states: Floats

    @cached_property
    def gram(self) -> Floats:
        """Inner products, [n, n]."""
        return self.states @ self.states.T

    @cached_property
    def shares(self) -> Floats:
        """The energy of each point, as a multiple of the mean: [n]."""
        energy = np.diag(self.gram)
        return np.asarray(energy / energy.mean())

    @cached_property
    def spectrum(self) -> tuple[Floats, Floats]:
        """Eigenvalues [r] of the Gram matrix, descending, and n times the squares of eigenvectors [n, r]."""
        n, width = self.states.shape
        if n <= width:
            values, vectors = np.linalg.eigh(self.gram)
            squares = vectors**2
        else:
            values, axes = np.linalg.eigh(self.states.T @ self.states)
            with np.errstate(divide="ignore", invalid="ignore"):
                squares = (self.states @ axes) ** 2 / values
        kept = values > max(n, width) * np.finfo(float).eps * values[-1]
        return values[kept][::-1], n * squares[:, kept][:, ::-1]


def matrix_entropy(points: Points) -> Floats:
    """−Σ p log p of the Gram matrix's eigenvalues over their sum, order 1 (Skean et al., arXiv 2502.02013).

    The Gram matrix is that of the points as they are, neither centred nor of unit length.
    """
    values, squares = points.spectrum
    p = values / values.sum()
    entropy = -(p * np.log(p)).sum()
    return np.asarray(entropy - (p * squares) @ np.log(p) - points.shares * entropy)


def matrix_entropy_2(points: Points) -> Floats:
    """−log Σ p² of the same: Rényi's order 2."""
    sum_of_squares, influences = _squares(points.gram)
    return -np.log(sum_of_squares) - influences


def effective_rank(points: Points) -> Floats:
    """The exponential of the entropy of singular values over their sum (Roy & Vetterli, 2007)."""
    values, squares = points.spectrum
    r = np.sqrt(values) / np.sqrt(values).sum()
    entropy = -(r * np.log(r)).sum()
    return np.asarray(np.exp(entropy) * (1 - (squares - 1) / 2 @ (r * (np.log(r) + entropy))))


def stable_rank(points: Points) -> Floats:
    """The sum of the Gram matrix's eigenvalues over the largest (Rudelson & Vershynin, 2007)."""
    values, squares = points.spectrum
    rank = values.sum() / values[0]
    return np.asarray(rank * (1 + points.shares - squares[:, 0]))


def participation_ratio(points: Points) -> Floats:
    """(Σ λ)² / Σ λ² of the covariance's eigenvalues (Gao et al., 2017); NaN for equal points."""
    gram = centred(points.gram)
    if not np.trace(gram) > ROUNDING * np.trace(points.gram):
        return np.full(len(gram), np.nan)
    sum_of_squares, influences = _squares(gram)
    return (1 - influences) / sum_of_squares


def anisotropy(points: Points) -> Floats:
    """The mean cosine between two different points (Ethayarajh, 2019)."""
    n = len(points.states)
    unit = points.states / np.sqrt(np.diag(points.gram))[:, None]
    with_others = (unit @ unit.sum(axis=0) - 1) / (n - 1)
    return np.asarray(2 * with_others - with_others.mean())


def intrinsic_dimension(points: Points) -> Floats:
    """(m − 1) / Σ log(r₂ / r₁), by the distances to the two nearest neighbours (TwoNN; Facco et al., 2017).

    It supposes that density hardly varies as far as the second neighbour and that points are independent:
    with few points in many dimensions it is far below the true dimension, so compare conditions with equally
    many examples, and read no number as the dimension itself. Of m points; those with a twin have none (NaN).
    The influence leaves out that a point is others' neighbour.
    """
    squares = np.array([((points.states - state) ** 2).sum(axis=1) for state in points.states])
    np.fill_diagonal(squares, np.inf)
    first, second = np.sqrt(np.partition(squares, 1, axis=1)[:, :2].T)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(first > 0, np.log(second / first), np.nan)
        m = np.isfinite(logs).sum()
        mean = np.nansum(logs) / m
        return np.asarray((m - 1) / m / mean * (2 - logs / mean))


def curvature(path: Floats) -> Floats:
    """Angles in rad between successive steps of paths [P, E, D], at each point but the ends: [P, E].

    Their mean over a path is the curvature of Hénaff et al. (2019) and Hosseini & Fedorenko (2023).
    """
    steps = np.diff(path, axis=0)
    with np.errstate(invalid="ignore"):  # of two equal points
        steps = steps / np.linalg.norm(steps, axis=2, keepdims=True)
    angles = np.full(path.shape[:2], np.nan)
    angles[1:-1] = np.arccos((steps[1:] * steps[:-1]).sum(axis=2).clip(-1, 1))
    return angles


def _squares(gram: Floats) -> tuple[float, Floats]:
    """Give Σ p² of a Gram matrix's eigenvalues over their sum, and the influences on its logarithm [n]."""
    energy = np.trace(gram)
    by_point = (gram**2).sum(axis=1) / energy**2
    total = by_point.sum()
    return total, 2 * (len(gram) * by_point / total - len(gram) * np.diag(gram) / energy)


MEASURES: dict[str, Callable[[Points], Floats]] = {
    "matrix_entropy": matrix_entropy,
    "matrix_entropy_2": matrix_entropy_2,
    "effective_rank": effective_rank,
    "stable_rank": stable_rank,
    "participation_ratio": participation_ratio,
    "anisotropy": anisotropy,
    "intrinsic_dimension": intrinsic_dimension,
}


def measured(states: Floats, names: Sequence[str]) -> dict[str, Floats]:
    """Give the values [n] of measures of points [n, D]; NaN for fewer than three, or where all are 0."""
    nothing = np.full(len(states), np.nan)
    if len(states) < FEWEST_POINTS or not np.isfinite(states).all() or not states.any():
        return dict.fromkeys(names, nothing)
    points = Points(states)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {name: MEASURES[name](points) for name in names}
