"""Predicted power is the power that simulated studies have, by generators of other kinds too."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from analysis_data import cells, probe
from facts import facts
from scipy import stats

from benchmarks.power import Study
from store.analysis import change
from store.analysis.assumed import ASSUMED, variation
from store.analysis.components import Components
from store.analysis.inference import Estimate
from store.analysis.monitoring import Looks, Monitoring
from store.analysis.pilot import read_pilot
from store.analysis.power import Design, Variation, corrected, pointwise
from store.errors import StoreError

STUDIES = 600


def close(found: np.ndarray, predicted: float, slack: float = 0.03) -> bool:
    """Whether a share of studies is the predicted one, by four standard errors and a slack."""
    error = 4 * np.sqrt(max(predicted * (1 - predicted), 0.01) / found.size)
    return bool(abs(found.mean() - predicted) < error + slack)


@pytest.mark.parametrize("values", ["normal", "heavy"])
@pytest.mark.parametrize(
    ("design", "seed"),
    [
        (Design(1, 40), 0.0),
        (Design(2, 60), 0.3),
        (Design(3, 20), 0.05),
        (Design(5, 60, 12), 0.3),
        (Design(10, 200, 40), 0.1),
    ],
)
def test_power_is_as_predicted(design: Design, seed: float, values: str) -> None:
    study = Study(seed, 1.0, 1.0, values, within_group=0.4 if design.groups else 0.0)
    found = pointwise(design, study.variation())
    for power in (0.5, 0.8):
        difference = found.detectable(power)
        assert found.of(difference) == pytest.approx(power, abs=0.01)
        simulated = study.found(np.random.default_rng(design.seeds), design, difference, STUDIES)
        # Heavy tails make the mean squares vary more, and so power a little flatter.
        assert close(simulated, power, 0.06 if values == "heavy" else 0.03), (power, simulated.mean())


@pytest.mark.parametrize("design", [Design(3, 40), Design(5, 60, 15), Design(10, 200)])
def test_power_of_accuracies_is_as_predicted(design: Design) -> None:
    for accuracy in (0.5, 0.95):  # from the latter the other model's falls, and varies more
        shared = 0.4 if design.groups else 0.0
        study = Study(0.15, 1.0, 0.0, "binary", within_group=shared, accuracy=accuracy)
        difference = pointwise(design, study.variation()).detectable()
        simulated = study.found(np.random.default_rng(3), design, difference, STUDIES)
        assert close(simulated, 0.8, 0.08), (accuracy, simulated.mean())


def test_power_is_that_of_change_itself() -> None:
    """Through labelled data, pairs of cells and all, in one layer and after the correction over layers."""
    rng = np.random.default_rng(7)
    seeds, examples, layers, studies = 3, 40, 20, 200
    variation_ = Variation(0.5, 1.0, 1.0, between_layers=0.0)
    design = Design(seeds, examples, layers=layers, tests=layers)
    alone, among = pointwise(design, variation_).detectable(), corrected(design, variation_).detectable()
    assert among > alone
    for difference, column in ((alone, "p_value"), (among, "p_adjusted")):
        shape = (seeds, examples, layers, studies)
        values = np.zeros((2, *shape))
        values[1] = (
            0.5 * rng.normal(size=(seeds, 1, layers, studies))
            + rng.normal(size=(1, examples, layers, studies))
            + rng.normal(size=shape)
        )
        values[1, :, :, 4] += difference
        found = change(probe(values), "entropy", "target", family="layers")[column].isel(level=0, layer=4)
        assert close((found < 0.05).values, 0.8, 0.04), (column, float((found < 0.05).mean()))


@pytest.mark.parametrize("looks", [(3, 5), (2, 3, 5), "anytime"])
def test_power_is_that_of_the_look_with_all_seeds(looks: Looks) -> None:
    study, design = Study(0.3, 1.0, 1.0), Design(5, 40, looks=looks)
    difference = pointwise(design, study.variation()).detectable()
    assert difference > pointwise(Design(5, 40), study.variation()).detectable()
    values = study.draw(np.random.default_rng(8), design, STUDIES, difference)
    at_last = Estimate.of(Components.of(values), monitoring=Monitoring.of(looks)).p() < 0.05
    assert close(at_last, 0.8)
    wide = corrected(Design(5, 40, layers=9, tests=9, looks=looks), study.variation()).detectable()
    assert wide > corrected(Design(5, 40, layers=9, tests=9), study.variation()).detectable()
    assert pointwise(Design(1, 40, looks=looks), study.variation()).detectable() == np.inf


def test_a_number_of_seeds_that_is_no_look_is_taken_for_the_last() -> None:
    assert Design(8, 40, looks=(3, 5, 10)).level(0.05) == Design(8, 40, looks=(3, 5, 8)).level(0.05)
    levels = [Design(seeds, 40, looks=(3, 5, 10)).level(0.05) for seeds in (3, 5, 10)]
    assert levels == sorted(levels) and levels[-1] < 0.05 == Design(10, 40).level(0.05)


def test_two_seeds_find_next_to_nothing_in_a_layer() -> None:
    two, three = (
        corrected(
            Design(seeds, 200, layers=31, tests=31), Variation(0.2, 0.3, 0.3, between_layers=0.9)
        ).detectable()
        for seeds in (2, 3)
    )
    assert two > 4 * three


@pytest.mark.timeout(30)
def test_thousands_of_seeds_take_seconds() -> None:
    few, many = (
        corrected(Design(seeds, 60, layers=5, tests=5), Variation(0.2, 0.3, 0.3)).detectable()
        for seeds in (30, 3000)
    )
    assert many < few


def test_more_of_anything_finds_more() -> None:
    variation_ = ASSUMED["correct"]
    least = [pointwise(Design(seeds, 200), variation_).detectable() for seeds in (2, 3, 5, 10, 40)]
    assert least == sorted(least, reverse=True)
    least = [pointwise(Design(5, examples), variation_).detectable() for examples in (20, 50, 200, 1000)]
    assert least == sorted(least, reverse=True)
    assert pointwise(Design(5, 200, 20), variation_).detectable() > least[2]


def test_an_accuracy_cannot_differ_by_more_than_all() -> None:
    assert pointwise(Design(2, 10), Variation(0.5, 0.3, 0.3, discordant=0.4)).detectable() == np.inf


def test_many_seeds_come_to_the_noncentral_t() -> None:
    """Where seeds alone vary, the test is that of their means."""
    found = pointwise(Design(8, 500), Variation(1.0, 0.0, 1e-3))
    shift, bound = 1.2 * np.sqrt(8), stats.t.ppf(0.975, 7)
    exact = stats.nct.sf(bound, 7, shift) + stats.nct.cdf(-bound, 7, shift)
    assert found.of(1.2) == pytest.approx(exact, abs=0.005)
    found = pointwise(Design(1, 30), Variation(0.0, 1.0, 0.0))
    exact = stats.nct.sf(stats.t.ppf(0.975, 29), 29, 0.5 * np.sqrt(30))
    assert found.of(0.5) == pytest.approx(exact, abs=0.005)


def test_a_pilot_tells_the_variances_that_made_it() -> None:
    rng = np.random.default_rng(5)
    study = Study(0.5, 1.0, 2.0, "normal", within_group=0.5)
    values = study.draw(rng, Design(40, 400, 100), 3)  # [seed, example, study]
    data = np.zeros((2, *values.shape[:2], 1, 3))
    data[1, :, :, 0] = values
    dataset = probe(data).assign_coords(group=("example", [f"g{own % 100}" for own in range(400)]))
    found = read_pilot(dataset, "entropy", "target", "a", "b", ASSUMED["entropy"])
    own = found.variation
    assert (found.seeds, found.examples, found.groups) == (40, 400, pytest.approx(100))
    assert own.seed == pytest.approx(0.5, rel=0.3) and own.rest == pytest.approx(2.0, rel=0.05)
    assert own.example == pytest.approx(1.0, rel=0.15) and own.within_group == pytest.approx(0.5, abs=0.15)
    assert found.low.seed < own.seed < found.high.seed


def test_a_pilot_of_one_seed_leaves_the_variance_between_seeds_as_assumed() -> None:
    rng = np.random.default_rng(6)
    data = np.stack([np.full((1, 80), "1"), np.where(rng.random((1, 80)) < 0.4, "1", "2")])
    dataset = cells(data, "prediction", {"target": ("a", "b")}, ("example",))
    dataset = dataset.assign_coords(gold=("example", ["1"] * 80))
    assumed = ASSUMED["correct"]
    found = read_pilot(dataset, "correct", "target", "a", "b", assumed)
    differ = (data[1] != "1").mean()
    assert found.seeds == 1 and found.variation.seed == assumed.seed
    assert found.variation.discordant == pytest.approx(differ)
    total = found.variation.example**2 + found.variation.rest**2
    assert total == pytest.approx(differ * (1 - differ) * 80 / 79)


def test_a_pilot_that_does_not_vary_tells_nothing() -> None:
    with pytest.raises(StoreError, match=facts("entropy")):
        read_pilot(probe(np.ones((2, 3, 8, 1, 1))), "entropy", "target", "a", "b", ASSUMED["entropy"])


def test_what_is_given_takes_the_place_of_what_is_assumed() -> None:
    own = variation("correct", {"discordant": 0.2, "seed": 0.1, "example": 0.2})
    assert own.rest**2 == pytest.approx(0.2 - 0.01 - 0.04)
    assert variation("entropy", {"rest": 1.0}).rest == 1.0
    for outcome, own in ASSUMED.items():
        assert (own.discordant is None) == (not outcome.endswith("correct"))


def test_the_documentation_states_what_is_assumed() -> None:
    page = (Path(__file__).parents[3] / "docs" / "power.md").read_text("utf-8")
    names = ("seed", "example", "rest", "discordant", "within_group", "between_layers")
    for outcome, own in ASSUMED.items():
        (row,) = re.findall(rf"^\| `{outcome}` \| (.*) \|$", page, re.MULTILINE)
        stated = [float(cell or 0) for cell in map(str.strip, row.split("|"))]
        assert stated == [getattr(own, name) or 0 for name in names], outcome
