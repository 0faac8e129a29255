"""Effects and mediation of interventions, on data whose effects are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from facts import told
from matplotlib import pyplot as plt

from store import StoreError, plots
from store.analysis import intervention_effects, mediation
from store.analysis.interventions import of_condition, sweep_of

LABELS = ["1", "2", "3"]
NAMES = ["none", "all of base", "off, layer 1", "off, layer 2", "off, layer 3", "heads, layer 1"]
# What each change takes from the true label's log-odds: layers 1 and 2 carry a quarter and three quarters.
TAKEN = np.array([0.0, 2.0, 0.5, 1.5, 0.0, 0.3])


def planted(seeds: int = 3, examples: int = 40, noise: float = 0.05) -> xr.Dataset:
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 3, examples)
    odds = rng.normal(2.5, 0.5, (seeds, examples, 1)) - TAKEN + rng.normal(0, noise, (seeds, examples, 6))
    true = -np.log1p(np.exp(-odds))
    rest = np.log1p(-np.exp(true)) - np.log(2)
    scores = np.repeat(rest[..., None], 3, axis=-1)
    for example, place in enumerate(gold):
        scores[:, example, :, place] = true[:, example]
    entropy = np.broadcast_to(odds[..., None], (seeds, examples, 6, 4)) * np.array([0, 0, 1, 1.0])
    prediction = np.array(LABELS, object)[scores.argmax(axis=-1)]
    dims = ("cell", "example", "intervention")
    index = pd.MultiIndex.from_product([["both"], range(seeds)], names=["target", "seed"])
    dataset = xr.Dataset(
        {
            "label_logprob": ((*dims, "label"), scores),
            "prediction": (dims, prediction),
            "entropy": ((*dims, "layer"), entropy, {"units": "nat", "long_name": "entropy"}),
        },
        {
            "example": [f"e{i}" for i in range(examples)],
            "gold": ("example", np.array(LABELS, object)[gold]),
            "intervention": NAMES,
            "entry": ("intervention", ["none", "source", "off", "off", "off", "heads"]),
            "first": ("intervention", [0, 0, 1, 2, 3, 1]),
            "last": ("intervention", [0, 0, 1, 2, 3, 1]),
            "source": ("intervention", ["", "base", "base", "base", "base", ""]),
            "head": ("intervention", [-1] * 6),
            "label": LABELS,
            "layer": range(4),
        },
    )
    return dataset.assign_coords(xr.Coordinates.from_pandas_multiindex(index, "cell"))


def test_effects_are_found_layer_by_layer() -> None:
    found = intervention_effects(planted(), "off", "log_odds").sel(condition="target=both")
    np.testing.assert_allclose(found["effect"], [-0.5, -1.5, 0.0], atol=0.05)
    assert (found["low"] < found["effect"]).all() and (found["effect"] < found["high"]).all()
    assert list(found["p_adjusted"] < 0.05) == [True, True, False]
    assert (found["p_adjusted"] >= found["p_value"]).all()
    assert list(found["first"]) == [1, 2, 3] and found["effect"].attrs["units"] == "nat"
    assert told(found.attrs["method"], "Holm", "3 changes", "off")
    assert told(found.attrs["method"], "paired")


def test_entropy_has_an_effect_on_every_layer_and_accuracy_on_the_answers() -> None:
    data = planted()
    by_layer = intervention_effects(data, "off", "entropy")
    assert by_layer["effect"].dims == ("condition", "intervention", "layer")
    np.testing.assert_allclose(by_layer["effect"][0, 1], [0, 0, -1.5, -1.5], atol=0.05)
    right = data["prediction"] == data["gold"]
    of = {name: right.sel(intervention=name).mean() for name in ("none", "off, layer 2")}
    found = intervention_effects(data, "off")["effect"].sel(intervention="off, layer 2")
    assert found.item() == pytest.approx(float(of["off, layer 2"] - of["none"]))


def test_shares_of_the_difference_are_what_was_planted() -> None:
    data = planted()
    found = mediation(data, "off", "log_odds").isel(condition=0)
    np.testing.assert_allclose(found["total"], 2.0, atol=0.05)
    np.testing.assert_allclose(found["share"], [0.25, 0.75, 0.0], atol=0.03)
    assert ((found["low"] <= found["share"]) & (found["share"] <= found["high"])).all()
    assert "over seeds and examples" in found.attrs["method"]


def test_where_the_models_may_not_differ_any_share_would_do() -> None:
    data = planted()
    data["label_logprob"][:, :, 1] = data["label_logprob"][:, :, 4].values
    found = mediation(data, "off", "log_odds")
    assert np.isnan(found["share"]).all() and np.isfinite(found["total"]).all()
    assert (found["low"] == -np.inf).all() and (found["high"] == np.inf).all()
    assert told(found.attrs["method"], "no bounds")
    ax = plots.intervention_effects(found)
    assert np.isfinite([ax.get_xlim(), ax.get_ylim()]).all()
    ax.figure.canvas.draw()
    plt.close("all")


def test_that_some_predictions_stay_does_not_bound_a_share() -> None:
    data = planted()
    assert (data["prediction"] == data["gold"]).all()
    data["prediction"][:, ::2, 1] = "none"  # the base model loses half of the examples
    data["prediction"][:, ::3, 3] = "none"  # and layer 2 a third, but the others none
    found = mediation(data, "off").isel(condition=0)
    layer_3 = found.sel(intervention="off, layer 3")
    assert layer_3["share"] == 0 and np.isnan([layer_3["low"], layer_3["high"]]).all()
    layer_2 = found.sel(intervention="off, layer 2")
    assert layer_2["share"] == pytest.approx(14 / 20) and layer_2["low"] < 14 / 20 < layer_2["high"]


def test_a_share_leaves_out_what_either_difference_lacks() -> None:
    data = planted()
    true = (data["label"] == data["gold"]).values
    data["label_logprob"][1, :5, 2] = data["label_logprob"][1, :5, 2].where(~true.T[:5])  # one seed, layer 1
    found = mediation(data, "off", "log_odds").isel(condition=0)
    whole = mediation(planted(), "off", "log_odds").isel(condition=0)
    fewer = mediation(planted().isel(example=slice(5, None)), "off", "log_odds").isel(condition=0)
    for name in ("total", "part", "share", "low", "high"):
        expected = [fewer[name][0], whole[name][1], whole[name][2]]
        np.testing.assert_allclose(found[name], expected, rtol=1e-9, atol=1e-9)


def test_sets_stand_at_their_middle_or_at_the_end_that_moves() -> None:
    def placed(first: list[int], last: list[int]) -> tuple[str, list[float], list[str]]:
        sweep = sweep_of(xr.Dataset({}, {"first": ("change", first), "last": ("change", last)}))
        return sweep.axis, sweep.place.tolist(), sweep.lines

    assert placed([1, 2], [1, 2]) == ("changed layer", [1, 2], ["single layers"] * 2)
    windows = ["single layers", "single layers", "2 layers"]
    assert placed([1, 2, 1], [1, 2, 2]) == ("changed layers (middle)", [1, 2, 1.5], windows)
    assert placed([1, 1, 1], [1, 2, 3]) == ("changed up to layer", [1, 2, 3], ["growing sets"] * 3)
    assert placed([3, 2, 1], [3, 3, 3]) == ("changed from layer", [3, 2, 1], ["growing sets"] * 3)
    assert placed([2], [5]) == ("changed layers (middle)", [3.5], ["4 layers"])


def test_a_condition_has_the_changes_that_were_made_to_it() -> None:
    whole, fewer = planted(), planted().isel(intervention=[0, 1, 3])
    index = pd.MultiIndex.from_product([["label"], range(3)], names=["target", "seed"])
    fewer = fewer.drop_vars(["cell", "target", "seed"])
    fewer = fewer.assign_coords(xr.Coordinates.from_pandas_multiindex(index, "cell"))
    nodes = {"/summary": xr.Dataset(), "/intervene/a": whole, "/intervene/b": fewer}
    found = intervention_effects(xr.DataTree.from_dict(nodes), "off", "log_odds")
    assert list(of_condition(found, "target=both")["first"]) == [1, 2, 3]
    only = of_condition(found, "target=label")
    assert list(only["intervention"]) == ["off, layer 2"]
    np.testing.assert_allclose(only["effect"], [-1.5], atol=0.05)
    ax = plots.intervention_effects(found)
    drawn = [list(line.get_xdata()) for line in ax.lines if line.get_marker() == "None"]
    assert drawn[1:] == [[1, 2, 3], [2]]  # behind the line at 0
    plt.close("all")


def test_one_seed_is_said_and_coverage_is_not_claimed() -> None:
    found = intervention_effects(planted(seeds=1), "off", "log_odds")
    assert told(found.attrs["method"], "one seed", "not covered")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: intervention_effects(d, "of"), "no intervention 'of'"),
        (lambda d: intervention_effects(d, "off", "accuracy"), "no outcome 'accuracy'"),
        (lambda d: mediation(d, "heads"), r"heads.*no other model"),
        (lambda d: mediation(d, "off", "entropy"), "one of correct, log_odds, .*found entropy"),
    ],
)
def test_mistakes_are_named(call: Any, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        call(planted())


def test_the_figure_shows_the_effects() -> None:
    found = intervention_effects(planted(), "off", "log_odds")
    ax = plots.intervention_effects(found)
    lines = [line for line in ax.lines if len(line.get_xdata()) == 3]
    np.testing.assert_array_equal(lines[0].get_xdata(), [1, 2, 3])
    np.testing.assert_allclose(lines[0].get_ydata(), found["effect"][0])
    assert "log-odds" in ax.get_ylabel()
    plots.intervention_effects(mediation(planted(), "off", "log_odds"))
    plt.close("all")
