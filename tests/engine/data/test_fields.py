"""Columns of one's own in a prompt, and data without a context."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from commands import engine
from facts import facts
from spec_problems import problems_of

import store
from engine.data.reading import read_source
from engine.errors import DataError
from engine.planning.sizes import data_card
from specs.tables.data import Columns, Data

ROWS = [
    {
        "title": f"Title {n}",
        "abstract": f"words {n % 3} of {{it}}",
        "venue": "" if n % 2 else "here",
        "label": "12"[n % 2],
    }
    for n in range(40)
]
COLUMNS = Columns(context="", response="abstract", fields=["title", "venue"])


@pytest.fixture
def source(tmp_path: Path) -> str:
    with (tmp_path / "papers.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["title", "abstract", "venue", "label"])
        table.writeheader()
        table.writerows(ROWS)
    return str(tmp_path / "papers.csv")


def test_rows_hold_the_columns_and_no_context(source: str) -> None:
    rows = read_source(Data(source=source, columns=COLUMNS), labels=["1", "2"])
    assert [{name: row[name] for name in ("title", "venue", "response", "label")} for row in rows] == [
        {"title": own["title"], "venue": own["venue"], "response": own["abstract"], "label": own["label"]}
        for own in ROWS
    ]
    assert {row["context"] for row in rows} == {""} and {row["group"] for row in rows} == {
        r["abstract"] for r in ROWS
    }
    card = data_card(Data(source=source, columns=COLUMNS))
    assert card is not None
    assert card.prompt == pytest.approx(sum(len(r["title"] + r["abstract"] + r["venue"]) for r in ROWS) / 40)


def test_rows_that_differ_in_such_a_column_alone_are_not_the_same(source: str) -> None:
    columns = Columns(context="", response="abstract", fields=["title"])
    assert len(read_source(Data(source=source, columns=columns), labels=["1", "2"])) == 40
    columns = Columns(context="", response="abstract")
    assert len(read_source(Data(source=source, columns=columns), labels=["1", "2"])) == 6


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        (
            'data.columns.fields = ["title"]\nprompt.template = "{titel}"',
            "prompt.template",
            ("titel", "title"),
        ),
        ('data.columns.context = ""', "prompt.template", ("context",)),
        ('data.columns.fields = ["label"]', "data.columns.fields[0]", ("label",)),
        ('data.columns.fields = ["a", "a"]', "data.columns.fields[1]", ("a",)),
        ('data.columns.fields = ["a b"]', "data.columns.fields[0]", ("a b",)),
        (
            'prompt.template = "{response}"\nevaluate.prompt.template = "{no}"',
            "evaluate.prompt.template",
            ("no",),
        ),
        ('prompt.template = "{title}"', "prompt.template", ("title",)),
    ],
)
def test_fields_that_cannot_be_are_refused(tmp_path: Path, text: str, key: str, said: Any) -> None:
    base = 'name = "demo"\nmodel.id = "m"\ndata.source = "s.csv"\n'
    (problem,) = problems_of(tmp_path, text + "\n", base)
    assert problem.key == key
    assert all(word in f"{problem.message} {problem.hint}" for word in said)


def test_columns_that_are_not_there_are_named(source: str) -> None:
    with pytest.raises(DataError, match=facts("titles", "data.columns.fields[1]", "title")):
        read_source(
            Data(source=source, columns=Columns(context="", response="abstract", fields=["title", "titles"]))
        )
    with pytest.raises(DataError, match=facts("data.columns.fields", "graded-dialogues")):
        read_source(Data(source="graded-dialogues", columns=Columns(fields=["title"])))


def test_a_study_of_papers_runs(source: str, tiny_model: Path, tmp_path: Path) -> None:
    spec = tmp_path / "papers.toml"
    spec.write_text(
        f"""
name = "papers"
model = {{ id = "{tiny_model}", dtype = "float32" }}
store = "{tmp_path / "store"}"
prompt = {{ template = "{{title}} ({{venue}}): {{response}} = ", chat_template = false }}
evaluate.labels = ["1", "2"]
train = {{ steps = 1, batch_size = 2, precision = "float32" }}
[data]
source = "{source}"
columns = {{ context = "", response = "abstract", fields = ["title", "venue"] }}
"""
    )
    engine("execute", spec)
    node = store.open_store(tmp_path / "store")["papers/evaluate"].to_dataset()
    assert node.sizes["example"] > 0 and node["label_logprob"].notnull().all()
