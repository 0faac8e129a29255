"""`engine init`: a spec for a data set that nobody described."""

from __future__ import annotations

import csv
import json
import os
import pty
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from commands import command, engine
from facts import told
from pyarrow import parquet

import engine as python
from engine.data.looking import look

FOOD = ["soup", "was", "cold", "but", "staff", "smiled", "and", "prices", "fell", "again"]
WORD_LABELS = ("positive", "negative", "neutral")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def reviews(number: int = 60, **more: Iterable[Any]) -> list[dict[str, Any]]:
    """Rows of different texts with word labels, and further columns."""
    rows = [
        {
            "id": f"r{place}",
            "text": " ".join(FOOD[place % 5 : place % 5 + 6]) + f" {place}",
            "sentiment": WORD_LABELS[place % 3],
        }
        for place in range(number)
    ]
    for name, values in more.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return rows


def write_csv(file: Path, rows: list[dict[str, Any]]) -> Path:
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


def renamed(rows: list[dict[str, Any]], column: str, name: str) -> list[dict[str, Any]]:
    return [{name if key == column else key: value for key, value in row.items()} for row in rows]


def written(file: Path) -> dict[str, Any]:
    return tomllib.loads(file.read_text("utf-8"))


def test_word_labels_need_no_option_and_the_spec_plans(tiny_model: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "food reviews.csv", reviews())
    output = engine("init", "food reviews.csv", "--model", tiny_model).output
    assert told(output, "sentiment", "negative (20)", "neutral (20)", "positive (20)")
    assert "engine plan food-reviews.toml" in output and "engine execute food-reviews.toml" in output
    spec = written(tmp_path / "food-reviews.toml")
    assert spec["evaluate"]["labels"] == ["negative", "neutral", "positive"]
    assert spec["data"]["columns"] == {"label": "sentiment", "response": "text", "context": ""}
    assert spec["factors"]["rank"]["values"] == [4, 16] and spec["contrasts"][0]["factor"] == "rank"
    planned = python.plan("food-reviews.toml")
    assert len(planned.cells) == 6 and not planned.missing()
    assert not (tmp_path / "stores").exists()  # nothing but the spec is written
    assert {file.name for file in tmp_path.iterdir()} == {"food reviews.csv", "food-reviews.toml"}


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "json", "parquet", "csv.gz"])
def test_every_format_gives_the_same_spec(suffix: str, tiny_model: Path, tmp_path: Path) -> None:
    rows, file = reviews(why=["it says so"] * 60), tmp_path / f"set.{suffix}"
    if suffix == "parquet":
        parquet.write_table(pa.Table.from_pylist(rows), file)
    elif suffix.startswith("json"):
        lines = [json.dumps(row) for row in rows]
        file.write_text("\n".join(lines) if suffix == "jsonl" else f"[{','.join(lines)}]")
    elif suffix == "csv.gz":
        import gzip

        plain = write_csv(tmp_path / "plain.csv", rows)
        file.write_bytes(gzip.compress(plain.read_bytes()))
    else:
        write_csv(file, rows)
    engine("init", file, "--model", tiny_model, "-o", "made.toml")
    spec = written(tmp_path / "made.toml")
    assert spec["name"] == "set" and spec["data"]["columns"]["explanation"] == "why"
    assert [*spec["factors"]["target"]["levels"]] == ["label", "label+explanation", "label+shuffled"]
    assert spec["contrasts"] == [{"factor": "target", "baseline": "label"}]
    assert spec["data"]["train"] + spec["data"]["test"] <= 60


