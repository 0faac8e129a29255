"""The section on wordings: its numbers are those of the analysis, where the spec varies the test prompt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from facts import told
from report_store import Design, write_synthetic

from store import open_store
from store.analysis import wordings
from store.report.collect import collect

TARGETS = ["label", "label+explanation"]


def test_numbers_are_those_of_the_analysis(tmp_path: Path) -> None:
    design = Design(
        {"target": TARGETS, "wording": ["a", "b", "c"]},
        paths={"wording": "evaluate.prompt.template"},
        contrasts=[{"factor": "target", "baseline": "label"}],
        probe=False,
        examples=30,
    )
    root = write_synthetic(tmp_path / "store", design)
    section = collect(root)["experiments"][0]["wordings"]
    json.dumps(section, allow_nan=False)
    study = open_store(root)["synthetic"]
    whole = wordings(study, "correct", "wording")
    assert section["factors"] == ["wording"] and len(section["conditions"]) == 2
    for row in section["conditions"]:
        of_level = whole.sel(level=row["level"])
        assert row["value"] == pytest.approx(float(of_level["mean"]), rel=1e-3)
        assert row["low"] <= row["value"] <= row["high"] and row["lowest"] in "abc"
    ((contrast,),) = [of_factor["rows"] for of_factor in section["contrasts"]]
    made = wordings(study, "correct", "wording", "target", "label").sel(level="label+explanation")
    assert contrast["value"] == pytest.approx(float(made["difference"]), rel=1e-3, abs=1e-9)
    assert contrast["p_adjusted"] == pytest.approx(float(made["p_adjusted"]), rel=1e-3)


def test_without_such_a_factor_it_says_what_would_make_one(tmp_path: Path) -> None:
    root = write_synthetic(tmp_path / "store", Design({"target": TARGETS}, probe=False, examples=4))
    section = collect(root)["experiments"][0]["wordings"]
    assert told(section["missing"], "evaluate.prompt")
