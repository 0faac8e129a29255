"""Means and differences over wordings: components, intervals and error rates, by simulation and by hand."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from analysis_data import at_most, cells
from facts import facts, told
from hypothesis import given, settings
from hypothesis import strategies as st

from store import StoreError
from store.analysis import change, means, wordings

LEVELS = ["label", "both"]


def study(values: np.ndarray, dims: tuple[str, ...] = ("example",)) -> xr.Dataset:
    """Values [target, wording, seed, example, …] as probe data of `entropy`."""
    names = [f"w{number}" for number in range(values.shape[1])]
    return cells(values, "entropy", {"target": LEVELS[: len(values)], "wording": names}, dims)


def drawn(
    rng: np.random.Generator, kind: str, sizes: tuple[int, int, int], sd: tuple[float, ...]
) -> np.ndarray:
    """Differences [wording, seed, example] of mean 0: wordings, seeds, examples, interplay, rest by `sd`."""
    wordings_, seeds, examples = sizes
    own = {
        "normal": lambda: rng.normal(size=wordings_),
        "heavy": lambda: rng.standard_t(3, size=wordings_) / np.sqrt(3),
        "unequal": lambda: rng.normal(size=wordings_) * np.exp(rng.normal(size=wordings_)),
    }[kind]()
    scale = np.exp(rng.normal(size=(wordings_, 1, 1))) if kind == "unequal" else 1.0
    return (
        sd[0] * own[:, None, None]
        + sd[1] * rng.normal(size=(1, seeds, 1))
        + sd[2] * rng.normal(size=(1, 1, examples))
        + scale * sd[3] * rng.normal(size=(wordings_, seeds, 1))
        + scale * sd[4] * rng.normal(size=(wordings_, 1, examples))
        + scale * rng.normal(size=(wordings_, seeds, examples))
    )


SCENES = {
    "wordings dominate": (1.0, 0.1, 1.0, 0.1, 0.3),
    "seeds as much": (1.0, 1.0, 1.0, 0.3, 0.3),
    "examples, too": (0.2, 0.2, 1.0, 0.1, 0.5),
    "interplay alone": (0.0, 0.0, 0.0, 1.0, 0.0),
}


@pytest.mark.parametrize("kind", ["normal", "heavy", "unequal"])
@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize(("count", "seeds"), [(3, 5), (5, 3), (10, 2)])
def test_no_more_than_one_in_twenty_nulls_is_rejected(kind: str, scene: str, count: int, seeds: int) -> None:
    rng = np.random.default_rng([count, seeds, list(SCENES).index(scene)])
    rejected = []
    for _ in range(20):
        # Many studies at once, as outcomes beside each other: each is estimated by itself.
        x = np.stack([drawn(rng, kind, (count, seeds, 20), SCENES[scene]) for _ in range(10)], axis=-1)
        data = study(np.stack([np.zeros_like(x), x]), ("example", "position"))
        result = wordings(data, "entropy", "wording", "target", "label")
        rejected += (result["p_value"].values.ravel() < 0.05).tolist()
    assert at_most(rejected, 0.05, 0.01)


def test_an_interval_over_these_wordings_alone_would_reject_far_more() -> None:
    rng, rejected = np.random.default_rng(5), []
    for _ in range(20):
        x = np.stack([drawn(rng, "normal", (3, 5, 20), SCENES["wordings dominate"]) for _ in range(10)], -1)
        data = study(np.stack([np.zeros_like(x), x]), ("example", "position"))
        rejected += (change(data, "entropy", "target", "label")["p_value"].values.ravel() < 0.05).tolist()
    assert np.mean(rejected) > 0.3


def test_components_are_what_was_drawn() -> None:
    """Unbiased but for the cut at 0, whatever seeds, examples and their interplay add."""
    rng = np.random.default_rng(0)
    x = np.stack([drawn(rng, "normal", (6, 4, 30), (0.8, 1.0, 1.0, 0.5, 0.7)) for _ in range(300)], axis=-1)
    result = wordings(study(x[None], ("example", "position")), "entropy", "wording")
    assert (result["wording_sd"].values ** 2).mean() == pytest.approx(0.64, rel=0.12)
    none = np.stack([drawn(rng, "normal", (6, 4, 30), (0, 1.0, 1.0, 0.5, 0.7)) for _ in range(300)], axis=-1)
    result = wordings(study(none[None], ("example", "position")), "entropy", "wording")
    assert (result["wording_sd"].values ** 2).mean() < 0.08


@pytest.mark.parametrize("seeds", [1, 3])
def test_means_and_spread_by_hand(seeds: int) -> None:
    x = np.random.default_rng(1).normal(size=(2, 4, seeds, 12)) + np.arange(4)[None, :, None, None]
    data = study(x)
    result = wordings(data, "entropy", "wording")
    by_wording = x.mean(axis=(2, 3))
    np.testing.assert_allclose(result["mean"], x.mean(axis=(1, 2, 3)))
    np.testing.assert_allclose(result["spread"], np.ptp(by_wording, axis=1))
    assert result["lowest"].values.tolist() == ["w0", "w0"] and set(result["highest"].values) == {"w3"}
    assert list(result["level"].values) == ["target=label", "target=both"]
    differences = wordings(data, "entropy", "wording", "target", "label")
    np.testing.assert_allclose(differences["difference"], (x[1] - x[0]).mean())
    np.testing.assert_allclose(differences["spread"], np.ptp((x[1] - x[0]).mean(axis=(1, 2))))
    fixed = means(data, "entropy", "target")
    assert (result["high"] - result["low"] >= (fixed["high"] - fixed["low"]).values).all()
    said = result.attrs["method"]
    assert ("one seed" in said) == (seeds == 1) and "4 wordings" in said


def test_two_factors_of_wordings_cross() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2, 3, 2, 3, 10))  # target, template, order, seed, example
    data = cells(x, "entropy", {"target": LEVELS, "template": ["a", "b", "c"], "order": [0, 1]}, ("example",))
    result = wordings(data, "entropy", ["template", "order"], "target", "label")
    np.testing.assert_allclose(result["difference"], (x[1] - x[0]).mean())
    assert "6 wordings (template, order)" in result.attrs["method"]
    assert str(result["lowest"].values[0]).startswith("template=")


def test_shares_stay_between_0_and_1_and_p_is_the_interval_turned_round() -> None:
    rng = np.random.default_rng(3)
    right = (rng.random((2, 3, 3, 40)) < np.array([0.9, 0.97])[:, None, None, None]).astype(float)
    data = cells(right, "correct", {"target": LEVELS, "wording": ["a", "b", "c"]}, ("example",))
    node = data.rename_vars(correct="correct")
    result = wordings(node, "correct", "wording")
    assert (result["low"] >= 0).all() and (result["high"] <= 1).all()
    for confidence in (0.5, 0.9):
        found = wordings(node, "correct", "wording", "target", "label", confidence=confidence)
        excluded = (found["low"] > 0) | (found["high"] < 0)
        assert (excluded == (found["p_value"] < 1 - confidence)).all()


def test_seeds_that_lack_a_wording_are_left_out() -> None:
    x = np.random.default_rng(4).normal(size=(2, 3, 4, 10))
    x[:, 1, 2] = np.nan
    result = wordings(study(x), "entropy", "wording", "target", "label")
    kept = [0, 1, 3]
    np.testing.assert_allclose(result["difference"], (x[1] - x[0])[:, kept].mean())
    assert int(result["seeds"].item()) == 3


def test_incomplete_levels_are_left_out_and_named() -> None:
    def whole(values: np.ndarray) -> xr.Dataset:
        targets = {"target": ["label", "before", "both"], "wording": ["a", "b", "c"]}
        return cells(values, "entropy", targets, ("example",))

    x = np.random.default_rng(4).random((3, 3, 2, 10))
    one_wording, no_seed = x.copy(), x.copy()
    one_wording[1, 1:] = np.nan
    no_seed[1, 0, 0] = no_seed[1, 1, 1] = np.nan
    expected = wordings(whole(x), "entropy", "wording")
    assert "left out" not in expected.attrs["method"]
    for values in (one_wording, no_seed):
        data = whole(values)
        for part in (data, data.isel(cell=np.isfinite(data["entropy"].values).any(axis=1))):
            conditions = wordings(part, "entropy", "wording")
            xr.testing.assert_allclose(conditions, expected.isel(level=[0, 2]))
            assert told(conditions.attrs["method"], "3 wordings", "left out", "target=before.")
            differences = wordings(part, "entropy", "wording", "target", "label")
            assert differences["level"].values.tolist() == ["both"]
            assert told(differences.attrs["method"], "left out", "before.")


def test_a_level_of_fewer_wordings_is_counted_as_such() -> None:
    x = np.random.default_rng(4).random((2, 3, 2, 10))
    x[1, 2] = np.nan
    result = wordings(study(x), "entropy", "wording")
    np.testing.assert_allclose(result["mean"], [x[0].mean(), x[1, :2].mean()])
    assert told(result.attrs["method"], "2 to 3 wordings")


def test_mistakes_are_told() -> None:
    data = study(np.random.default_rng(0).normal(size=(2, 3, 2, 10)))
    with pytest.raises(StoreError, match=facts("'wordin'", "wording")):
        wordings(data, "entropy", "wordin")
    with pytest.raises(StoreError, match=facts("random", "'seed'", "no wording")):
        wordings(data, "entropy", "seed")
    with pytest.raises(StoreError, match=facts("wording", "two", "1")):
        wordings(data.isel(cell=data["wording"].values == "w0"), "entropy", "wording")
    index = pd.MultiIndex.from_tuples(
        [(target, f"w{place}", seed) for place, target in enumerate(LEVELS) for seed in range(2)],
        names=["target", "wording", "seed"],
    )
    zipped: Any = xr.Dataset({"entropy": (("cell", "example"), np.random.default_rng(0).normal(size=(4, 5)))})
    zipped = zipped.assign_coords(xr.Coordinates.from_pandas_multiindex(index, "cell"))
    with pytest.raises(StoreError, match=facts("wording", "moves with target")):
        wordings(zipped, "entropy", "wording", "target", "label")


def exact_component(x: np.ndarray) -> Fraction:
    """The variance between wordings of whole numbers [wording, seed, example], by rational arithmetic.

    By the mean squares of a design of three crossed factors (Searle, Casella & McCulloch, 1992, chapter 4).
    """
    sizes, whole = x.shape, np.vectorize(Fraction)(x)

    def effect(*kept: int) -> Any:
        """Deviations of the means over all other axes, lower effects taken out."""
        mean = whole
        for axis in {0, 1, 2} - {*kept}:
            mean = mean.sum(axis=axis, keepdims=True) / Fraction(sizes[axis])
        lower = [other for number in range(len(kept)) for other in combinations(kept, number)]
        return mean - sum(effect(*other) for other in lower)

    def square(*kept: int) -> Fraction:
        others = np.prod([sizes[axis] for axis in {0, 1, 2} - {*kept}], dtype=int)
        df = np.prod([sizes[axis] - 1 for axis in kept], dtype=int)
        return Fraction(int(others)) * (effect(*kept) ** 2).sum() / Fraction(int(df))

    if sizes[1] == 1:
        return (square(0) - square(0, 2)) / sizes[2]
    return (square(0) - square(0, 1) - square(0, 2) + square(0, 1, 2)) / (sizes[1] * sizes[2])


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_variance_at_its_bound_is_0_and_said(data: st.DataObject) -> None:
    """Equal mean squares are equal however they are rounded: an example that one wording changes, say."""
    shape = tuple(data.draw(st.integers(low, high)) for low, high in ((2, 4), (1, 3), (4, 13)))
    x = np.zeros(shape)
    for _ in range(data.draw(st.integers(0, 3))):
        wording, example = (data.draw(st.integers(0, shape[axis] - 1)) for axis in (0, 2))
        x[wording, :, example] = 1
    if data.draw(st.booleans()):
        x = np.array(data.draw(st.lists(st.integers(0, 1), min_size=x.size, max_size=x.size))).reshape(shape)
    result = wordings(study(1.0 - x[None]), "entropy", "wording")
    expected = exact_component(x.astype(int))
    found = result["wording_sd"].item()
    assert (found == 0) == (expected <= 0)
    assert found**2 == pytest.approx(max(float(expected), 0.0), rel=1e-9)
    assert ("at its bound, 0, for target=label" in result.attrs["method"]) == (found == 0)
