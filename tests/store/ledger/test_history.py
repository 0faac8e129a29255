"""The history of an experiment: declarations, looks, and what they make of a contrast."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from facts import facts, told
from report_store import Design, write_synthetic

import store
from store import write_manifest
from store.backend.locate import place_of
from store.backend.records import read_json, write_json
from store.errors import DamagedError
from store.ledger import history
from store.ledger.history import read_history, record_look
from store.ledger.manifests import read_manifests
from store.upkeep.garbage import find_garbage
from store.upkeep.mend import fix
from store.upkeep.problems import Trouble
from store.upkeep.verify import verify

ANALYSIS = {
    "primary": "correct", "family": "contrast", "monitoring": "fixed", "looks": [],
    "smallest_difference_of_interest": {"correct": 0.02},
}  # fmt: skip
LEVELS = ["label", "explained", "shuffled"]


def design(seeds: int, levels: int = 2, pending: Any = (), **asked: Any) -> Design:
    return Design(
        {"target": LEVELS[:levels]},
        contrasts=[{"factor": "target", "baseline": "label"}],
        seeds=tuple(range(seeds)),
        examples=8,
        layers=3,
        pending=pending,
        analysis=ANALYSIS | asked,
    )


def declared_first(root: Path, **asked: Any) -> None:
    """Write the manifest alone, as an execution does before it runs anything."""
    write_synthetic(root, design(2, pending=range(4), **asked))


def again(root: Path, change: Any) -> None:
    manifest = read_manifests(root)["synthetic"]
    change(manifest["spec"])
    write_manifest(root, "synthetic", manifest)


def standing(root: Path, outcome: str = "correct", level: str = "explained") -> tuple[str, str]:
    stage = "evaluate" if outcome == "correct" else "probe"
    own = read_history(root, "synthetic").standing("target", "label", level, outcome, stage)
    return own.mark, own.why


def test_what_was_declared_before_there_were_results_is_confirmatory(tmp_path: Path) -> None:
    declared_first(tmp_path)
    write_synthetic(tmp_path, design(2))
    assert len(read_history(tmp_path, "synthetic").records) == 1  # the same declaration again
    mark, why = standing(tmp_path)
    assert mark == "confirmatory" and "before there were results" in why
    assert standing(tmp_path, "entropy") == ("exploratory", "the primary outcome is correct")
    assert standing(tmp_path, level="shuffled") == ("exploratory", "the spec does not declare it")


def test_what_is_declared_after_results_is_exploratory(tmp_path: Path) -> None:
    write_synthetic(tmp_path, design(2))  # the manifest comes last there
    mark, why = standing(tmp_path)
    assert mark == "exploratory" and told(why, "2", "cells", "results")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("family", "spec", "family contrast → spec"),
        ("primary", "entropy", "primary correct → entropy"),
        ("monitoring", "anytime", "monitoring fixed → anytime"),
        ("smallest_difference_of_interest", {"correct": 0.01}, "correct 0.02 → correct 0.01"),
    ],
)
def test_a_change_after_results_shows(tmp_path: Path, key: str, value: Any, words: str) -> None:
    declared_first(tmp_path)
    write_synthetic(tmp_path, design(2))
    again(tmp_path, lambda spec: spec["analysis"].update({key: value}))
    (change,) = read_history(tmp_path, "synthetic").changes()
    assert words in change and told(change, "cells", "results")
    mark, why = standing(tmp_path, "entropy" if key == "primary" else "correct")
    assert mark == "exploratory" and told(why, "declared")
    # Changed back it is no surer than before.
    again(tmp_path, lambda spec: spec["analysis"].update(ANALYSIS))
    assert standing(tmp_path)[0] == "exploratory" and len(read_history(tmp_path, "synthetic").changes()) == 2


def test_a_level_and_seeds_that_come_later_stand_for_themselves(tmp_path: Path) -> None:
    declared_first(tmp_path)
    write_synthetic(tmp_path, design(2))
    write_synthetic(tmp_path, design(2, levels=3, pending=(4, 5)))
    assert standing(tmp_path)[0] == standing(tmp_path, level="shuffled")[0] == "confirmatory"
    write_synthetic(tmp_path, design(3, levels=3))
    assert standing(tmp_path)[0] == "confirmatory"  # the number of seeds is the looks' concern
    assert "2 → 3 seeds" in read_history(tmp_path, "synthetic").changes()[-1]


def test_a_look_counts_once_for_the_same_results(tmp_path: Path) -> None:
    write_synthetic(tmp_path, design(2))
    pairs = [("target", "label")]
    for command in ("report", "results"):
        assert record_look(tmp_path, "synthetic", command, pairs) == ""
    (look,) = read_history(tmp_path, "synthetic").looks
    assert look["command"] == "report" and look["seeds"] == {"target=label": 2, "target=explained": 2}
    write_synthetic(tmp_path, design(3))
    record_look(tmp_path, "synthetic", "report", pairs)
    known = read_history(tmp_path, "synthetic")
    assert len(known.looks) == 2
    assert known.looked("target", 5) == [2, 3] and known.looked("target", 3) == [2]
    assert known.looked("rank", 5) == []


def test_a_look_from_python_is_recorded_where_it_is_told(tmp_path: Path) -> None:
    write_synthetic(tmp_path, design(2))
    store.open_store(tmp_path)["synthetic"].ablation.change("correct", "target")
    assert read_history(tmp_path, "synthetic").looks == []
    assert store.record_look(tmp_path, "synthetic") == ""
    (look,) = read_history(tmp_path, "synthetic").looks
    assert (look["command"], look["contrasts"]) == ("Python", [["target", "label"]])
    assert "no such experiment" in store.record_look(tmp_path, "no such experiment")


def test_a_look_at_a_store_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_synthetic(tmp_path, design(2))

    def refused(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(history, "append", refused)
    said = record_look(tmp_path, "synthetic", "report", [("target", "label")])
    assert said.startswith("synthetic: this look at the results is not recorded in the store: ")


def test_a_record_that_was_changed_or_taken_out_is_found(tmp_path: Path) -> None:
    write_synthetic(tmp_path, design(2))
    record_look(tmp_path, "synthetic", "report", [("target", "label")])
    again(tmp_path, lambda spec: spec["analysis"].update(family="spec"))
    assert find_garbage(tmp_path) == []
    files = sorted((tmp_path / "history" / "synthetic").iterdir())
    assert [file.name for file in files] == ["000001.json", "000002.json", "000003.json"]
    whole = files[1].read_bytes()
    for torn in (whole.replace(b": 2", b": 9"), b"{", whole[:-1]):
        files[1].write_bytes(torn)
        (trouble,) = (own for own in verify(tmp_path).troubles if "history" in own.path)
        assert trouble.path.endswith("000002.json") and trouble.mend == "aside"
    fix(tmp_path, [trouble])
    found = verify(tmp_path)
    assert not [own for own in found.troubles if "history" in own.path]
    assert any(told(note, "missing") for note in found.notes)
    known = read_history(tmp_path, "synthetic")
    assert [own["kind"] for own in known.records] == ["declared", "declared", "lost"] and not known.looks


def of_history(root: Path) -> list[Trouble]:
    return [own for own in verify(root).troubles if own.path.startswith(f"{root}/history")]


@pytest.mark.parametrize("gone", ["all", 1, 2])
def test_a_history_that_is_gone_is_found_whoever_writes_next(tmp_path: Path, gone: Any) -> None:
    write_synthetic(tmp_path, design(2))
    record_look(tmp_path, "synthetic", "report", [("target", "label")])
    folder = tmp_path / "history/synthetic"
    shutil.rmtree(folder) if gone == "all" else (folder / f"{gone:06}.json").unlink()
    (trouble,) = of_history(tmp_path)
    assert trouble.mend == "history" and told(trouble.message, "missing", "changed")
    with pytest.raises(DamagedError, match=facts("missing", "engine verify STORE --fix")):
        read_history(tmp_path, "synthetic")
    assert "is missing" in record_look(tmp_path, "synthetic", "report", [("target", "label")])
    assert of_history(tmp_path) == [trouble]
    whole = shutil.copytree(tmp_path, tmp_path.with_name(f"{tmp_path.name}-copy"))
    fix(tmp_path, [trouble])
    again(whole, lambda spec: spec["analysis"].update(family="spec"))
    for root in (tmp_path, whole):
        assert not of_history(root)
        assert any(told(note, "missing") for note in verify(root).notes)
    assert standing(whole)[0] == "exploratory" and read_history(whole, "synthetic").gaps


def test_a_store_from_before_there_were_histories_lacks_none(tmp_path: Path) -> None:
    write_synthetic(tmp_path, design(2))
    place, file = place_of(tmp_path), "experiments/synthetic.json"
    manifest = read_json(place, file)
    del manifest["history"]
    write_json(place, file, manifest)
    shutil.rmtree(tmp_path / "history")
    assert not of_history(tmp_path)
    assert standing(tmp_path)[0] == "not recorded" and read_history(tmp_path, "synthetic").changes() == []
