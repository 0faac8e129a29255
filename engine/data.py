"""The data stage: any source of rated answers → one file of examples, split without leakage."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from engine import graded
from engine.errors import DataError
from specs.data import Data
from specs.paths import DATA_FILES

SPLITS = ("train", "validation", "test")
BUILT_IN = "graded-dialogues"


def prepare(data: Data, folder: Path) -> dict[str, Any]:
    """Read the source, split it and write `folder/examples.jsonl`; give the stage's record.

    Each line holds id, context, response, label, explanation, group and split. Examples of one group are
    always in one split. Within a split the order is drawn from `data.seed`, so that the first n examples
    are a random sample of it, whatever n is.
    """
    rows = list(read_source(data))
    if not rows:
        raise DataError(f'data.source: "{data.source}" holds no examples; expected at least one')
    assign_splits(rows, data)
    random.Random(f"order {data.seed}").shuffle(rows)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "examples.jsonl.partial"
    partial.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    partial.replace(folder / "examples.jsonl")
    return {"summary": describe(rows), "labels": dict(sorted(Counter(row["label"] for row in rows).items()))}


def load(folder: Path, split: str, count: int | None) -> list[dict[str, str]]:
    """Give the first `count` examples of a split of a prepared data set (None: all of them)."""
    with (folder / "examples.jsonl").open(encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if row["split"] == split]
    if count is not None and count > len(rows):
        raise DataError(
            f"data.{split}: found {count}, but the data set has {len(rows)} examples in that split; "
            f"expected at most {len(rows)}"
        )
    return rows[:count]


def describe(rows: Iterable[Mapping[str, str]]) -> dict[str, float]:
    """Count the examples of each split and the mean characters of their texts, for the plan's estimates."""
    rows = list(rows)
    sizes = {f"{split}_examples": sum(row["split"] == split for row in rows) for split in SPLITS}
    texts = {
        "prompt_characters": sum(len(row["context"]) + len(row["response"]) for row in rows) / len(rows),
        "explanation_characters": sum(len(row["explanation"]) for row in rows) / len(rows),
    }
    return {**sizes, **texts}


def assign_splits(rows: list[dict[str, str]], data: Data) -> None:
    """Set each row's split, group by group; rows that come with a test split keep it."""
    tested = {row["group"] for row in rows if row.get("split") == "test"}
    for row in rows:
        if row.get("split") == "test" or row["group"] in tested:
            row["split"] = "test"
            continue
        # The split hangs on the group's own text, so adding rows never moves a row to another split.
        place = _unit_interval(f"{data.seed} holdout {row['group']}")
        inner = _unit_interval(f"{data.seed} validation {row['group']}")
        if data.test_split is None and place < data.holdout:
            row["split"] = "test"
        else:
            row["split"] = "validation" if inner < data.validation_share else "train"


def _unit_interval(text: str) -> float:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64


def read_source(data: Data) -> Iterator[dict[str, str]]:
    """Yield the canonical rows of the source that the spec names."""
    if data.source == BUILT_IN:
        yield from graded.examples(data.dimension)
        return
    for split, columns_at, table in _tables(data):
        yield from _mapped(data, split, columns_at, table)


def _tables(data: Data) -> Iterator[tuple[str | None, str, Any]]:
    """Yield (split or None, where, table) for a file or a hub data set, as `datasets` reads it."""
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    import datasets

    reader = DATA_FILES.get(Path(data.source).suffix)
    if reader:
        if not Path(data.source).is_file():
            raise DataError(f'data.source: found "{data.source}", which is no file')
        table = datasets.load_dataset(reader, data_files=data.source, split="train", keep_in_memory=True)
        yield None, data.source, table
        return
    wanted: list[tuple[str | None, str]] = [(None, data.train_split)]
    if data.test_split is not None:
        wanted.append(("test", data.test_split))
    for split, name in wanted:
        try:
            table = datasets.load_dataset(data.source, data.config, split=name, revision=data.revision)
        except Exception as error:
            raise DataError(
                f'data.source: found "{data.source}" (split "{name}"), which is neither "{BUILT_IN}", nor a '
                f"{', '.join(DATA_FILES)} file, nor a hub data set within reach: {error}"
            ) from error
        yield split, f'{data.source}, split "{name}"', table


def _mapped(data: Data, split: str | None, where: str, table: Any) -> Iterator[dict[str, str]]:
    names = {
        key: column.format(dimension=data.dimension)
        for key in ("context", "response", "label", "explanation", "group")
        if (column := getattr(data.columns, key)) is not None
    }
    missing = {key: name for key, name in names.items() if name not in table.column_names}
    if missing:
        found = ", ".join(f'data.columns.{key} = "{name}"' for key, name in missing.items())
        raise DataError(
            f"{where}: found no column for {found}; the columns are {', '.join(table.column_names)}"
        )
    for number, row in enumerate(table, start=1):
        values = {key: row[name] for key, name in names.items()}
        empty = [names[key] for key, value in values.items() if value is None and key != "explanation"]
        if empty:
            raise DataError(f'{where}, row {number}: column "{empty[0]}" is empty; expected a value')
        text = {key: "" if value is None else _text(value) for key, value in values.items()}
        yield {
            "id": f"{split or 'row'}-{number}",
            "explanation": "",
            "group": text["context"],
            **text,
            **({"split": split} if split else {}),
        }


def _text(value: Any) -> str:
    # A rating column read from CSV or Parquet may be 4.0 where the label is "4".
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
