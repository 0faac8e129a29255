"""Several explanations of one example: how they are read, and that each epoch draws one of them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import engine
from facts import facts
from spec_problems import problems_of
from transformers import PreTrainedTokenizerBase

import store
from engine.data.explanations import further_explanations
from engine.data.reading import read_source
from engine.errors import DataError
from engine.stages.training.loss import Collator
from engine.stages.training.orders import epoch_order, epoch_places
from specs.tables.data import Columns, Data

ROWS = [
    {
        "context": f"Message {number}",
        "response": f"Answer {number}",
        "label": str(number % 5 + 1),
        "why": f"it is {number}",
        "why_2": f"since {number}" if number % 3 else "",
        "why_3": "it is so" if number % 2 else None,
    }
    for number in range(24)
]
COLUMNS = Columns(explanation="why", further_explanations=["why_2", "why_3"])
EXPECTED = [[text for text in (row["why"], row["why_2"], row["why_3"]) if text] for row in ROWS]


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_columns_and_lists_give_the_same_explanations(tmp_path: Path) -> None:
    columns = write(tmp_path / "columns.jsonl", ROWS)
    lists = [
        {name: row[name] for name in ("context", "response", "label")}
        | {"explanation": [row["why"], row["why_2"], row["why_3"]]}
        for row in ROWS
    ]
    pq.write_table(pa.Table.from_pylist(lists), tmp_path / "lists.parquet")
    for source, named in (
        (columns, COLUMNS),
        (write(tmp_path / "lists.jsonl", lists), Columns()),
        (tmp_path / "lists.parquet", Columns()),
    ):
        rows = read_source(Data(source=str(source), columns=named))
        assert [[row["explanation"], *further_explanations(row)] for row in rows] == EXPECTED


def test_the_first_text_is_the_explanation_and_none_stands_twice(tmp_path: Path) -> None:
    rows = [
        ROWS[0] | {"why": [" ", None, "a", "b", "a"]},
        ROWS[1] | {"why": []},
        ROWS[2] | {"why": ["one"], "why_2": "one", "why_3": ""},
    ]
    first, none, one = read_source(
        Data(source=str(write(tmp_path / "rows.jsonl", rows)), columns=Columns(explanation="why"))
    )
    assert (first["explanation"], further_explanations(first)) == ("a", ["b"])
    assert none["explanation"] == "" and further_explanations(none) == []
    assert one["explanation"] == "one" and further_explanations(one) == []
    assert "further_explanations" not in one  # a data set of one explanation each stays as it was


def test_what_is_no_text_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", [ROWS[0] | {"why": [["a"]]}])
    with pytest.raises(DataError, match=facts("rows.jsonl", "row 1", '"why"', "a list")):
        read_source(Data(source=str(file), columns=Columns(explanation="why")))
    with pytest.raises(DataError, match=facts('"why_4"', "data.columns.further_explanations[0]", "why_2")):
        read_source(Data(source=str(file), columns=Columns(further_explanations=["why_4"])))
    with pytest.raises(DataError, match=facts("data.columns.further_explanations", "graded-dialogues")):
        read_source(Data(source="graded-dialogues", columns=COLUMNS))
    base = 'name = "demo"\nmodel.id = "m"\ndata.source = "s.csv"\n'
    text = 'data.columns.further_explanations = ["explanation"]\n'
    (problem,) = problems_of(tmp_path, text, base)
    assert problem.key == "data.columns.further_explanations[0]"


def test_every_epoch_draws_one_of_each_examples_places() -> None:
    variants = [[0], [1, 2], [3, 4, 5], [6]]
    owner = {place: number for number, places in enumerate(variants) for place in places}
    drawn: Counter[int] = Counter()
    for seed in range(50):
        for epoch in range(20):
            places = epoch_places(variants, seed, epoch)
            assert [owner[place] for place in places] == epoch_order(4, seed, epoch)
            drawn.update(places)
    assert drawn[0] == drawn[6] == 1000
    assert [drawn[place] for place in (1, 2)] == pytest.approx([500] * 2, abs=70)
    assert [drawn[place] for place in (3, 4, 5)] == pytest.approx([333] * 3, abs=70)
    assert epoch_places([[0], [1], [2]], 3, 1) == epoch_order(3, 3, 1)


def test_a_training_reads_every_explanation_and_the_label_alone_reads_none(
    tiny_model: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under each condition a step of a seed has the same examples; explanations are drawn alike, too."""
    write(tmp_path / "rows.jsonl", ROWS)
    spec = tmp_path / "several.toml"
    spec.write_text(
        f"""
name = "several"
store = "several.store"
seeds = [0]
model = {{ id = "{tiny_model}", dtype = "float32", device = "cpu" }}
prompt = {{ template = "{{response}}", chat_template = false }}
train = {{ epochs = 12, batch_size = 4, precision = "float32" }}
[data]
source = "rows.jsonl"
train = 10
columns = {{ explanation = "why", further_explanations = ["why_2", "why_3"] }}
[factors.target.levels]
label = {{ target.content = "label" }}
explained = {{ target.content = "label+explanation" }}
repeated = {{ target.content = "label+filler" }}
"""
    )
    batches: list[list[tuple[str, str, list[int]]]] = []
    collate = Collator.__call__

    def watched(self: Collator, examples: Any) -> Any:
        batches.append(
            [
                (tokenizer.decode(each.prompt), tokenizer.decode(each.completion), each.completion)
                for each in examples
            ]
        )
        return collate(self, examples)

    monkeypatch.setattr(Collator, "__call__", watched)
    engine("execute", spec)
    tree = store.open_store(tmp_path / "several.store")["several"]
    counted = tree["summary"].to_dataset()["train_examples"].values
    assert counted == pytest.approx(np.full(3, 10.0))
    per_cell = len(batches) // 3
    label, explained, repeated = (
        [example for batch in batches[start : start + per_cell] for example in batch]
        for start in range(0, 3 * per_cell, per_cell)
    )
    assert [row[0] for row in label] == [row[0] for row in explained] == [row[0] for row in repeated]
    assert [len(row[2]) for row in explained] == [len(row[2]) for row in repeated]
    expected = {row["response"]: len(texts) for row, texts in zip(ROWS, EXPECTED, strict=True)}
    answers = Counter(prompt for prompt, _ in {(row[0], row[1]) for row in explained})
    assert len(answers) == 10
    assert all(number == expected[prompt.strip()] for prompt, number in answers.items())
    assert len({(row[0], row[1]) for row in label}) == 10
