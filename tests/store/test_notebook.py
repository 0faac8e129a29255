"""In a notebook an experiment shows itself at a glance, and a result as a table with how it was made."""

from __future__ import annotations

import inspect
from pathlib import Path
from xml.etree import ElementTree

import pytest
import xarray as xr
from report_store import Design, write_synthetic

from store import open_store


def parsed(data: xr.Dataset | xr.DataTree) -> ElementTree.Element:
    shown = data.ablation._repr_html_()
    assert shown is not None
    return ElementTree.fromstring(shown)


def words(data: xr.Dataset | xr.DataTree) -> str:
    return " ".join("".join(parsed(data).itertext()).split())


def test_an_experiment_has_its_factors_and_a_line_for_each_condition(small_store: Path) -> None:
    tree = open_store(small_store)
    node = tree["small"]
    shown = words(node)
    assert "small: 4 of 4 cells complete" in shown and "label, label+explanation" in shown
    accuracy = node.ablation.means("correct").isel(level=0)
    mean, low, high = (float(accuracy[name]) for name in ("mean", "low", "high"))
    assert f"{mean:.1%} [{low:.1%}, {high:.1%}]" in shown
    lines = list(parsed(node).iter("svg"))
    assert len(lines) == 4  # two conditions at two positions
    entropy = node.ablation.means("entropy").isel(level=0).sel(position="prompt_end")["mean"].values
    assert lines[0].get("aria-label") == f"prompt_end: {entropy[0]:.2f} to {entropy[-1]:.2f} nat"
    assert words(tree) == shown  # a store shows its experiments


def test_a_result_is_a_table_with_units_and_method(small_store: Path) -> None:
    result = open_store(small_store)["small"].ablation.means("entropy")
    shown = words(result)
    assert "mean (nat)" in shown and shown.endswith(result.attrs["method"])
    rows = list(next(parsed(result).iter("tbody")))
    assert len(rows) == result["mean"].size
    assert open_store(small_store)["small/evaluate"].to_dataset().ablation._repr_html_() is None


@pytest.mark.parametrize("probe", [True, False])
def test_what_was_not_recorded_is_left_out(tmp_path: Path, probe: bool) -> None:
    """And text of levels is no markup."""
    design = Design({"target": ["<i>a", "b"]}, probe=probe, examples=6, layers=5, steps=3)
    node = open_store(write_synthetic(tmp_path, design))["synthetic"]
    assert "<i>a" in words(node) and "<i>a" not in node.ablation._repr_html_()
    assert len(list(parsed(node).iter("svg"))) == (4 if probe else 0)


def test_help_on_an_analysis_asks_for_no_data(small_store: Path) -> None:
    """And completion shows it as a function."""
    analysis = open_store(small_store)["small"].ablation.means
    assert inspect.ismethod(analysis) and analysis.__name__ == "means"
    assert next(iter(inspect.signature(analysis).parameters)) == "name"
    assert (analysis.__doc__ or "").startswith("Return")


def test_a_large_result_shows_its_first_rows(small_store: Path) -> None:
    result = open_store(small_store)["small"].ablation.contrast("entropy", "target", "label")
    assert result["difference"].size > 40
    shown = words(result)
    assert "the first" in shown and len(list(next(parsed(result).iter("tbody")))) <= 40
