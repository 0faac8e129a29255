"""Differences too small to matter: two one-sided tests by the intervals' own inference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from analysis_data import at_most, cells, crossed, probe
from commands import engine
from facts import facts, told
from matplotlib import pyplot as plt
from report_store import Design, write_synthetic
from scipy import special
from scipy.optimize import brentq, minimize_scalar
from statsmodels.stats.weightstats import ttost_paired

from store import StoreError, open_store, plots
from store.analysis import change
from store.analysis.components import Components
from store.analysis.equivalence import one_sided
from store.analysis.inference import Estimate
from store.report.collect import collect

STUDIES = 400


def predictions(right: np.ndarray) -> xr.Dataset:
    """Give predictions of `right` [level of `target`, seed, example]."""
    guess = np.where(right, "5", "1").astype(object)
    data = cells(guess, "prediction", {"target": "ab"}, ("example",))
    return data.assign_coords(gold=("example", np.full(right.shape[2], "5", object)))


def test_p_is_below_its_level_just_where_the_narrower_interval_lies_within() -> None:
    rng = np.random.default_rng(0)
    for seeds in (1, 2, 3):
        values = crossed(rng, (2, seeds, 40, 5, 60), 0.3)
        found = change(probe(values), "entropy", "target", equivalence=0.9)
        narrow = change(probe(values), "entropy", "target", confidence=0.9)
        within = (narrow["low"] > -0.9) & (narrow["high"] < 0.9)
        assert ((found["p_equivalence"] < 0.05) == within).all()
        assert (found["p_equivalence_adjusted"] >= found["p_equivalence"]).all()
    right = rng.random((2, 3, 60)) < 0.95
    found = change(predictions(right), "correct", "target", equivalence=0.1)
    for confidence in np.linspace(0.2, 0.98, 40):
        narrow = change(predictions(right), "correct", "target", confidence=confidence)
        within = bool((abs(narrow["low"]) < 0.1) & (abs(narrow["high"]) < 0.1))
        assert within == bool(found["p_equivalence"] < (1 - confidence) / 2)


def test_one_seed_is_the_paired_test_of_statsmodels() -> None:
    values = crossed(np.random.default_rng(1), (2, 1, 30, 1, 1))
    found = change(probe(values), "entropy", "target", equivalence=0.8)
    expected = ttost_paired(values[1].ravel(), values[0].ravel(), -0.8, 0.8)[0]
    assert float(found["p_equivalence"].squeeze()) == pytest.approx(expected)


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
@pytest.mark.parametrize("groups", [0, 12])
def test_a_difference_at_the_border_is_called_small_at_most_as_often_as_said(seeds: int, groups: int) -> None:
    rng = np.random.default_rng(seeds)
    members = np.arange(60) % 12
    values = rng.standard_t(5, (2, seeds, 60, 1, STUDIES)) + rng.standard_t(5, (2, seeds, 1, 1, STUDIES)) / 4
    if groups:
        values += rng.normal(size=(2, 1, groups, 1, STUDIES))[:, :, members]
    values[1] += 2
    data = probe(values)
    if groups:
        data = data.assign_coords(group=("example", members.astype(str).astype(object)))
    found = change(data, "entropy", "target", equivalence=2.0)
    assert at_most(found["p_equivalence"] < 0.05, 0.05)
    wide = change(data, "entropy", "target", equivalence=6.0)
    assert seeds < 3 or (wide["p_equivalence"] < 0.05).mean() > 0.5


@pytest.mark.parametrize("seeds", [1, 2, 3, 5, 10])
@pytest.mark.parametrize(("accuracy", "gain", "groups"), [(0.5, 0.1, 0), (0.9, 0.05, 0), (0.8, 0.1, 15)])
def test_an_accuracy_at_the_border_too(seeds: int, accuracy: float, gain: float, groups: int) -> None:
    """Accuracies of examples (or their groups) and seeds are beta variables with the planted means."""
    rng = np.random.default_rng([seeds, groups])
    members = np.arange(60) % groups if groups else np.arange(60)
    right = []
    for mean in (accuracy, accuracy + gain):
        by_group = rng.beta(9 * mean, 9 * (1 - mean), (1, members.max() + 1, STUDIES))[:, members]
        by_seed = rng.beta(40 * mean, 40 * (1 - mean), (seeds, 1, STUDIES)) if seeds > 1 else mean
        share = np.where(rng.random((seeds, 60, STUDIES)) < 0.5, by_group, by_seed)
        right.append(rng.random((seeds, 60, STUDIES)) < share)
    gained = Components.of(right[1].astype(float) - right[0], members if groups else None)
    assert at_most(one_sided(Estimate.of(gained, share=True), gain)["p_equivalence"][0] < 0.05, 0.05)


@pytest.mark.parametrize(("seeds", "examples", "groups"), [(5, 300, 40), (10, 300, 40), (10, 200, 0)])
def test_near_the_ceiling_too_where_hard_examples_come_in_groups(
    seeds: int, examples: int, groups: int
) -> None:
    """A normal effect of examples (or their groups) on the log odds skews what is lost on the hard ones."""
    rng = np.random.default_rng([seeds, groups])
    members = np.arange(examples) % (groups or examples)
    hard = rng.normal(size=(1, members.max() + 1, STUDIES))[:, members]
    spread = np.sqrt(1 + 0.3**2 + 0.7**2) * rng.normal(size=200_000)
    right = []
    for mean in (0.97, 0.99):
        level = brentq(lambda own, mean=mean: special.expit(own + spread).mean() - mean, 0, 20)
        own = 0.3 * rng.normal(size=(seeds, 1, STUDIES))
        own = own + 0.7 * rng.normal(size=(1, members.max() + 1, STUDIES))[:, members]
        right.append(rng.random((seeds, examples, STUDIES)) < special.expit(level + hard + own))
    gained = Components.of(right[1].astype(float) - right[0], members if groups else None)
    estimate = Estimate.of(gained, share=True, within=(-1, 1))
    assert at_most(one_sided(estimate, 0.02)["p_equivalence"][0] < 0.05, 0.05)
    low, high = estimate.bounds(0.05)
    assert at_most((low > 0.02) | (high < 0.02), 0.05)
    for border in (0.0, 0.02, -0.05):
        assert ((estimate.p(border) < 0.05) == ((low > border) | (high < border))).all()


def test_skewed_trainings_are_spoken_of() -> None:
    rng = np.random.default_rng(4)
    for wrong, said in ((np.full((2, 6), 0.1), False), (np.array([[0.1] * 6, [0.1] * 5 + [0.9]]), True)):
        right = rng.random((2, 6, 80)) >= wrong[..., None]
        guess = np.where(right, "1", "2").astype(object)
        data = cells(guess, "prediction", {"target": ["a", "b"]}, ("example",))
        data = data.assign_coords(gold=("example", np.full(80, "1", object)))
        method = change(data, "correct", "target", equivalence=0.1).attrs["method"]
        assert (told(method, "skewed")) == said
        assert "skewed (" not in change(data, "correct", "target").attrs["method"]


def test_the_variance_of_a_difference_is_that_of_the_largest_likelihood_with_its_mean() -> None:
    values = np.repeat([1.0, -1.0, 0.0], [7, 2, 31])[None, :, None]
    score = Estimate.of(Components.of(values), share=True).limited
    for border in (-0.1, 0.0, 0.125, 0.3):

        def surprise(lost: float, border: float = border) -> float:
            gained = lost + border
            return -(7 * np.log(gained) + 2 * np.log(lost) + 31 * np.log(1 - gained - lost))

        low, high = max(0, -border) + 1e-9, (1 - border) / 2 - 1e-9
        lost = minimize_scalar(surprise, bounds=(low, high), method="bounded", options={"xatol": 1e-10}).x
        expected = 2 * lost + border - border**2
        assert score._variance(border)[0] == pytest.approx(expected, abs=1e-6)


def test_verdicts_say_what_both_tests_do() -> None:
    rng = np.random.default_rng(2)
    values = 0.01 * rng.normal(size=(2, 4, 50, 5, 1))
    values[1] += np.array([0, 0.1, 0.5, 0, np.nan]).reshape(1, 1, 5, 1)
    values[:, :, :, 3] *= 4000
    found = change(probe(values), "entropy", "target", equivalence=0.2).isel(level=0, position=0)
    assert found["verdict"].values.tolist() == [
        "no difference larger than 0.2", "different, but smaller than 0.2", "different", "undecided", "",
    ]  # fmt: skip
    assert "TOST" in found.attrs["method"] and "the 90% interval" in found.attrs["method"]
    assert "verdict" not in change(probe(values), "entropy", "target")
    with pytest.raises(StoreError, match=facts("above 0", "0")):
        change(probe(values), "entropy", "target", equivalence=0)


def test_the_spec_s_difference_is_shown_by_results_report_and_figure(tmp_path: Path) -> None:
    design = Design(
        {"target": ["label", "label+explanation"]},
        contrasts=[{"factor": "target", "baseline": "label"}],
        analysis={"smallest_difference_of_interest": {"correct": 0.9, "entropy": 0.25}},
        layers=4,
    )
    root = write_synthetic(tmp_path / "store", design)
    tree = open_store(root)["synthetic"]
    found = tree.ablation.change("correct", "target")
    assert found["verdict"].item() == "no difference larger than 0.9"
    assert tree["evaluate"].ablation.change("correct", "target")["verdict"].item() == found["verdict"].item()
    shown = " ".join(engine("results", root).output.split())
    assert "Contrasts: paired differences" in shown and "no difference larger" in shown
    (row,) = collect(root)["experiments"][0]["contrasts"]["rows"]
    assert row["outcomes"]["correct"]["verdict"] == "no difference larger than 0.9"
    entropy = tree.ablation.change("entropy", "target")
    assert (
        row["layers"]["entropy"]["verdict"]
        == entropy["verdict"].isel(level=0).transpose("position", "layer").values.tolist()
    )
    ax = plots.change(entropy.isel(position=0))
    (band,) = [patch for patch in ax.patches if patch.get_alpha() == 0.12]
    assert band.get_y() == -0.25 and band.get_height() == 0.5
    plt.close("all")
