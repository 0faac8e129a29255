"""Measures of geometry against independent definitions, and their influences against finite differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.stages.geometry_measures import MEASURES, curvature, measured
from specs.common.names import GEOMETRY, SIMILARITIES
from store.analysis.gram import SIMILARITY, cka, procrustes, similarity_values

Floats = NDArray[np.float64]
shapes = st.sampled_from([(5, 3), (9, 30), (40, 7), (24, 24), (30, 200)])


def drawn(shape: tuple[int, int], seed: int) -> Floats:
    """Points with a mean and a falling spectrum, as residual streams have."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape) * 2.0 ** -np.linspace(0, 5, shape[1]) + rng.normal(size=shape[1])


def entropy(weights: Floats) -> float:
    p = weights[weights > 1e-14 * weights.max()] / weights.sum()
    return float(-(p * np.log(p)).sum())


def weighted(points: Floats, weights: Floats) -> dict[str, float]:
    """The measures that are smooth in the points' weights, by singular values and covariances."""
    singular = np.linalg.svd(np.sqrt(weights)[:, None] * points, compute_uv=False)
    mean = weights @ points / weights.sum()
    spread = np.linalg.svd(np.sqrt(weights)[:, None] * (points - mean), compute_uv=False) ** 2
    p = singular**2 / (singular**2).sum()
    return {
        "matrix_entropy": entropy(singular**2),
        "matrix_entropy_2": float(-np.log((p**2).sum())),
        "effective_rank": float(np.exp(entropy(singular))),
        "stable_rank": float((singular**2).sum() / singular[0] ** 2),
        "participation_ratio": float(spread.sum() ** 2 / (spread**2).sum()),
    }


@settings(max_examples=40, deadline=None)
@given(shape=shapes, seed=st.integers(0, 2**32))
def test_means_are_the_measures_and_deviations_their_influences(shape: tuple[int, int], seed: int) -> None:
    points, n = drawn(shape, seed), shape[0]
    ours = measured(points, list(MEASURES))
    truth = weighted(points, np.ones(n))
    for name, value in truth.items():
        assert ours[name].mean() == pytest.approx(value, rel=1e-8), name
    for place in (0, n // 2):
        more, less = np.ones(n), np.ones(n)
        more[place], less[place] = 1 + 1e-5, 1 - 1e-5
        above, below = weighted(points, more), weighted(points, less)
        for name, value in truth.items():
            slope = n * (above[name] - below[name]) / 2e-5
            assert ours[name][place] - value == pytest.approx(slope, rel=1e-4, abs=1e-4), name
    cosines = [
        points[i] @ points[j] / np.sqrt((points[i] @ points[i]) * (points[j] @ points[j]))
        for i in range(n) for j in range(n) if i != j
    ]  # fmt: skip
    assert ours["anisotropy"].mean() == pytest.approx(np.mean(cosines), rel=1e-9)


def test_intrinsic_dimension_is_that_of_the_neighbours() -> None:
    rng = np.random.default_rng(1)
    flat = rng.uniform(size=(400, 3)) @ rng.normal(size=(3, 50)) + 5
    logs = []
    for point in flat:
        first, second = np.sort(np.linalg.norm(flat - point, axis=1))[1:3]
        logs.append(np.log(second / first))
    ours = measured(flat, ["intrinsic_dimension"])["intrinsic_dimension"]
    assert ours.mean() == pytest.approx(399 / np.sum(logs), rel=1e-9)
    assert 2.4 < ours.mean() < 3.3
    twins = measured(np.concatenate([flat, flat[:1]]), ["intrinsic_dimension"])["intrinsic_dimension"]
    assert np.isnan(twins[[0, -1]]).all() and np.isfinite(twins[1:-1]).all()


def test_known_shapes() -> None:
    rng = np.random.default_rng(0)
    axes = np.concatenate([np.eye(6), -np.eye(6)])
    ours = {name: values.mean() for name, values in measured(axes, list(MEASURES)).items()}
    assert ours["matrix_entropy"] == pytest.approx(np.log(6)) == pytest.approx(ours["matrix_entropy_2"])
    for name in ("effective_rank", "stable_rank", "participation_ratio"):
        assert ours[name] == pytest.approx(6), name
    assert ours["anisotropy"] == pytest.approx(-1 / 11)
    line = np.outer(rng.normal(size=20), rng.normal(size=9))
    ours = {name: values.mean() for name, values in measured(line, ["effective_rank", "stable_rank"]).items()}
    assert ours == pytest.approx({"effective_rank": 1, "stable_rank": 1})
    same = measured(np.ones((8, 4)), list(MEASURES))
    assert np.isnan(same["participation_ratio"]).all() and np.isnan(same["intrinsic_dimension"]).all()
    assert same["anisotropy"].mean() == pytest.approx(1) and abs(same["matrix_entropy"].mean()) < 1e-9
    for states in (np.zeros((8, 4)), np.ones((2, 4)), np.full((8, 4), np.inf)):
        assert all(np.isnan(values).all() for values in measured(states, list(MEASURES)).values())


def test_curvature_is_the_angle_between_steps() -> None:
    turn = np.linspace(0, np.pi, 13)
    circle = np.stack([np.cos(turn), np.sin(turn), np.zeros(13)], axis=1)
    path = np.stack([circle, np.outer(np.arange(13.0), [1, 2, 3])], axis=1)  # [P, E, D]
    angles = curvature(path)
    assert np.isnan(angles[[0, -1]]).all()
    np.testing.assert_allclose(angles[1:-1, 0], np.pi / 12)
    np.testing.assert_allclose(angles[1:-1, 1], 0, atol=1e-7)


def unbiased_hsic(one: Floats, other: Floats) -> float:
    """The U-statistic by its definition (Song et al., 2012, equation 5)."""
    n, ones = len(one), np.ones(len(one))
    k, other_k = one - np.diag(np.diag(one)), other - np.diag(np.diag(other))
    parts = np.trace(k @ other_k) + (ones @ k @ ones) * (ones @ other_k @ ones) / (n - 1) / (n - 2)
    return float((parts - 2 / (n - 2) * ones @ k @ other_k @ ones) / n / (n - 3))


def plain_cka(one: Floats, other: Floats) -> float:
    return unbiased_hsic(one, other) / np.sqrt(unbiased_hsic(one, one) * unbiased_hsic(other, other))


@settings(max_examples=25, deadline=None)
@given(shape=shapes.filter(lambda shape: shape[0] > 5), seed=st.integers(0, 2**32))
def test_cka_is_its_definition_and_its_values_the_jackknife(shape: tuple[int, int], seed: int) -> None:
    x, y = drawn(shape, seed), drawn(shape, seed + 1)
    one, other, n = x @ x.T, (x + y) @ (x + y).T, shape[0]
    ours = cka(one, other)
    assert ours.mean() == pytest.approx(plain_cka(one, other), rel=1e-7)
    keep = [np.delete(np.arange(n), place) for place in range(n)]
    without = np.array([plain_cka(one[np.ix_(k, k)], other[np.ix_(k, k)]) for k in keep])
    error = np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())
    assert np.sqrt(ours.var(ddof=1) / n) == pytest.approx(error, rel=1e-6)
    turned = x @ np.linalg.qr(np.random.default_rng(seed).normal(size=(shape[1],) * 2))[0] * 3 + 1
    assert cka(one, turned @ turned.T).mean() == pytest.approx(1, abs=1e-7)


