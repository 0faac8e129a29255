"""Scores of probabilities, and the calibration error without its bias: against sklearn and simulations."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from analysis_data import cells
from scipy.special import expit, log_softmax, softmax
from scipy.stats import norm
from sklearn.metrics import brier_score_loss, log_loss

from store import StoreError
from store.analysis import calibration_curve, change, means
from store.analysis.nodes import variable
from store.calibration import debiased_squares

LABELS = ["1", "2", "3"]


def scored(logprobs: np.ndarray, gold: np.ndarray) -> xr.Dataset:
    """Give an evaluation of log-probabilities [level of `target`, seed, example, label]."""
    data = cells(logprobs, "label_logprob", {"target": ["a", "b"]}, ("example", "label"))
    return data.assign_coords(label=LABELS, gold=("example", np.asarray(gold, object)))


def test_brier_and_nll_are_those_of_sklearn() -> None:
    rng = np.random.default_rng(0)
    logprobs = rng.normal(size=(2, 2, 30, 3)) - 4
    gold = rng.choice(LABELS, 30)
    data = scored(logprobs, gold)
    brier, nll = variable(data, "brier"), variable(data, "nll")
    for cell, own in enumerate(softmax(logprobs, axis=-1).reshape(4, 30, 3)):
        assert float(nll[cell].mean()) == pytest.approx(log_loss(gold, own, labels=LABELS))
        classes = [brier_score_loss(gold == label, own[:, number]) for number, label in enumerate(LABELS)]
        assert float(brier[cell].mean()) == pytest.approx(sum(classes))
    found = means(data, "nll", "target")
    assert found["mean"].attrs["units"] == "nat"
    expected = -np.take_along_axis(log_softmax(logprobs, -1), (gold.astype(int) - 1)[None, None, :, None], -1)
    assert found["mean"].values == pytest.approx(expected.mean(axis=(1, 2, 3)))
    assert change(data, "brier", "target")["difference"].attrs["units"] == "1"
    other = scored(logprobs, np.where(np.arange(30) == 0, "9", gold))
    assert np.isnan(variable(other, "brier")[:, 0]).all() and np.isnan(variable(other, "nll")[:, 0]).all()
    with pytest.raises(StoreError, match="no variable 'brier'"):
        variable(data.drop_vars("label_logprob"), "brier")


def answers(
    rng: np.random.Generator, seeds: int, members: np.ndarray, gap: float, between: float
) -> tuple[np.ndarray, np.ndarray]:
    """Give confidences that are too high by `gap`, give or take a seed's own, and what is right.

    Both [seed, example]. members: the group of each example, whose answers and confidences are alike.
    """
    examples, groups = len(members), members.max() + 1
    alike = rng.normal(size=groups)[members] + rng.normal(size=examples)
    sure = expit(1.2 + 0.4 * rng.normal(size=(seeds, examples)) + 0.5 * alike)
    latent = rng.normal(size=(seeds, examples))
    if groups < examples:
        latent = (rng.normal(size=groups)[members] + rng.normal(size=examples)) / np.sqrt(2)
    return sure, norm.cdf(latent) < sure - gap - between * rng.normal(size=(seeds, 1))


def as_scored(sure: np.ndarray, right: np.ndarray, members: np.ndarray) -> xr.Dataset:
    """Give the evaluation of these answers; nine other labels share what the first one leaves."""
    rest = (1 - sure) / 9
    logs = np.log(np.stack([sure, *[rest] * 9], axis=-1))
    data = cells(logs[None], "label_logprob", {"target": ["a"]}, ("example", "label"))
    gold = (("cell", "example"), np.where(right, "0", "1").astype(object))
    group = ("example", members.astype(str).astype(object))
    return data.assign_coords(label=[str(label) for label in range(10)], gold=gold, group=group)


@pytest.mark.parametrize(("examples", "groups"), [(60, 0), (200, 0), (120, 30)])
@pytest.mark.parametrize("gap", [0.0, 0.15])
def test_the_squared_error_is_without_bias(examples: int, groups: int, gap: float) -> None:
    rng = np.random.default_rng(examples)
    members = np.arange(examples) % (groups or examples)
    found = []
    for _ in range(400):
        (sure,), (right,) = answers(rng, 1, members, gap, 0.0)
        values, bias = debiased_squares(sure, right.astype(float), members)
        found.append((values.mean(), values.mean() + bias))
    own, plain = np.mean(found, axis=0)
    error = 4 * np.std(found, axis=0)[0] / np.sqrt(len(found))
    assert abs(own - gap**2) < error and plain - gap**2 > 2 * error


@pytest.mark.parametrize(("seeds", "examples", "groups"), [(1, 200, 0), (3, 60, 0), (3, 120, 30)])
@pytest.mark.parametrize("gap", [0.0, 0.15])
def test_the_calibration_error_is_covered(seeds: int, examples: int, groups: int, gap: float) -> None:
    rng = np.random.default_rng([seeds, examples])
    members, between = np.arange(examples) % (groups or examples), 0.03 * (seeds > 1)
    covered = []
    for _ in range(100):
        data = as_scored(*answers(rng, seeds, members, gap, between), members)
        found = calibration_curve(data, "target").isel(level=0)
        low, high = float(found["rmsce_low"]), float(found["rmsce_high"])
        assert 0 <= low <= float(found["rmsce"]) <= high
        covered.append(low <= np.hypot(gap, between) <= high)
    assert np.mean(covered) >= 0.9
    assert ("groups of examples" in found.attrs["method"]) == bool(groups)


def test_one_group_leaves_nothing_to_tell() -> None:
    values, bias = debiased_squares(np.full(8, 0.7), np.ones(8), np.zeros(8, int))
    assert np.isnan(values).all() and np.isnan(bias)
