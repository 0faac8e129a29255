"""Contrasts of a spec, and the families over which their p values are corrected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from analysis_data import at_most, crossed, probe
from facts import facts, told
from report_store import Design, write_synthetic

from benchmarks.families import family_wise
from store import StoreError, open_store
from store.analysis import change, contrasts, sign_flip
from store.analysis.multiplicity import adjust

TARGETS = ["label", "explained", "shuffled"]
DECLARED = [{"factor": "target", "baseline": "label"}, {"factor": "rank", "baseline": 8}]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    design = Design(
        {"target": TARGETS, "rank": [8, 16]}, contrasts=DECLARED, examples=10, layers=4, seeds=(0, 1, 2)
    )
    root = write_synthetic(tmp_path_factory.mktemp("contrasts") / "store", design)
    return open_store(root)["synthetic"]


def test_a_call_is_one_family_of_all_its_tests() -> None:
    data = probe(crossed(np.random.default_rng(0), (3, 3, 20, 6, 2)), ["a", "b", "c"])
    data = data.isel(layer=[0, 1, 2, 3, 4, 5])
    whole = change(data, "entropy", "target")
    few = change(data, "entropy", "target", family="layers")
    assert told(whole.attrs["method"], "Holm", "2 levels, 6 layers and 2 positions", "target")
    words = "Holm's correction over the 6 layers of target, for each level and position (v"
    assert words in few.attrs["method"]
    assert words[:-3] in few["p_adjusted"].attrs["long_name"]
    assert (whole["p_adjusted"] >= few["p_adjusted"]).all() and (whole["p_value"] == few["p_value"]).all()
    # Bonferroni's bounds over 24 tests hold all that those over 6 hold.
    assert (whole["simultaneous_low"] <= few["simultaneous_low"]).all()
    one = data.isel(layer=0, position=0).drop_vars(["layer", "position"])
    single = change(one.isel(cell=slice(0, 6)), "entropy", "target")
    assert told(single.attrs["method"], "single test")
    flips = sign_flip(data, "entropy", "target", permutations=99)
    plain = flips["p_value"].values
    np.testing.assert_allclose(flips["p_adjusted"].values, adjust(plain.ravel(), 0).reshape(plain.shape))
    with pytest.raises(StoreError, match=facts("'spec'", "contrast, layers")):
        change(data, "entropy", "target", family="spec")


def test_a_spec_s_family_reaches_over_contrasts_and_outcomes(node: xr.DataTree) -> None:
    own = contrasts(node)
    assert [child.path for child in own.subtree if child.has_data] == [
        f"/{factor}/{outcome}"
        for factor in ("target", "rank")
        for outcome in ("correct", "generated_correct", "absolute_error", "brier", "nll", "entropy")
    ]
    xr.testing.assert_identical(
        own["target/entropy"].to_dataset(), change(node, "entropy", "target", "label")
    )
    outcome = contrasts(node, {"family": "outcome"})
    spec = contrasts(node, {"family": "spec"})
    assert told(outcome["rank/entropy"].attrs["method"], "24 tests", "2 contrasts", "entropy")
    assert told(spec["rank/correct"].attrs["method"], "39 tests", "2 contrasts", "6 outcomes")
    for path in ("target/entropy", "rank/entropy", "target/correct", "rank/correct"):
        narrow, wide, widest = (found[path] for found in (own, outcome, spec))
        assert (narrow["p_adjusted"] <= wide["p_adjusted"]).all()
        assert (wide["p_adjusted"] <= widest["p_adjusted"]).all()
        assert (widest["simultaneous_high"] >= wide["simultaneous_high"]).all()
        assert (narrow["low"] == widest["low"]).all()
    # Without layers nothing is shared, so this is Holm's of the plain p values.
    pooled = [outcome[f"{name}/correct"] for name in ("target", "rank")]
    p = np.concatenate([found["p_value"].values for found in pooled])
    adjusted = np.concatenate([found["p_adjusted"].values for found in pooled])
    np.testing.assert_allclose(adjusted, adjust(p, 0))
    with pytest.raises(StoreError, match=facts("'all'", "contrast, outcome, spec")):
        contrasts(node, {"family": "all"})


def test_levels_that_are_declared_apart_are_one_contrast(tmp_path: Path) -> None:
    """Against one baseline they are one family, and no level is lost; against another they are another."""
    apart = [
        {"factor": "target", "baseline": "label", "levels": ["shuffled"]},
        {"factor": "target", "baseline": "label", "levels": ["explained"]},
        {"factor": "target", "baseline": "explained", "levels": ["shuffled"]},
    ]
    made = {}
    for name, declared in (("apart", apart), ("together", DECLARED[:1] + apart[2:])):
        design = Design({"target": TARGETS}, contrasts=declared, examples=10, layers=4, seeds=(0, 1, 2))
        made[name] = contrasts(open_store(write_synthetic(tmp_path / name, design))["synthetic"])
    assert [*made["apart"].children] == ["target against label", "target against explained"]
    for path in ("target against label/correct", "target against explained/entropy"):
        xr.testing.assert_identical(made["apart"][path].to_dataset(), made["together"][path].to_dataset())


def test_a_primary_outcome_is_one_of_the_outcomes(node: xr.DataTree) -> None:
    found = contrasts(node, {"primary": "kl_final"})
    assert found["target/kl_final"]["difference"].attrs["units"] == "nat"


@pytest.mark.parametrize("seeds", [2, 3, 10])
@pytest.mark.parametrize("kind", ["one effect of a seed in all layers", "8 groups of examples"])
def test_nothing_is_found_in_a_whole_study_where_nothing_changes(kind: str, seeds: int) -> None:
    contrast, spec = family_wise(kind, seeds, 40)
    assert at_most(np.arange(40) < 40 * contrast, 0.06) and at_most(np.arange(40) < 40 * spec, 0.06)
