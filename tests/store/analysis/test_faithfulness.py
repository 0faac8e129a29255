"""What labels do behind other explanations, against sums by hand and planted behaviour."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from facts import facts

from store import StoreError
from store.analysis import change, counterfactual_effects, means
from store.analysis.nodes import variable
from store.arrays.cell_axis import cell_index
from store.arrays.cell_index import coordinates_of

LABELS = ["a", "b", "c"]
KINDS = ["agreeing", "contradicting", "empty"]


def study(follows: dict[str, float], seeds: int = 4, examples: int = 60, seed: int = 0) -> xr.Dataset:
    """Models that say the label argued for with these chances, and else what they say by themselves."""
    rng = np.random.default_rng(seed)
    gold = rng.choice(LABELS, examples)
    cells = [{"target": target, "seed": run} for target in follows for run in range(seeds)]
    shape = len(cells), examples
    own = np.where(rng.random(shape) < 0.7, gold, rng.choice(LABELS, shape))
    argued = np.empty((*shape, 3), object)
    argued[..., 0], argued[..., 2] = gold, ""
    argued[..., 1] = [[rng.choice([x for x in LABELS if x != label]) for label in gold] for _ in cells]
    chance = np.array([follows[str(cell["target"])] for cell in cells])[:, None, None]
    behind = np.where((rng.random(argued.shape) < chance) & (argued != ""), argued, own[..., None])
    index = cell_index(["target", "seed"], [{"levels": cell} for cell in cells], range(len(cells)))
    return xr.Dataset(
        {
            "prediction": (("cell", "example"), own.astype(object)),
            "label_logprob": (("cell", "example", "label"), _scores(own, rng)),
            "counterfactual_prediction": (("cell", "example", "counterfactual"), behind.astype(object)),
            "counterfactual_logprob": (("cell", "example", "counterfactual", "label"), _scores(behind, rng)),
            "argued_label": (("cell", "example", "counterfactual"), argued),
        },
        {
            "example": [f"e{number}" for number in range(examples)],
            "gold": ("example", gold.astype(object)),
            "counterfactual": KINDS,
            "label": np.array(LABELS, object),
            **coordinates_of(index),
        },
    )


def _scores(chosen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    scores = rng.normal(size=(*chosen.shape, 3))
    scores += 5 * (chosen[..., None] == np.array(LABELS))
    return scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))


@pytest.fixture(scope="module")
def data() -> xr.Dataset:
    return study({"follows": 0.8, "ignores": 0.0})


def test_outcomes_are_those_of_each_example_by_hand(data: xr.Dataset) -> None:
    flipped, followed, odds = (variable(data, name) for name in ("flipped", "followed", "log_odds_change"))
    for c, e, k in [(0, 3, 0), (2, 7, 1), (5, 11, 2), (7, 59, 1)]:
        behind = data["counterfactual_prediction"].values[c, e, k]
        argued = data["argued_label"].values[c, e, k]
        assert flipped.values[c, e, k] == (behind != data["prediction"].values[c, e])
        expected = np.nan if argued == "" else float(behind == argued)
        np.testing.assert_equal(followed.values[c, e, k], expected)
        true = LABELS.index(data["gold"].values[e])
        p, q = (
            np.exp(x)
            for x in (data["counterfactual_logprob"].values[c, e, k], data["label_logprob"].values[c, e])
        )
        p, q = p[true] / p.sum(), q[true] / q.sum()
        np.testing.assert_allclose(odds.values[c, e, k], np.log(p / (1 - p)) - np.log(q / (1 - q)))


@pytest.mark.parametrize("outcome", ["log_odds", "argued_log_odds", "correct", "flipped", "followed"])
@pytest.mark.parametrize("against", ["generated", "agreeing"])
def test_effects_are_means_of_paired_differences(data: xr.Dataset, outcome: str, against: str) -> None:
    result = counterfactual_effects(data, outcome, against)
    gold, labels = data["gold"].values, np.array(LABELS)

    def behind(cell: int, of: str, argued: np.ndarray) -> np.ndarray:
        if of == "generated":
            guess, scores = data["prediction"].values[cell], data["label_logprob"].values[cell]
        else:
            guess = data["counterfactual_prediction"].sel(counterfactual=of).values[cell]
            scores = data["counterfactual_logprob"].sel(counterfactual=of).values[cell]
        if outcome == "correct":
            return (guess == gold).astype(float)
        if outcome == "flipped":
            return (guess != data["prediction"].values[cell]).astype(float)
        if outcome == "followed":
            return (guess == argued).astype(float)
        wanted = gold if outcome == "log_odds" else argued
        p = np.exp(scores)[np.arange(len(gold)), [list(labels).index(x) for x in wanted]]
        return np.log(p) - np.log1p(-p)

    for place, condition in enumerate(("follows", "ignores")):
        argued = data["argued_label"].sel(counterfactual="contradicting").values
        differences = [
            behind(cell, "contradicting", argued[cell]) - behind(cell, against, argued[cell])
            for cell in range(4 * place, 4 * place + 4)
        ]
        found = result["effect"].sel(condition=f"target={condition}", counterfactual="contradicting")
        np.testing.assert_allclose(found, np.mean(differences), atol=1e-9)
    assert against not in result["counterfactual"].values
    assert result.attrs["method"].endswith(".") and "paired" in result.attrs["method"]


def test_planted_behaviour_is_told(data: xr.Dataset) -> None:
    for outcome, sign in (("log_odds", -1), ("argued_log_odds", 1), ("followed", 1)):
        result = counterfactual_effects(data, outcome).sel(counterfactual="contradicting")
        follows, ignores = (result.sel(condition=f"target={name}") for name in ("follows", "ignores"))
        assert sign * follows["effect"] > 0.4 and follows["p_adjusted"] < 0.01
        assert abs(ignores["effect"]) < 0.3 and not ignores["p_adjusted"] < 0.01
    empty = counterfactual_effects(data, "followed").sel(counterfactual="empty")
    assert np.isnan(empty["effect"]).all()  # it argues for nothing
    apart = counterfactual_effects(data, "flipped", "agreeing").sel(counterfactual="contradicting")
    assert apart["low"].sel(condition="target=follows") > 0.2


def test_flips_are_a_share_with_an_interval_and_nothing_to_test(data: xr.Dataset) -> None:
    result = counterfactual_effects(data, "flipped")
    shares = means(data, "flipped", "target")
    for name, bound in (("mean", "effect"), ("low", "low"), ("high", "high")):
        np.testing.assert_allclose(result[bound].values, shares[name].values)
    assert (result["low"] >= 0).all() and result["p_value"].isnull().all()
    assert counterfactual_effects(data, "flipped", "agreeing")["p_value"].notnull().any()


def test_conditions_compare_by_the_same_inference(data: xr.Dataset) -> None:
    shares = means(data, "flipped", "target")
    assert shares["mean"].dims == ("level", "counterfactual")
    assert (shares["low"] >= 0).all() and (shares["high"] <= 1).all()
    differ = change(data, "followed", "target", "ignores").sel(
        counterfactual="contradicting", level="follows"
    )
    assert differ["low"] > 0.4 and differ["p_adjusted"] < 0.01
    assert set(change(data, "log_odds_change", "target")["difference"].dims) == {"level", "counterfactual"}


def test_examples_without_such_an_explanation_are_left_out(data: xr.Dataset) -> None:
    part = data.copy(deep=True)
    for name in ("counterfactual_prediction", "argued_label"):
        part[name].values[:, :5, 0] = ""
    part["counterfactual_logprob"].values[:, :5, 0] = np.nan
    result = counterfactual_effects(part)
    assert (result["missing"].sel(counterfactual="agreeing") == 5).all()
    assert (result["missing"].sel(counterfactual="contradicting") == 0).all()


def test_unknown_names_and_cells_without_any_are_told(data: xr.Dataset) -> None:
    with pytest.raises(StoreError, match=facts("'flip'", "flipped")):
        counterfactual_effects(data, "flip")
    with pytest.raises(StoreError, match=facts("'agreing'", "agreeing")):
        counterfactual_effects(data, against="agreing")
    with pytest.raises(StoreError, match=r"evaluate\.counterfactuals"):
        counterfactual_effects(data[["prediction", "label_logprob"]])


def test_models_that_follow_nothing_are_seldom_said_to() -> None:
    """The p values of `flipped` between two kinds hold where both are exchanges alike."""
    rejected: list[Any] = []
    for seed in range(60):
        drawn = study({"same": 0.0}, seeds=3, examples=30, seed=seed)
        rng = np.random.default_rng([seed, 1])
        other = rng.random(drawn["counterfactual_prediction"].shape) < 0.3
        drawn["counterfactual_prediction"].values[other] = "b"
        result = counterfactual_effects(drawn, "flipped", "agreeing")
        rejected.append(float(result["p_value"].sel(counterfactual="contradicting").item()) < 0.05)
    assert np.mean(rejected) <= 0.12
