"""Word labels out of the file, where a spec leaves `evaluate.labels` out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import engine
from facts import told

import engine as api
import store
from specs import SpecError


def write(folder: Path, labels: list[Any], name: str = "reviews.jsonl") -> Path:
    rows = ({"response": f"Text {n}", "label": label, "context": ""} for n, label in enumerate(labels))
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / name


def spec_of(folder: Path, model: Path, more: str = "") -> Path:
    spec = folder / "words.toml"
    spec.write_text(
        f"""
name = "words"
store = "words.store"
model = {{ id = "{model}", dtype = "float32", device = "cpu" }}
prompt = {{ template = "{{response}}: {{labels}}?", chat_template = false }}
train = {{ steps = 1, batch_size = 2, precision = "float32" }}
{more}
[data]
source = "reviews.jsonl"
"""
    )
    return spec


WORDS = ["good", "bad", "mixed"] * 12


def labels_of(spec: Path, *overrides: str) -> list[str]:
    plan = api.plan(spec, overrides)
    return plan.matrix.table("evaluate", plan.cells[0].choice).labels


def test_a_study_of_word_labels_runs_without_naming_them(tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path, WORDS)
    spec = spec_of(tmp_path, tiny_model)
    assert told(engine("plan", spec).output, "labels", "bad", "good", "mixed")
    assert told(engine("data", spec).output, "bad", "good", "mixed")
    engine("execute", spec)
    assert "Nothing to do" in engine("execute", spec).output
    assert told(engine("status", spec).output, "words")
    node = store.open_store(tmp_path / "words.store")["words/evaluate"].to_dataset()
    assert node["label"].values.tolist() == ["bad", "good", "mixed"]
    named = labels_of(spec, 'evaluate.labels=["bad","good","mixed"]')
    assert named == labels_of(spec)
    assert api.plan(spec, ('evaluate.labels=["bad","good","mixed"]',)).states == api.plan(spec).states


def test_values_that_differ_in_case_or_spaces_are_told_with_their_rows(
    tiny_model: Path, tmp_path: Path
) -> None:
    write(tmp_path, ["Good", "good", "bad ", "bad"] * 9)
    spec = spec_of(tmp_path, tiny_model)
    for command in ("plan", "execute", "data"):
        output = engine(command, spec, code=2).output
        assert told(
            output, "data.columns.label", "reviews.jsonl", "row 2", '"label"', '"good"', '"Good"', "case"
        )
        assert told(output, "data.columns.label", "reviews.jsonl", "row 3", '"label"', "spaces", '"bad "')
        assert len(output.splitlines()) == 2 and "evaluate.labels" not in output


def test_values_of_test_data_that_differ_in_case_are_told_where_these_are_named(
    tiny_model: Path, tmp_path: Path
) -> None:
    write(tmp_path, ["yes", "no"] * 15, "other.jsonl")
    write(tmp_path, ["yes", "no", "No"] * 15)
    spec = spec_of(tmp_path, tiny_model, '[evaluate.data]\nsource = "other.jsonl"\n')
    assert labels_of(spec) == ["1", "2", "3", "4", "5"]  # files of other labels
    write(tmp_path, ["no", "yes", "No"] * 15, "other.jsonl")
    with pytest.raises(SpecError) as caught:
        api.plan(spec)
    (problem,) = caught.value.problems
    assert told(problem.message, "reviews.jsonl", '"label"', '"no"', '"No"') and problem.file == spec


def test_numbers_are_in_their_order(tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path, [10, 9, -1, 7.5] * 9)
    assert labels_of(spec_of(tmp_path, tiny_model)) == ["-1", "7.5", "9", "10"]


@pytest.mark.parametrize(
    ("labels", "more"),
    [
        (["1", "2", "6"] * 12, ""),  # one of them may be a mistake: the data stage lists it
        (["1", "2", "5"] * 12, ""),
        (["yes"] * 36, ""),  # no task
        ([f"text {n}" for n in range(36)], ""),  # no labels
        (WORDS, 'evaluate.labels = ["good", "bad"]'),
        (WORDS, '[factors.scale]\npath = "evaluate.labels"\nvalues = [["1", "2"], ["1", "3"]]'),
    ],
)
def test_nothing_is_taken_where_it_may_be_meant_otherwise(
    tiny_model: Path, tmp_path: Path, labels: list[str], more: str
) -> None:
    write(tmp_path, labels)
    spec = spec_of(tmp_path, tiny_model, more)
    found = api.plan(spec).matrix
    own = ["good", "bad"] if "good" in more else None
    for cell in found.cells:
        assert found.table("evaluate", cell).labels in (
            own,
            ["1", "2", "3", "4", "5"],
            ["1", "2"],
            ["1", "3"],
        )


def test_files_of_other_labels_are_left_to_the_data_stage(tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path, WORDS)
    write(tmp_path, ["yes", "no"] * 15, "other.jsonl")
    both = '[factors.set.levels]\na = {}\nb = { data.source = "other.jsonl" }\n'
    spec = spec_of(tmp_path, tiny_model, both)
    assert labels_of(spec) == ["1", "2", "3", "4", "5"]
