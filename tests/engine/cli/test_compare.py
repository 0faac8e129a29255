"""`engine compare`: numbers that there are, what matters first, and how to have the rest."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import engine
from facts import told

from engine.cli.compare_tables import MOST
from store import Ledger, open_store
from store.backend.locate import place_of
from store.backend.records import write_json


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory, small_store: Path) -> Path:
    """The store with other losses: that of explanations in one of the two cells that have it."""
    root = tmp_path_factory.mktemp("longer") / "store"
    shutil.copytree(small_store, root)
    ledger = Ledger(root)
    for cell in _manifest(root)["cells"]:
        record = ledger.record("train", cell["keys"]["train"])
        summary = record["summary"]
        summary["train_loss"] *= 1.5
        summary["train_seconds"] *= 1000
        if cell["levels"] == {"target": "label+explanation", "seed": 1}:
            del summary["train_explanation_loss"]
        elif "train_explanation_loss" in summary:
            summary["train_explanation_loss"] += 0.25
        ledger.commit("train", cell["keys"]["train"], record)
    return root


def _manifest(root: Path) -> dict[str, Any]:
    return json.loads((root / "experiments/small.json").read_text())


def numbers(*stores: Path) -> dict[str, dict[str, Any]]:
    compared = json.loads(engine("compare", *stores, "--json").output)
    return {row["number"]: row for row in compared["experiments"][0]["numbers"]}


def rows(output: str) -> list[str]:
    lines = [line for line in output.split("settings and versions")[0].splitlines() if line.startswith("│")]
    return [line.split("│")[1].strip() for line in lines]


def test_what_some_cells_have_is_compared_in_these(small_store: Path, longer: Path) -> None:
    found = numbers(small_store, longer)
    row = found["train_explanation_loss"]
    assert row["cells"] == 1 and row["difference"] == pytest.approx(0.25)
    assert row["lowest"] == row["highest"] == row["difference"]
    own = open_store(small_store)["small/summary"]["train_explanation_loss"]
    assert row["a"] == pytest.approx(float(own.sel(target="label+explanation", seed=0)))
    assert found["train_loss"]["cells"] == 4
    assert all(math.isfinite(row[name]) for row in found.values() for name in ("a", "b", "difference"))
    output = engine("compare", small_store, longer).output
    assert told(output, "train_explanation_loss", "1", "+0.25", "+0.25 to +0.25") and "nan" not in output
    assert told(output, "cells: those of 4 in which A and B both have the number")


def test_what_no_cell_has_in_both_is_a_dash(longer: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    shutil.copytree(longer, root)
    ledger = Ledger(root)
    for cell in _manifest(root)["cells"]:
        record = ledger.record("train", cell["keys"]["train"])
        record["summary"].pop("train_explanation_loss", None)
        if cell["levels"] == {"target": "label+explanation", "seed": 1}:
            record["summary"]["train_explanation_loss"] = 1.5
        ledger.commit("train", cell["keys"]["train"], record)
    row = numbers(longer, root)["train_explanation_loss"]
    assert row["cells"] == 0 and row["difference"] is None and row["b"] == 1.5
    assert told(
        engine("compare", longer, root, "--all").output, "train_explanation_loss", "0", "1.5", "–", "–"
    )


def test_what_no_cell_has_is_no_row(small_store: Path, tmp_path: Path) -> None:
    """Such as the absolute error of words, or the loss of explanations where there is none."""
    roots = [tmp_path / name for name in "ab"]
    for root in roots:
        shutil.copytree(small_store, root)
        ledger = Ledger(root)
        for cell in _manifest(root)["cells"]:
            train = ledger.record("train", cell["keys"]["train"])
            train["summary"].pop("train_explanation_loss", None)
            evaluated = ledger.record("evaluate", cell["keys"]["evaluate"])
            evaluated["summary"]["mae"] = math.nan
            ledger.commit("train", cell["keys"]["train"], train)
            ledger.commit("evaluate", cell["keys"]["evaluate"], evaluated)
    assert not {"train_explanation_loss", "mae"} & numbers(*roots).keys()
    output = engine("compare", *roots, "--all", "--cells").output
    assert "explanation_loss" not in output and "nan" not in output
    assert rows(output).count("accuracy") == 1


def test_long_tables_begin_with_what_matters_and_say_how_to_have_all(small_store: Path, longer: Path) -> None:
    whole = numbers(small_store, longer)
    output = engine("compare", small_store, longer).output
    shown = rows(output)
    assert len(shown) == MOST < len(whole)
    assert shown[:2] == ["accuracy", "mae"]  # with intervals
    assert shown[2:5] == ["train_loss", "train_explanation_loss", "train_seconds"]  # by size, times last
    equal = sum(row["difference"] == 0 for row in whole.values()) - (MOST - 5) - 2
    left = len(whole) - MOST
    assert equal == left
    assert f"… and {left} further numbers, all equal in A and B; --all shows them" in output
    everything = engine("compare", small_store, longer, "--all").output
    assert sorted(rows(everything)) == sorted(whole) and "--all shows" not in everything


def test_long_lists_of_cells_and_settings_are_cut_too(small_store: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(small_store, other)
    manifest = _manifest(other)
    manifest["packages"] |= {f"package-{number}": "1" for number in range(MOST)}
    del manifest["blake2b"]
    write_json(place_of(other), "experiments/small.json", manifest)
    output = engine("compare", small_store, other).output
    assert "package-11" in output and "further settings" not in output  # twelve are no long list
    manifest["packages"]["package-12"] = "1"
    write_json(place_of(other), "experiments/small.json", manifest)
    output = engine("compare", small_store, other).output
    assert "package-12" not in output
    assert "… and 1 further settings and versions that differ; --all shows them" in output
    assert "package-12" in engine("compare", small_store, other, "--all").output
