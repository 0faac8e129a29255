"""Along a training: steps are levels, and an onset is found where one was planted, and seldom elsewhere."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from store import StoreError
from store.analysis import along, change, means, onset

STEPS = [0.0, 0.1, 0.5, 1.0]
Drawn = np.random.Generator


def drawn(rng: Drawn, accuracy: list[float], entropy: list[float], seeds: int = 4) -> xr.Dataset:
    """A node `along` of trainings by seed: accuracies by step, and the mean change of entropy in two layers.

    Examples differ, trainings differ, and examples react to each training.
    """
    examples, groups = 60, np.repeat(np.arange(30), 2)
    ease = rng.normal(0, 0.1, 30)[groups]
    chance = np.clip(np.array(accuracy)[:, None] + ease, 0, 1)
    right = rng.uniform(size=(seeds, len(STEPS), examples)) < chance
    layers = np.array([0.0, 1.0])  # the embedding never changes
    shape = (seeds, len(STEPS), examples, 2)
    of_training = rng.normal(0, 0.02, (seeds, len(STEPS), 1, 2))
    values = 2 + ease[:, None] + np.array(entropy)[:, None, None] * layers + of_training
    values = values + rng.normal(0, 0.1, shape)
    index = pd.MultiIndex.from_arrays([["label"] * seeds, list(range(seeds))], names=["target", "seed"])
    return xr.Dataset(
        {
            "prediction": (("cell", "step", "example"), np.where(right, "1", "2").astype(object)),
            "entropy": (("cell", "step", "example", "layer"), values, {"units": "nat"}),
        },
        {
            "step": STEPS,
            "layer": [0, 1],
            "example": [f"e{number}" for number in range(examples)],
            "gold": ("example", np.full(examples, "1", object)),
            "group": ("example", groups),
        },
    ).assign_coords(xr.Coordinates.from_pandas_multiindex(index, "cell"))


def test_steps_are_levels_with_their_own_values() -> None:
    node = drawn(np.random.default_rng(0), [0.2, 0.4, 0.6, 0.8], [0, 0.1, 0.2, 0.3])
    steps = along(node)
    assert steps.indexes["cell"].names == ["target", "step", "seed"] and steps.sizes["cell"] == 16
    for step in STEPS:
        ours, theirs = steps["entropy"].sel(step=step), node["entropy"].sel(step=step)
        np.testing.assert_array_equal(ours.values, theirs.values)
    accuracy = means(steps, "correct", "step")
    right = (node["prediction"] == node["gold"]).mean(["cell", "example"])
    np.testing.assert_allclose(accuracy["mean"].values, right.values)
    difference = change(steps, "entropy", "step")["difference"]
    expected = (node["entropy"] - node["entropy"].sel(step=0)).mean(["cell", "example"])
    np.testing.assert_allclose(difference.values, expected.sel(step=STEPS[1:]).values)
    xr.testing.assert_identical(along(steps), steps)


def test_an_onset_is_found_where_it_was_planted() -> None:
    """Entropy moves from step 0.1 on, and in the last layer alone; accuracy from step 0.5 on."""
    node = drawn(np.random.default_rng(1), [0.3, 0.3, 0.9, 0.9], [0, 1.0, 1.0, 2.0])
    assert onset(node, "correct")["onset"].item() == 0.5
    entropy = onset(node, "entropy")
    np.testing.assert_array_equal(entropy["onset"].values, [np.nan, 0.1])
    np.testing.assert_allclose(entropy["share"].sel(layer=1).values, [0.5, 0.5, 1], atol=0.05)
    assert "onset" in entropy.attrs["method"]


def test_what_does_not_last_is_no_onset() -> None:
    node = drawn(np.random.default_rng(2), [0.3] * 4, [0, 1.0, 0, 1.0])
    np.testing.assert_array_equal(onset(node, "entropy")["onset"].values, [np.nan, 1.0])


@pytest.mark.parametrize("variable", ["correct", "entropy"])
def test_without_any_change_an_onset_is_seldom_found(variable: str) -> None:
    rng, studies = np.random.default_rng(3), 200
    found = sum(
        bool(onset(drawn(rng, [0.5] * 4, [0.0] * 4), variable)["onset"].notnull().any())
        for _ in range(studies)
    )
    assert found <= 0.05 * studies + 3 * np.sqrt(0.05 * 0.95 * studies)


def test_a_study_without_steps_is_told() -> None:
    with pytest.raises(StoreError, match="along"):
        along(
            xr.DataTree.from_dict({"/summary": xr.Dataset({"x": ("cell", [1.0])}, {"seed": ("cell", [0])})})
        )
