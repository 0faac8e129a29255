"""The data stage: any source to canonical rows, split without leakage, reproducibly."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from attrs import evolve
from facts import facts, told
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.prepare import FILE, SPLITS, assign_splits, load, prepare
from engine.data.reading import read_source
from engine.errors import DataError
from specs.tables.data import Columns, Data

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
    (tmp_path / "b" / "examples.jsonl").write_text("changed")
    prepare(data, LABELS, tmp_path / "b")
    assert load(tmp_path / "b", "test", None) == load(tmp_path / "a", "test", None)
    assert (tmp_path / "b" / "examples.jsonl.damaged").read_text() == "changed"
    splits = {split: load(tmp_path / "a", split, None) for split in SPLITS}
    assert sum(map(len, splits.values())) == 40 and all(splits.values())
    groups = [{row["group"] for row in rows} for rows in splits.values()]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    assert record["summary"]["test_examples"] == len(splits["test"])
    assert record["labels"] == dict.fromkeys("12345", 8)
    few = load(tmp_path / "a", "train", 3)
    assert few == splits["train"][:3]
    with pytest.raises(DataError, match=facts("data.train", "99", "examples")):
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
            r'"rating".*\(data\.columns\.label\).*context',
        ),
        ({}, {"columns": Columns(label="{dimension}_grade")}, '"naturalness_grade"'),
        ({"response": None}, {"columns": COLUMNS}, r'row 3.*"response"'),
        ({"grade": None}, {"columns": COLUMNS}, r'row 3.*"grade"'),
    ],
)
def test_bad_columns_and_rows_are_named(
    tmp_path: Path, change: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    rows = [ROWS[0], ROWS[1], ROWS[2] | change]
    with pytest.raises(DataError, match=message):
        list(read_source(Data(source=write(tmp_path, ".jsonl", rows), **options)))


def test_a_renamed_column_names_the_nearest_spelling(tmp_path: Path) -> None:
    data = Data(source=write(tmp_path, ".csv"), columns=Columns(label="grades"))
    with pytest.raises(DataError, match=facts('"grades"', "data.columns.label", '"grade"')):
        read_source(data)
    data = Data(source=write(tmp_path, ".csv"), columns=COLUMNS, filter={"Response": "x"})
    with pytest.raises(DataError, match=facts('"Response"', "data.filter", '"response"')):
        read_source(data)


# Three rows that cannot be examples, and one that is there twice.
FLAWED = [*ROWS, ROWS[0], ROWS[1] | {"grade": 9}, ROWS[2] | {"response": "  "}, ROWS[3] | {"context": None}]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_mistakes_are_listed_and_counted_or_left_out(tmp_path: Path, suffix: str) -> None:
    file = write(tmp_path, suffix, FLAWED)
    with pytest.raises(DataError) as error:
        prepare(Data(source=file, columns=COLUMNS), LABELS, tmp_path / "a")
    total, *lines, way_out = str(error.value).splitlines()
    assert told(total, str(file), "2", "empty", "1", "label") and told(way_out, 'data.invalid = "drop"')
    assert told(lines[0], f"{file}, row 42", '"grade"', '"9"', "1, 2, 3, 4, 5")
    assert told(lines[1], f"{file}, row 43", '"response"') and told(lines[2], f"{file}, row 44", '"context"')
    assert sum(f"{file}, row " in line for line in lines) == 3
    record = prepare(Data(source=file, columns=COLUMNS, invalid="drop"), LABELS, tmp_path / "b")
    assert {name: count for name, count in record["summary"].items() if name.startswith("dropped")} == {
        "dropped_empty": 2, "dropped_label": 1, "dropped_unexplained": 0, "dropped_too_long": 0,
        "dropped_duplicate": 1,
    }  # fmt: skip
    kept = [row for split in SPLITS for row in load(tmp_path / "b", split, None)]
    assert {row["id"] for row in kept} == {f"row-{n}" for n in range(1, 41)}


def test_rows_are_filtered_by_column_and_length(tmp_path: Path) -> None:
    file = write(tmp_path, ".parquet")

    def numbers(**settings: Any) -> list[int]:
        rows = read_source(Data(source=file, columns=COLUMNS, **settings))
        return [int(row["id"].removeprefix("row-")) - 1 for row in rows]

    assert numbers(filter={"grade": 2}) == list(range(1, 40, 5))
    assert numbers(filter={"grade": ["1", "2"], "context": "message 3"}) == [6]
    assert numbers(filter={"grade": []}) == list(range(40))
    assert numbers(max_characters=len("message 3" + "reply 7")) == list(range(10))


@settings(max_examples=20)
@given(order=st.permutations(range(40)), seed=st.integers(0, 3), size=st.integers(1, 40))
def test_a_sample_does_not_hang_on_the_order_of_the_rows(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], seed: int, size: int
) -> None:
    folder = tmp_path_factory.mktemp("order")

    def drawn(numbers: list[int], name: str, **keys: Any) -> list[str]:
        (folder / name).mkdir()
        file = write(folder / name, ".jsonl", [ROWS[number] for number in numbers])
        data = Data(source=file, columns=COLUMNS, streaming=True, **keys)
        return [row["response"] for row in read_source(data)]

    wanted = drawn(list(range(40)), "a", rows=size, seed=seed)
    assert drawn(order, "b", rows=size, seed=seed) == wanted
    assert drawn(order, "c", rows=40, seed=seed)[:size] == wanted  # a larger sample holds the smaller one


def test_an_empty_split_is_an_error(tmp_path: Path) -> None:
    rows = [row | {"context": "the only message"} for row in ROWS]
    with pytest.raises(DataError, match=facts("test", "40 examples", "1 group")):
        prepare(Data(source=write(tmp_path, ".jsonl", rows), columns=COLUMNS), LABELS, tmp_path / "a")
    unlabelled = write(tmp_path, ".jsonl", [row | {"grade": 9} for row in ROWS])
    nothing = Data(source=unlabelled, columns=COLUMNS, invalid="drop")
    with pytest.raises(DataError, match=facts("train", "test", "0 examples", "0 groups")):
        prepare(nothing, LABELS, tmp_path / "a")


def test_a_filter_that_keeps_nothing_is_told_with_the_rows_and_their_values(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    sources = [write(tmp_path / name, ".jsonl", ROWS[:count]) for name, count in (("a", 3), ("b", 4))]
    settings: dict[str, Any] = {"source": sources, "columns": COLUMNS}
    grades = {str(row["grade"]) for row in ROWS[:3]}
    with pytest.raises(DataError, match=facts("data.filter", "grade = 7", "7 rows", "grade")) as raised:
        prepare(Data(**settings, filter={"grade": 7}), LABELS, tmp_path / "out")
    assert grades <= set(re.findall(r"\w+", str(raised.value)))
    kept = read_source(Data(**settings, filter={"grade": ROWS[3]["grade"]}))  # of the second source, at least
    assert kept


def test_texts_without_a_context_are_groups_of_their_own(tmp_path: Path) -> None:
    file = write(tmp_path, ".jsonl", [row | {"context": ""} for row in ROWS])
    rows = read_source(Data(source=file, columns=COLUMNS))
    assert [row["group"] for row in rows] == [row["response"] for row in ROWS]


def test_missing_and_empty_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=facts("data.source", "none.csv")):
        list(read_source(Data(source=str(tmp_path / "none.csv"))))
    with pytest.raises(DataError, match=facts("data.source", '"no/such-set"')):
        list(read_source(Data(source="no/such-set")))


def test_a_failed_preparation_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        prepare(Data(source=write(tmp_path, ".jsonl")), LABELS, tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("needless", [{"dimension": "on-topic"}, {"streaming": True}])
def test_a_setting_that_nothing_reads_gives_the_same_examples(
    tmp_path: Path, rated_file: Path, needless: dict[str, Any]
) -> None:
    data = Data(source=str(rated_file), columns=Columns(label="rating", explanation="why"))
    files = []
    for number, asked in enumerate((data, evolve(data, **needless))):
        prepare(asked, ["1", "2", "3"], tmp_path / str(number))
        files.append((tmp_path / str(number) / FILE).read_bytes())
    assert files[0] == files[1]
