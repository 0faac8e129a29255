"""Cells of which some have more variables than others compare in what they have in common."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from commands import engine
from facts import facts
from small_study import small_spec

import store
from store import StoreError
from store.analysis import change, contrasts, mcnemar, means
from store.report.collect import collect


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rated_file: Path) -> xr.DataTree:
    """Labels alone, whose cells generate nothing, and explanations before the label, which are written."""
    folder = tmp_path_factory.mktemp("mixed")
    more = '[target]\nplacement = "before"\n[probe]\nenabled = false\n'
    engine("execute", small_spec(folder, tiny_model, rated_file, more))
    return store.open_store(folder / "store")["small"]


def test_what_all_cells_have_is_compared(study: xr.DataTree) -> None:
    assert len(study["evaluate"].children) == 2  # two shapes on disk
    right = {
        str(part["target"].values[0]): (part["prediction"] == part["gold"])
        .transpose("cell", "example")
        .values
        for part in (node.to_dataset() for node in study["evaluate"].children.values())
    }
    result = change(study, "correct", "target", "label")
    expected = right["label+explanation"].mean() - right["label"].mean()
    np.testing.assert_allclose(result["difference"].values, [expected])
    assert contrasts(study)["target/correct"]["difference"].values == pytest.approx(expected)
    assert list(means(study, "correct", "target")["level"].values) == ["label", "label+explanation"]
    assert mcnemar(study, "target", "label")["gained"].shape == (1, 2)


def test_what_only_some_have_is_told_of_these(study: xr.DataTree) -> None:
    assert list(means(study, "generated_correct", "target")["level"].values) == ["label+explanation"]
    with pytest.raises(StoreError, match=facts("target", "label")):
        change(study, "generated_correct", "target", "label")
    with pytest.raises(StoreError, match=facts("no variable", "'corect'", "correct")):
        means(study, "corect", stage="evaluate")


def test_the_report_compares_them(study: xr.DataTree, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = next(tmp_path_factory.getbasetemp().glob("mixed*")) / "store"
    (row,) = collect(root)["experiments"][0]["contrasts"]["rows"]
    assert set(row["outcomes"]) >= {"correct", "nll", "brier"} and "generated_correct" not in row["outcomes"]
