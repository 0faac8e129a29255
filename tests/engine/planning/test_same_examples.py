"""A data file that changes where nothing reads it trains nothing again; any other change does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import engine
from facts import told
from small_study import small_spec

import engine as api

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rated_file: Path) -> tuple[Path, Path]:
    """A study that has been executed, and its own data file."""
    folder = tmp_path_factory.mktemp("same")
    data = folder / "rated.jsonl"
    data.write_bytes(rated_file.read_bytes())
    spec = small_spec(folder, tiny_model, data)
    engine("execute", spec)
    return spec, data


def with_a_column(rows: Rows) -> Rows:
    return [row | {"source": f"book {number}"} for number, row in enumerate(rows)]


def as_numbers(rows: Rows) -> Rows:
    return [row | {"rating": float(row["rating"])} for row in rows]


def with_blank_keys_moved(rows: Rows) -> Rows:
    return [dict(reversed(row.items())) for row in rows]


def reordered(rows: Rows) -> Rows:
    return rows[::-1]


def one_word(rows: Rows) -> Rows:
    return [rows[0] | {"response": rows[0]["response"] + " indeed"}, *rows[1:]]


def one_less(rows: Rows) -> Rows:
    return rows[:-1]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (with_a_column, True),
        (as_numbers, True),
        (with_blank_keys_moved, True),
        (reordered, False),
        (one_word, False),
        (one_less, False),
    ],
)
def test_only_what_changes_examples_is_made_anew(
    made: tuple[Path, Path], change: Callable[[Rows], Rows], same: bool
) -> None:
    spec, data = made
    before = data.read_bytes()
    try:
        rows = [json.loads(line) for line in before.splitlines()]
        data.write_text("".join(json.dumps(row) + "\n" for row in change(rows)))
        assert data.read_bytes() != before
        plan = api.plan(spec)
        assert (set(plan.states["train"].values()) == {"cached"}) is same
        said = engine("plan", spec).output
        assert (f"changed: {data}" in said.replace("\n", "")) is same
        if same:
            assert "Nothing to do" in engine("execute", spec).output
            assert set(api.plan(spec).states["train"].values()) == {"cached"}
    finally:
        data.write_bytes(before)
    assert set(api.plan(spec).states["train"].values()) == {"cached"}


def test_labels_that_are_read_otherwise_are_no_same_examples(made: tuple[Path, Path]) -> None:
    """The same file under other settings is another key, whatever the file says."""
    spec, data = made
    before = data.read_bytes()
    try:
        rows = [json.loads(line) for line in before.splitlines()]
        data.write_text("".join(json.dumps(row) + "\n" for row in with_a_column(rows)))
        plan = api.plan(spec, ("data.holdout=0.4",))
        assert "cached" not in plan.states["train"].values()
        assert not plan.remembered
    finally:
        data.write_bytes(before)


@pytest.mark.parametrize(("change", "same"), [(with_a_column, True), (one_word, False)])
def test_a_copied_study_knows_its_data_by_their_name(
    made: tuple[Path, Path], change: Callable[[Rows], Rows], same: bool, tmp_path: Path
) -> None:
    """Its store tells of files where they were when it was executed."""
    spec, data = made
    copied = tmp_path / "elsewhere"
    shutil.copytree(spec.parent, copied)
    file = copied / data.name
    other = copied / spec.name
    other.write_text(spec.read_text().replace(str(spec.parent), str(copied)))
    assert set(api.plan(other).states["train"].values()) == {"cached"}
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(row) + "\n" for row in change(rows)))
    assert (set(api.plan(other).states["train"].values()) == {"cached"}) is same
    output = engine("plan", other).output
    assert told(output, "changed", str(file), "same examples") is same
    if same:
        assert "Nothing to do: 4 cells done" in engine("execute", other).output
        assert "garbage: 0 items" in engine("gc", copied / "store").output
