"""Grids of effects: every cell is the effect of its change, and what is drawn stands where it belongs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from facts import told
from matplotlib import pyplot as plt

from store import StoreError, plots
from store.analysis import intervention_effects, mediation, patching_grid

LABELS = ["1", "2", "3"]
LAYERS, POSITIONS = (2, 4, 5), ("prompt_end", "-2", "explanation")
WHOLE = ["none", "all of own, another label"]
GRID = [f"grid, layer {layer}, {position}" for layer in LAYERS for position in POSITIONS]
PATHS = ["paths, layer 2 to mlp 4", "paths, layer 2 to final", "paths, layer 5 to final"]
SEEDS, EXAMPLES = 3, 30


def measured(conditions: tuple[str, ...] = ("label",)) -> xr.Dataset:
    """Scores at random: true labels lose more, the label taken from gains, the more layers are above."""
    rng = np.random.default_rng(0)
    names = [*WHOLE, *GRID, *PATHS]
    cells = len(conditions) * SEEDS
    gold = rng.integers(0, 3, EXAMPLES)
    other = (gold + rng.integers(1, 3, EXAMPLES)) % 3
    other[0] = gold[0]  # of one label
    scores = rng.normal(size=(cells, EXAMPLES, 1, 3)) + 0.1 * rng.normal(
        size=(cells, EXAMPLES, len(names), 3)
    )
    moved = np.array([0, 2.0, *np.linspace(0.1, 1.5, len(GRID)), 0.3, 0.6, 0.0])
    scores += moved[:, None] * (np.eye(3)[other] - np.eye(3)[gold])[:, None]
    scores[:, 3, 4] = np.nan  # an example without such a token
    scores -= np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    prediction = np.array(LABELS, object)[np.nan_to_num(scores, nan=-9).argmax(axis=-1)]
    prediction[:, 3, 4] = ""
    dims = ("cell", "example", "intervention")
    changed = [0, 0, *(layer for layer in LAYERS for _ in POSITIONS), 2, 2, 5]
    index = pd.MultiIndex.from_product([conditions, range(SEEDS)], names=["target", "seed"])
    label_of = np.array(LABELS, object)
    others = np.full((cells, EXAMPLES, len(names)), "", object)
    others[:, :, 1 : 2 + len(GRID)] = label_of[other][:, None]
    dataset = xr.Dataset(
        {
            "label_logprob": ((*dims, "label"), scores),
            "prediction": (dims, prediction),
            "entropy": ((*dims, "layer"), rng.random((cells, EXAMPLES, len(names), 6))),
            "other_label": (dims, others),
        },
        {
            "example": [f"e{i}" for i in range(EXAMPLES)],
            "gold": ("example", label_of[gold]),
            "group": ("example", np.arange(EXAMPLES) // 2),
            "intervention": names,
            "entry": ("intervention", ["none", "source", *["grid"] * len(GRID), *["paths"] * 3]),
            "first": ("intervention", changed),
            "last": ("intervention", changed),
            "source": ("intervention", ["", *["own, another label"] * (1 + len(GRID)), *[""] * 3]),
            "head": ("intervention", [-1] * len(names)),
            "position": ("intervention", ["", "", *(p for _ in LAYERS for p in POSITIONS), *[""] * 3]),
            "receiver": ("intervention", [""] * (2 + len(GRID)) + ["mlp 4", "final", "final"]),
            "label": LABELS,
            "layer": range(6),
        },
    )
    return dataset.assign_coords(xr.Coordinates.from_pandas_multiindex(index, "cell"))


@pytest.mark.parametrize("outcome", ["correct", "log_odds", "probability", "logit_difference"])
def test_a_grid_holds_each_changes_effect_at_its_layer_and_position(outcome: str) -> None:
    data = measured()
    found = patching_grid(data, "grid", outcome).sel(condition="target=label")
    assert found["effect"].dims == ("layer", "position")
    assert found["layer"].values.tolist() == list(LAYERS)
    assert found["position"].values.tolist() == list(POSITIONS)
    flat = intervention_effects(data, "grid", outcome).sel(condition="target=label")
    shares = mediation(data, "grid", outcome).sel(condition="target=label")
    for layer in LAYERS:
        for position in POSITIONS:
            name, own = f"grid, layer {layer}, {position}", found.sel(layer=layer, position=position)
            for variable in ("effect", "low", "high", "p_adjusted", "examples", "missing"):
                np.testing.assert_equal(own[variable].item(), flat[variable].sel(intervention=name).item())
            for variable, other in (("share", "share"), ("share_low", "low"), ("share_high", "high")):
                np.testing.assert_equal(own[variable].item(), shares[other].sel(intervention=name).item())
    assert told(found.attrs["method"], "9 changes") and told(found.attrs["method"], "Fieller's")
    assert found["effect"].attrs["long_name"].startswith("change in")


def expected(data: xr.Dataset, outcome: str) -> np.ndarray:
    """An outcome in float64, from its definition: [cell, example, intervention]."""
    scores = data["label_logprob"].values
    gold = [LABELS.index(label) for label in data["gold"].values]
    other = [LABELS.index(label) for label in data["other_label"].values[0, :, 2]]
    probability = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    values = np.full(scores.shape[:-1], np.nan)
    for example, (true, taken) in enumerate(zip(gold, other, strict=True)):
        if outcome == "probability":
            values[:, example] = probability[:, example, :, true]
        elif outcome == "logit_difference" and true != taken:
            values[:, example] = scores[:, example, :, true] - scores[:, example, :, taken]
    return values


@pytest.mark.parametrize("outcome", ["probability", "logit_difference"])
def test_outcomes_of_answers_are_what_they_are_defined_as(outcome: str) -> None:
    data = measured()
    values = expected(data, outcome)
    change = values[:, :, 2:-3] - values[:, :, [0]]
    found = intervention_effects(data, "grid", outcome).sel(condition="target=label")
    lacking = int(outcome == "logit_difference")  # the example whose pair has its own label
    assert found["missing"].values.tolist() == [lacking, lacking, 1 + lacking, *[lacking] * 6]
    # Means over groups of the examples that have a value, weighted by their sizes, are those over examples.
    np.testing.assert_allclose(found["effect"], np.nanmean(change, axis=(0, 1)), rtol=1e-12)
    total = values[:, :, [0]] - values[:, :, [1]]
    known = np.isfinite(change) & np.isfinite(total)
    share = np.where(known, -change, np.nan), np.where(known, np.broadcast_to(total, change.shape), np.nan)
    normalised = np.nanmean(share[0], axis=(0, 1)) / np.nanmean(share[1], axis=(0, 1))
    shares = mediation(data, "grid", outcome).sel(condition="target=label")
    np.testing.assert_allclose(shares["share"], normalised, rtol=1e-12)
    units = {"probability": "1", "logit_difference": "nat"}[outcome]
    assert found["effect"].attrs["units"] == units


def test_an_example_without_the_position_is_missing_and_not_wrong() -> None:
    found = intervention_effects(measured(), "grid", "correct").sel(condition="target=label")
    assert found["missing"].values.tolist() == [0, 0, 1, *[0] * 6]


def test_paths_are_set_out_by_what_reads_at_their_end() -> None:
    found = patching_grid(measured(), "paths", "log_odds").isel(condition=0)
    assert found["effect"].dims == ("layer", "receiver")
    assert found["receiver"].values.tolist() == ["mlp 4", "final"] and found["layer"].values.tolist() == [
        2,
        5,
    ]
    assert np.isnan(found["effect"].sel(layer=5, receiver="mlp 4")) and "share" not in found
    assert np.isfinite(found["effect"].values).sum() == 3


def test_the_figure_shows_the_grid_from_the_lowest_layer_up() -> None:
    found = patching_grid(measured(), "grid", "log_odds")
    ax = plots.patching_grid(found)
    (drawn,) = ax.images
    np.testing.assert_allclose(np.asarray(drawn.get_array()), found["effect"].isel(condition=0).values[::-1])
    assert [label.get_text() for label in ax.get_xticklabels()] == list(POSITIONS)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["5", "4", "2"]
    assert drawn.norm.vmin == -drawn.norm.vmax
    plt.close("all")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: patching_grid(d, "grid", "entropy"), "one number for each change"),
        (lambda d: patching_grid(d, "gird"), "no intervention 'gird'"),
        (lambda d: patching_grid(d, "grid", width=3), "no changes of 3 layers; expected width = one of 1"),
        (lambda d: patching_grid(d.drop_vars("position"), "grid"), "several changes at one place"),
        (lambda d: intervention_effects(d, "paths", "logit_difference"), "takes from no other example"),
    ],
)
def test_mistakes_are_named(call: Any, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        call(measured())
