"""Statistics derived from stored ones: against plain arithmetic, and as outcomes of every analysis."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from commands import engine
from small_study import small_spec

import store
from specs.common.names import DERIVED_OUTCOMES
from store.analysis.nodes import variable

EXTRA = """
[probe]
statistics = ["entropy", "max_prob", "kl_final", "watch_mass", "renyi_2"]
positions = ["prompt_end", "completion_end"]
top_k = 3
layers = [0, 1, 3]

[analysis]
primary = "entropy_step"
smallest_difference_of_interest = { renyi_inf = 0.1, label_surprisal = 0.1 }

[[contrasts]]
factor = "target"
baseline = "label"
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rated_file: Path) -> xr.DataTree:
    folder = tmp_path_factory.mktemp("derived")
    engine("execute", small_spec(folder, tiny_model, rated_file, EXTRA))
    return store.open_store(folder / "store")["small"]


def probe_of(study: xr.DataTree) -> xr.Dataset:
    return study["probe"].to_dataset().ablation.indexed()


def test_derived_statistics_are_plain_arithmetic(study: xr.DataTree) -> None:
    probe = probe_of(study)
    entropy, top = probe["entropy"].values.astype(float), np.exp(probe["top_logprob"].values.astype(float))
    watched, gold = probe["watch_logprob"].values, probe["gold"].values
    own = [list(probe["watch"].values).index(label) for label in gold]
    q = top / top.sum(-1, keepdims=True)
    truth = {
        "renyi_inf": -np.log(top[..., 0]),
        "top_mass": top.sum(-1),
        "top_entropy": -(q * np.log(q)).sum(-1),
        "label_surprisal": -np.stack([watched[:, place, ..., label] for place, label in enumerate(own)], 1),
        "entropy_step": np.concatenate(
            [np.full_like(entropy[:, :, :1], np.nan), np.diff(entropy, axis=2)], 2
        ),
    }
    for name, values in truth.items():
        ours = variable(probe, name)
        assert ours.dims == ("cell", "example", "layer", "position") and ours.name == name
        assert not ours.variable._in_memory and ours.attrs["long_name"]
        np.testing.assert_allclose(ours.values, values, rtol=1e-6, atol=1e-6, err_msg=name)
    assert variable(probe, "top_mass").attrs["units"] == "1" != variable(probe, "entropy_step").attrs["units"]
    low, middle, high = (variable(probe, name) for name in ("renyi_inf", "renyi_2", "entropy"))
    assert (low - 1e-4 <= middle).all() and (middle <= high + 1e-4).all(), "entropies fall with their order"
    assert (middle <= 2 * low + 1e-4).all()


def test_parts_are_computed_of_what_is_read(study: xr.DataTree) -> None:
    probe = probe_of(study)
    whole = variable(probe, "renyi_inf_step")
    for chosen in (
        {"cell": 1}, {"layer": 2}, {"layer": [2, 0]}, {"cell": 0, "layer": slice(1, 3), "example": [3, 1]},
        {"position": 1, "cell": slice(1, 3)},
    ):  # fmt: skip
        np.testing.assert_array_equal(whole.isel(chosen).values, whole.load().isel(chosen).values)
        np.testing.assert_array_equal(
            variable(probe, "renyi_inf_step").isel(chosen).values, whole.isel(chosen).values
        )


def test_they_are_outcomes_like_any(study: xr.DataTree) -> None:
    tree = study.ablation.contrasts()
    assert {"entropy_step", "renyi_inf", "label_surprisal"} <= set(tree["target"].children)
    step = tree["target/entropy_step"].to_dataset()
    assert step["difference"].isel(layer=0).isnull().all() and step["p_value"].isel(layer=1).notnull().all()
    means = study.ablation.means("renyi_inf")
    assert (means["low"].fillna(0) >= 0).all() and "min-entropy" in means.attrs["method"]
    study.ablation.means("top_mass")
    with pytest.raises(store.StoreError, match="next_surprisal"):
        study.ablation.means("next_surprisal")


def test_the_next_tokens_surprisal_is_that_of_a_probe_of_next_tokens() -> None:
    values = np.log(np.array([[[[0.5], [0.25]], [[0.1], [np.nan]]]]))[
        None
    ]  # cell, example, layer, position, watch
    probe = xr.Dataset(
        {
            "watch_logprob": (("cell", "example", "layer", "position", "watch"), values),
            "next_id": (("cell", "example", "position"), np.ones((1, 1, 2), np.int32)),
        },
        {"watch": ["next"]},
    )
    ours = variable(probe, "next_surprisal")
    np.testing.assert_allclose(ours.values, -values[..., 0])
    np.testing.assert_allclose(
        variable(probe, "next_surprisal_step").values[:, :, 1], -np.diff(values[..., 0], axis=2)[:, :, 0]
    )


def test_a_plan_knows_what_can_be_derived(tmp_path: Path, tiny_model: Path, rated_file: Path) -> None:
    more = (
        EXTRA.replace("top_k = 3", "top_k = 0")
        + "[analysis.assumed.renyi_inf]\nseed = 0.1\nexample = 0.1\nrest = 0.1\n"
    )
    spec = small_spec(tmp_path, tiny_model, rated_file, more)
    assert "nat" in engine("power", spec, "--outcome", "renyi_inf").output
    told = engine("power", spec, "--outcome", "top_mass", code=2).output
    assert "do not measure it" in told
    assert "entropy_step" in DERIVED_OUTCOMES
