"""The logistic mixed model of accuracies: against glm, against its own simulation, and beside `change`."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
import xarray as xr
from analysis_data import cells

from store.analysis import accuracy_model, change
from store.analysis.logistic import LogisticModel, fitted


def answers(right: np.ndarray) -> xr.Dataset:
    """Give an evaluation of answers [level of `target`, seed, example] that are right or not."""
    guess = np.where(right, "5", "1").astype(object)
    data = cells(guess, "prediction", {"target": ["a", "b"]}, ("example",))
    return data.assign_coords(gold=("example", np.full(right.shape[2], "5", object)))


def drawn(rng: np.random.Generator, seeds: int, examples: int, gain: float, training: float) -> np.ndarray:
    """Draw answers of a logistic model with crossed effects of trainings and (1) examples."""
    eta = 0.4 + gain * np.array([0, 1]).reshape(2, 1, 1) + training * rng.normal(size=(2, seeds, 1))
    return rng.random((2, seeds, examples)) < 1 / (1 + np.exp(-eta - rng.normal(size=examples)))


def test_without_variation_between_units_it_is_the_logistic_regression() -> None:
    rng = np.random.default_rng(0)
    y, x = (rng.random(300) < 0.6).astype(float), rng.integers(0, 2, 300).astype(float)
    model = LogisticModel.of(y, x, [np.arange(300) % 6, np.arange(300) // 6])
    logs = np.log([1e-3, 1e-3])
    _, coefficients, curvature = model._laplace(logs, np.zeros(model.design.shape[1]))
    glm = sm.Logit(y, sm.add_constant(x)).fit(disp=0)
    assert coefficients[:2] == pytest.approx(glm.params, abs=1e-3)
    assert np.sqrt(np.linalg.inv(curvature)[1, 1]) == pytest.approx(glm.bse[1], rel=1e-3)


def test_planted_effects_and_variances_are_found() -> None:
    found = accuracy_model(answers(drawn(np.random.default_rng(1), 12, 150, 1.0, 0.4)), "target").isel(
        level=0
    )
    assert float(found["low"]) < np.exp(1) < float(found["high"]) and float(found["p_value"]) < 0.001
    assert float(found["training_sd"]) == pytest.approx(0.4, abs=0.2)
    assert float(found["example_sd"]) == pytest.approx(1.0, abs=0.25)
    assert float(found["agrees"]) == 1 and "Laplace" in found.attrs["method"]


def test_it_says_where_it_does_not_agree_and_what_one_seed_cannot_tell() -> None:
    rng = np.random.default_rng(2)
    data = answers(drawn(rng, 3, 40, 0.0, 0.3))
    found, other = (
        accuracy_model(data, "target").isel(level=0),
        change(data, "correct", "target").isel(level=0),
    )
    both = (float(found["p_value"]) < 0.05) == (float(other["p_value"]) < 0.05)
    assert bool(found["agrees"]) == both
    one = accuracy_model(answers(drawn(rng, 1, 40, 1.0, 0.3)), "target").isel(level=0)
    assert np.isfinite(one["odds_ratio"]) and np.isnan(one["p_value"]) and np.isnan(one["agrees"])
    same = accuracy_model(answers(np.ones((2, 2, 20), bool)), "target").isel(level=0)
    assert float(same["low"]) <= 1 <= float(same["high"])


def test_groups_have_a_variance_of_their_own() -> None:
    data = answers(drawn(np.random.default_rng(3), 3, 40, 0.5, 0.3))
    names = (np.arange(40) // 4).astype(str).astype(object)
    found = accuracy_model(data.assign_coords(group=("example", names)), "target")
    assert "group_sd" in found and "groups and examples" in found.attrs["method"]


@pytest.mark.parametrize("seeds", [2, 4])
def test_the_odds_ratio_is_covered(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    held = []
    for _ in range(12):
        found = accuracy_model(answers(drawn(rng, seeds, 40, 0.5, 0.4)), "target").isel(level=0)
        held.append(float(found["low"]) <= np.exp(0.5) <= float(found["high"]))
    assert np.mean(held) >= 0.8


@pytest.mark.parametrize("effect", [0.0, 1.0])
def test_the_odds_ratio_is_covered_where_groups_react_to_the_level(effect: float) -> None:
    rng = np.random.default_rng([7, int(effect)])
    members, held = np.arange(48) % 12, []
    for _ in range(12):
        reaction = 1.5 * rng.normal(size=12)[members] * np.array([0, 1]).reshape(2, 1, 1)
        level = 0.4 + effect * np.array([0, 1]).reshape(2, 1, 1) + reaction + rng.normal(size=48)
        right = rng.random((2, 8, 48)) < 1 / (1 + np.exp(-level))
        found = fitted(right.reshape(16, -1).astype(float), list(range(16)), members, 0.95)
        held.append(found["low"] <= np.exp(effect) <= found["high"])
    assert sum(held) >= 10 and 0.7 < found["reaction_sd"] < 3
