"""The data stage: any source to canonical rows, split without leakage, reproducibly."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data import SPLITS, assign_splits, load, prepare
from engine.errors import DataError
from engine.reading import read_source
from specs.data import Columns, Data

ROWS = [
    {
        "context": f"message {n // 2}",
        "response": f"reply {n}",
        "grade": 1 + n % 5,
        "why": None if n % 3 else "x",
    }
    for n in range(40)
]
COLUMNS = Columns(label="grade", explanation="why")
LABELS = list("12345")


def write(folder: Path, suffix: str, rows: list[dict[str, Any]] = ROWS) -> str:
    file = folder / f"rated{suffix}"
    if suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif suffix == ".csv":
        with file.open("w", newline="") as stream:
            table = csv.DictWriter(stream, rows[0])
            table.writeheader()
            table.writerows(rows)
    else:
        pd.DataFrame(rows).to_parquet(file)
    return str(file)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_every_format_gives_the_same_canonical_rows(tmp_path: Path, suffix: str) -> None:
    rows = list(read_source(Data(source=write(tmp_path, suffix), columns=COLUMNS)))
    assert rows[3] == {
        "id": "row-4", "context": "message 1", "response": "reply 3", "label": "4", "explanation": "x",
        "group": "message 1",
    }  # fmt: skip
    assert rows[1]["explanation"] == ""
    assert len(rows) == 40 and all(isinstance(value, str) for row in rows for value in row.values())


def test_prepared_data_is_the_same_every_time_and_has_no_leaks(tmp_path: Path) -> None:
    data = Data(source=write(tmp_path, ".jsonl"), columns=COLUMNS, holdout=0.4)
    record = prepare(data, LABELS, tmp_path / "a")
    prepare(data, LABELS, tmp_path / "b")
    assert (tmp_path / "a" / "examples.jsonl").read_bytes() == (
        tmp_path / "b" / "examples.jsonl"
    ).read_bytes()
    splits = {split: load(tmp_path / "a", split, None) for split in SPLITS}
    assert sum(map(len, splits.values())) == 40 and all(splits.values())
    groups = [{row["group"] for row in rows} for rows in splits.values()]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    assert record["summary"]["test_examples"] == len(splits["test"])
    assert record["labels"] == dict.fromkeys("12345", 8)
    few = load(tmp_path / "a", "train", 3)
    assert few == splits["train"][:3]
    with pytest.raises(DataError, match=r"data.train: found 99, but .* has \d+ examples in that split"):
        load(tmp_path / "a", "train", 99)


@given(
    groups=st.lists(st.integers(0, 30), min_size=1, max_size=60),
    more=st.lists(st.integers(0, 60), max_size=20),
    seed=st.integers(0, 5),
)
def test_more_rows_never_move_a_row_to_another_split(groups: list[int], more: list[int], seed: int) -> None:
    def splits(numbers: list[int]) -> list[tuple[int, str]]:
        rows = [{"group": str(number)} for number in numbers]
        assign_splits(rows, Data(source="s", seed=seed))
        return [(number, row["split"]) for number, row in zip(numbers, rows, strict=True)]

    few, many = splits(groups), splits(groups + more)
    assert many[: len(few)] == few
    assert len(dict(many)) == len(set(many))  # one split per group


def test_a_given_test_split_is_kept_with_its_groups() -> None:
    rows = [{"group": "a", "split": "test"}, {"group": "a"}, *({"group": f"g{n}"} for n in range(50))]
    assign_splits(rows, Data(source="s", test_split="test"))
    assert [row["split"] for row in rows[:2]] == ["test", "test"]
    assert {row["split"] for row in rows[2:]} == {"train", "validation"}


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (
            {},
            {"columns": Columns(label="rating")},
            r'found no column "rating" \(data.columns.label\); the columns are context,',
        ),
        ({}, {"columns": Columns(label="{dimension}_grade")}, 'found no column "naturalness_grade"'),
        ({"response": None}, {"columns": COLUMNS}, 'row 3: column "response" is empty'),
        ({"grade": None}, {"columns": COLUMNS}, 'row 3: column "grade" is empty'),
    ],
)
def test_bad_columns_and_rows_are_named(
    tmp_path: Path, change: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    rows = [ROWS[0], ROWS[1], ROWS[2] | change]
    with pytest.raises(DataError, match=message):
        list(read_source(Data(source=write(tmp_path, ".jsonl", rows), **options)))


def test_missing_and_empty_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'data.source: found ".*none.csv", which is no file'):
        list(read_source(Data(source=str(tmp_path / "none.csv"))))
    with pytest.raises(DataError, match=r'data.source: found "no/such-set" .* within reach'):
        list(read_source(Data(source="no/such-set")))


def test_a_failed_preparation_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        prepare(Data(source=write(tmp_path, ".jsonl")), LABELS, tmp_path / "a")
    assert not (tmp_path / "a").exists()