def plain_procrustes(x: Floats, y: Floats, weights: Floats) -> float:
    x, y = (np.sqrt(weights)[:, None] * (z - weights @ z / weights.sum()) for z in (x, y))
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    left, _, right = np.linalg.svd(x.T @ y, full_matrices=False)
    return float(np.linalg.norm(x @ left @ right - y))


@settings(max_examples=25, deadline=None)
@given(shape=shapes.filter(lambda shape: shape[0] > 5), seed=st.integers(0, 2**32))
def test_procrustes_is_the_distance_after_the_best_rotation(shape: tuple[int, int], seed: int) -> None:
    x, y, n = drawn(shape, seed), drawn(shape, seed + 1), shape[0]
    y = x + y
    ours = procrustes(x @ x.T, y @ y.T)
    value = plain_procrustes(x, y, np.ones(n))
    assert ours.mean() == pytest.approx(value, rel=1e-5)
    for place in (0, n - 1):
        more, less = np.ones(n), np.ones(n)
        more[place], less[place] = 1 + 1e-4, 1 - 1e-4
        slope = n * (plain_procrustes(x, y, more) - plain_procrustes(x, y, less)) / 2e-4
        assert ours[place] - value == pytest.approx(slope, rel=2e-3, abs=2e-3)
    assert procrustes(x @ x.T, 4 * x @ x.T) == pytest.approx(np.zeros(n), abs=1e-5)


@pytest.mark.parametrize(
    ("measure", "names"), [(measured, list(MEASURES)), (similarity_values, list(SIMILARITY))]
)
def test_measures_are_those_that_a_spec_can_name(measure: Callable[..., object], names: list[str]) -> None:
    known = {name for name in GEOMETRY if name != "curvature"} if measure is measured else set(SIMILARITIES)
    assert set(names) == known


@pytest.mark.parametrize("name", SIMILARITY)
def test_points_without_spread_have_no_similarity(name: str) -> None:
    x = drawn((9, 4), 0)
    same = np.ones((9, 4)) / 3
    assert np.isnan(similarity_values(name, x @ x.T, same @ same.T)).all()
    assert np.isnan(similarity_values(name, x[:4] @ x[:4].T, x[:4] @ x[:4].T)).all()
