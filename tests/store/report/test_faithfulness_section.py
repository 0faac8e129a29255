"""The section on counterfactual explanations: its numbers are those of the analysis, where there are any."""

from __future__ import annotations

from pathlib import Path

import pytest
from facts import told
from report_store import Design, write_synthetic

from store import open_store
from store.analysis import counterfactual_effects
from store.report.collect import collect

TARGETS = ["label", "label+explanation"]


def test_changes_are_those_of_the_analysis(tmp_path: Path) -> None:
    design = Design(
        {"target": TARGETS}, counterfactuals=["reference", "contradicting"], probe=False, examples=30
    )
    root = write_synthetic(tmp_path / "store", design)
    section = collect(root)["experiments"][0]["faithfulness"]
    assert [measure["name"] for measure in section["measures"]] == [
        "flipped",
        "followed",
        "log_odds",
        "correct",
    ]
    for measure in section["measures"]:
        effects = counterfactual_effects(open_store(root)["synthetic"], measure["name"])
        assert len(measure["rows"]) == 4
        for condition, kind, value, low, high, *_ in measure["rows"]:
            own = effects.sel(condition=f"target={TARGETS[condition]}", counterfactual=kind)
            assert value == pytest.approx(float(own["effect"]), rel=1e-3, abs=1e-9)
            assert low == pytest.approx(float(own["low"]), rel=1e-3) and low <= value <= high


def test_a_store_without_any_says_what_asks_for_them(tmp_path: Path) -> None:
    root = write_synthetic(tmp_path / "store", Design({"target": TARGETS}, probe=False, examples=4))
    section = collect(root)["experiments"][0]["faithfulness"]
    assert told(section["missing"], "evaluate.counterfactuals")