def test_a_folder_keeps_its_own_test_split(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sets"
    folder.mkdir()
    write_csv(folder / "train.csv", reviews(40))
    write_csv(folder / "test.csv", reviews(60)[40:])
    engine("init", "sets", "--model", tiny_model)
    data = written(tmp_path / "sets.toml")["data"]
    assert data["test_split"] == "test" and data["test"] == 20 and 30 < data["train"] < 40
    assert data["source"] == "./sets"


def test_a_hub_data_set_is_read_without_a_copy_and_named_by_its_id(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    asked = []

    def load(name: str, config: Any, *, split: str, revision: Any, streaming: bool) -> Any:
        asked.append((name, split, streaming))
        if split == "test":
            raise ValueError("Bad split: test. Available splits: ['train']")
        return datasets.Dataset.from_list(reviews(400)).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr("engine.data.looking.MOST_ROWS", 300)
    output = engine("init", "someone/food", "--model", tiny_model).output
    assert ("someone/food", "train", True) in asked
    assert "the first 300 rows" in output
    spec = written(tmp_path / "food.toml")
    assert spec["data"]["source"] == "someone/food" and "test_split" not in spec["data"]


def test_built_in_and_public_sets_bring_their_columns_and_labels(tiny_model: Path, tmp_path: Path) -> None:
    engine("init", "graded-dialogues", "--model", tiny_model)
    spec = written(tmp_path / "graded-dialogues.toml")
    assert "columns" not in spec["data"] and "target" in spec["factors"]
    output = engine("init", "graded-dialogues", "--text", "response", "--name", "b", code=2).output
    assert told(output, "graded-dialogues", "columns of its own", "--response")


def test_rows_that_lack_a_value_are_left_out_and_said(tiny_model: Path, tmp_path: Path) -> None:
    rows = reviews(reason=["", *["because"] * 59])
    rows[3]["sentiment"] = ""
    write_csv(tmp_path / "set.csv", rows)
    engine("init", "set.csv", "--model", tiny_model)
    text = (tmp_path / "set.toml").read_text()
    data = tomllib.loads(text)["data"]
    assert data["invalid"] == "drop" and data["empty_explanations"] == "drop" and "1 rows have none" in text


def test_numbers_are_rated_and_known_words_stand_in_their_order(tiny_model: Path, tmp_path: Path) -> None:
    rows = reviews(stars=[f"{1 + place % 5}.0" for place in range(60)])
    levels = ("low", "high", "medium")
    rows = [row | {"level": levels[place % 3]} for place, row in enumerate(rows)]
    write_csv(tmp_path / "set.csv", rows)
    engine("init", "set.csv", "--label", "stars", "--model", tiny_model, "--name", "stars")
    spec = written(tmp_path / "stars.toml")
    assert spec["evaluate"]["labels"] == ["1", "2", "3", "4", "5"]
    assert "Rate the {dimension}" in spec["prompt"]["template"]
    engine("init", "set.csv", "--label", "level", "--model", tiny_model, "--name", "level")
    assert written(tmp_path / "level.toml")["evaluate"]["labels"] == ["low", "medium", "high"]


def test_texts_that_are_replies_have_their_context(tiny_model: Path, tmp_path: Path) -> None:
    rows = reviews(question=[f"how was dish number {place}" for place in range(60)])
    write_csv(tmp_path / "set.csv", renamed(rows, "text", "answer"))
    engine("init", "set.csv", "--model", tiny_model)
    spec = written(tmp_path / "set.toml")
    assert spec["data"]["columns"]["context"] == "question"
    assert spec["data"]["columns"]["response"] == "answer" and "{context}" in spec["prompt"]["template"]
    engine("init", "set.csv", "--model", tiny_model, "--context", "", "--name", "alone")
    assert "{context}" not in written(tmp_path / "alone.toml")["prompt"]["template"]


def ambiguous(tmp_path: Path) -> None:
    rows = reviews(mood=["glad", "sad"] * 30)
    write_csv(tmp_path / "set.csv", renamed(rows, "sentiment", "tone"))


def test_what_cannot_be_told_is_asked_for_in_a_sentence(tiny_model: Path, tmp_path: Path) -> None:
    ambiguous(tmp_path)
    output = engine("init", "set.csv", "--model", tiny_model, code=2).output
    assert told(output, "--label", '"tone"', '"positive"', '"mood"', '"glad"', "--yes")
    assert len(output.splitlines()) == 1 and not (tmp_path / "set.toml").exists()
    engine("init", "set.csv", "--model", tiny_model, "--yes")
    assert written(tmp_path / "set.toml")["data"]["columns"]["label"] in ("mood", "tone")


def test_a_person_at_a_terminal_is_asked(tiny_model: Path, tmp_path: Path) -> None:
    ambiguous(tmp_path)
    master, slave = pty.openpty()
    line = [sys.executable, "-m", "engine", "init", "set.csv", "--model", str(tiny_model)]
    path = str(Path(__file__).parents[3])
    child = subprocess.Popen(
        line, stdin=slave, stdout=slave, stderr=slave, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}
    )
    os.close(slave)
    seen, answered = b"", False
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:  # the other end is closed
            break
        seen += piece
        if not piece:
            break
        if not answered and b"]:" in seen:
            os.write(master, b"tone\n")
            answered = True
    assert child.wait(120) == 0, seen.decode()
    assert answered and b"Which column holds the label?" in seen
    assert written(tmp_path / "set.toml")["data"]["columns"]["label"] == "tone"


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["nothing.csv"], ("nothing.csv", "no file")),
        (["sat.csv"], ("sat.csv", "no file", "set.csv")),
        (["set.csv", "--label", "sentimant"], ("--label", "sentimant", "sentiment")),
        (["set.csv", "--label", "text"], ("text", "2 to 30 labels")),
        (["set.csv", "--label", "same"], ("same", '"x" alone', "2 to 30 labels")),
        (["set.csv", "--text", "sentiment"], ("sentiment", "two roles")),
        (["few.csv"], ("few.csv", "too few")),
        (["many.csv", "--label", "n"], ("n", "more than 30 different values", "2 to 30 labels")),
        (["many.csv", "--label", "long"], ("long", "values of up to 70 characters", "60", "2 to 30 labels")),
        (["many.csv", "--label", "none"], ("none", "holds nothing", "2 to 30 labels")),
        (["lists.jsonl", "--label", "label"], ("label", "holds lists or tables", "2 to 30 labels")),
        (["set.csv", "--group", "zzz"], ("--group zzz", "no such column; expected one of")),
        (["nosuch/set.csv"], ("nosuch/set.csv", "no file", "did you mean", "set.csv")),
        (["case.csv"], ("case.csv", '"yes"', '"Yes"', "case")),
        (["empty.csv"], ("empty.csv", "empty")),
        (["header.csv"], ("header.csv", "no rows")),
        (["set.csv", "--name", "a b"], ("name", "a b")),
        (["set.csv", "--model", "./no-model"], ("model.id", "no-model")),
        (["rows.csv"], ("rows.csv", "row 2 (line 3)", "3 cells", "expected 2")),
        (["nested.jsonl"], ("nested.jsonl", "text (1 value)", "label (lists or tables)", "--label COLUMN")),
        (["alike.csv"], ("alike.csv", "look alike")),
        ([""], ('init: found ""', "expected a file or folder")),
        (["empty"], ("init: found the folder", "no data files", ".jsonl")),
    ],
)
def test_wrong_input_is_one_sentence(
    arguments: list[str], facts: tuple[str, ...], tiny_model: Path, tmp_path: Path
) -> None:
    write_csv(tmp_path / "set.csv", reviews(same=["x"] * 60))
    write_csv(tmp_path / "few.csv", [{"text": "one and the same text", "label": x} for x in "aabb"])
    cases = [row | {"sentiment": "Yes" if place % 2 else "yes"} for place, row in enumerate(reviews())]
    write_csv(tmp_path / "case.csv", cases)
    numbered = {"n": range(60), "long": ["a" * 70, "b"] * 30, "none": [""] * 60}
    write_csv(tmp_path / "many.csv", reviews(**numbered))
    lists = [{"text": f"{row['text']}", "label": ["a", "b"]} for row in reviews()]
    (tmp_path / "lists.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lists))
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "header.csv").write_text("text,label\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "nested.jsonl").write_text('{"text": "a", "label": {"name": "b"}}\n' * 3)
    alike = [row | {"sentiment": "e\u0301" if place % 2 else "é"} for place, row in enumerate(reviews())]
    write_csv(tmp_path / "alike.csv", alike)
    (tmp_path / "rows.csv").write_text("text,label\na b c,1\nd e f,1,2\ng h i,2\n")
    model = [] if "--model" in arguments else ["--model", tiny_model]
    code, output = command("init", *arguments, *model)
    assert code == 2, output
    assert told(output, *facts) and len(output.splitlines()) == 1, output
    assert not list(tmp_path.glob("*.toml")) and not list(tmp_path.glob(".*"))


def test_all_mistakes_of_options_and_columns_are_told_at_once(tiny_model: Path, tmp_path: Path) -> None:
    tones = ["yes", "Yes", " no", "maybe", "MAYBE"]
    rows = [row | {"tone": tones[place % 5]} for place, row in enumerate(reviews())]
    write_csv(tmp_path / "set.csv", rows)
    wrong = ("--label", "tone", "--text", "txet", "--group", "gruop", "--explanation", "tone")
    lines = engine("init", "set.csv", *wrong, "--model", tiny_model, code=2).output.splitlines()
    assert all(line.startswith("set.csv: ") for line in lines)
    expected = (
        ("--text txet", "no such column", "'text'", "id, text, sentiment, tone"),
        ("--group gruop", "no such column"),
        ('"tone"', "two roles"),
        ('"yes" and "Yes"', "case"),
        ('" no"', "no spaces"),
        ('"maybe" and "MAYBE"', "case"),
    )
    assert len(lines) == len(expected)
    assert all(told(line, *facts) for line, facts in zip(lines, expected, strict=True)), lines
    assert not list(tmp_path.glob("*.toml"))


def test_the_next_commands_can_be_pasted_into_a_shell(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "it's my data"
    folder.mkdir()
    write_csv(folder / "set.csv", reviews())
    spec = folder / "a spec.toml"
    output = engine("init", folder / "set.csv", "--model", tiny_model, "-o", spec).output
    commands = [line.removeprefix("next:").strip() for line in output.splitlines()[-2:]]
    assert [shlex.split(line) for line in commands] == [
        ["engine", "plan", str(spec)], ["engine", "execute", str(spec)],
    ]  # fmt: skip


def test_no_file_is_ever_overwritten(tiny_model: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "set.csv", reviews())
    (tmp_path / "set.toml").write_text("mine")
    output = engine("init", "set.csv", "--model", tiny_model, code=2).output
    assert told(output, "set.toml", "there already", "-o")
    assert (tmp_path / "set.toml").read_text() == "mine"


def test_a_spec_in_another_folder_finds_data_and_model(tiny_model: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "set.csv", reviews())
    (tmp_path / "inner").mkdir()
    (tmp_path / "model").symlink_to(tiny_model)
    engine("init", "set.csv", "--model", "./model", "-o", "inner/spec.toml")
    spec = written(tmp_path / "inner/spec.toml")
    assert spec["data"]["source"] == "../set.csv"
    assert not Path(spec["model"]["id"]).is_absolute()
    assert not python.plan("inner/spec.toml").missing()


def test_lists_and_ids_are_no_texts(tmp_path: Path) -> None:
    rows = [row | {"tags": ["a", "b"], "number": place} for place, row in enumerate(reviews())]
    file = tmp_path / "set.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = look(str(file), "x").columns
    assert [name for name, column in columns.items() if column.is_text] == ["text"]
    assert [name for name, column in columns.items() if column.labels] == ["sentiment"]
