"""The data stage: any source of rated answers → one file of examples, split without leakage."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.data.missing_explanations import explained
from engine.data.prompt_fields import prompt_characters
from engine.data.reading import read_source, unit_interval
from engine.data.row_checks import KINDS
from engine.errors import DamagedDataError, DataError
from engine.quantities import count
from specs.common.whole_files import partial_of
from specs.tables.data import Data
from store.backend.locate import place_of
from store.backend.location import Place, Root
from store.backend.records import hash_file
from store.backend.result_files import RESULTS, file_trouble
from store.errors import DamagedError

FILE = RESULTS["data"]
SPLITS = ("train", "validation", "test")


def prepare(data: Data, labels: Sequence[str], home: Root) -> dict[str, Any]:
    """Read the sources, split them and write `examples.jsonl` of `home`; give the stage's record.

    Each line holds id, context, response, label (one of `labels`), explanation, group and split. Examples of
    one group are always in one split. Within a split the order is drawn from `data.seed`, so that the first n
    examples are a random sample of it, whatever n is. The record counts the rows that were left out.
    """
    rows, text, dropped = examples_text(data, labels)
    home = place_of(home)
    folder = home.scratch()
    folder.mkdir(parents=True, exist_ok=True)
    partial = partial_of(folder / FILE)
    partial.write_text(text, "utf-8")
    if _holds_another(home, partial):
        home.put_aside(FILE)
    home.publish(partial, FILE)
    return {
        "summary": describe(rows)
        | without_explanation(rows)
        | {f"dropped_{kind}": dropped[kind] for kind in KINDS},
        "labels": dict(sorted(Counter(row["label"] for row in rows).items())),
    }


def examples_text(data: Data, labels: Sequence[str]) -> tuple[list[dict[str, str]], str, Counter[str]]:
    """Give the examples in their order, the text of their file, and the rows that were left out by kind."""
    dropped: Counter[str] = Counter()
    rows = read_source(data, labels=labels, dropped=dropped)
    assign_splits(rows, data)
    _check_splits(rows, data, dropped)
    random.Random(f"order {data.seed}").shuffle(rows)
    return rows, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), dropped


def _holds_another(home: Place, made: Path) -> bool:
    """Tell whether there is a file of examples that has changed, for all make the same of a key."""
    try:
        known = home.local(FILE)
        return known.exists() and hash_file(known) != hash_file(made)
    except FileNotFoundError:
        return False
    except DamagedError:
        return True


def _check_splits(rows: Sequence[Mapping[str, str]], data: Data, dropped: Counter[str]) -> None:
    """Raise DataError where there is nothing to train or nothing to test on."""
    if not rows and not dropped.total():
        raise DataError(f"data.source: {data.source} holds no row; expected rows of examples")
    empty = [split for split in ("train", "test") if all(row["split"] != split for row in rows)]
    if empty:
        groups = len({row["group"] for row in rows})
        kinds = ", ".join(f"{number:,} {KINDS[kind]}" for kind, number in dropped.items() if number)
        left_out = f", {count(dropped.total(), 'row')} left out ({kinds})" if kinds else ""
        raise DataError(
            f"data.source: no {' and no '.join(empty)} examples: {data.source} gives "
            f"{count(len(rows), 'example')} in {count(groups, 'group')}{left_out}, and a group is never "
            "parted; expected more groups, or another data.holdout"
        )


def check(home: Place, recorded: Mapping[str, Any]) -> None:
    """Raise DamagedDataError where the file of examples is not the one that the done record names."""
    if FILE not in recorded:  # of an older layout
        return
    try:
        trouble = file_trouble(home.local(FILE), recorded[FILE])
    except FileNotFoundError:
        trouble = "missing"
    except DamagedError as error:
        raise DamagedDataError(str(error)) from error
    if trouble:
        raise DamagedDataError(f"{home}/{FILE}: {trouble}")


def load(home: Root, split: str, count: int | None) -> list[dict[str, str]]:
    """Give the first `count` examples of a split of a prepared data set (None: all of them)."""
    with place_of(home).local(FILE).open(encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if row["split"] == split]
    if count is not None and count > len(rows):
        raise DataError(f"data.{split}: {too_many(count, len(rows))}")
    return rows[:count]


def too_many(count: int, held: int) -> str:
    """Say that a spec asks for more examples than a split holds."""
    most = f"at most {held:,}" if held else "more rows, or no such key"
    return f"found {count:,}, but that split holds {held:,} examples; expected {most}"


def no_validation(patience: int) -> str:
    """Say that there is nothing for early stopping to go by."""
    return (
        f"train.early_stopping: found {patience}, but there are no validation examples to stop by; expected "
        "a larger data.validation_share, or train.early_stopping = 0"
    )


def describe(rows: Iterable[Mapping[str, str]]) -> dict[str, float]:
    """Count the examples of each split and the mean characters of their texts, for the plan's estimates."""
    rows = list(rows)
    sizes = {f"{split}_examples": sum(row["split"] == split for row in rows) for split in SPLITS}
    texts = {
        "prompt_characters": sum(map(prompt_characters, rows)) / len(rows),
        "explanation_characters": sum(len(row["explanation"]) for row in rows) / len(rows),
    }
    return {**sizes, **texts}


def split_sizes(data: Data, labels: Sequence[str], *, may_be_empty: bool = False) -> dict[str, float]:
    """Give the number of examples in each split, and of rows and examples without explanation.

    Also `test_same_group`, the chance that two test examples are of one group. The latter numbers are
    named as in the data stage's summary. Raises DataError, as for training or test examples of which there
    are none, unless these may be empty.
    """
    dropped: Counter[str] = Counter()
    rows = read_source(data, labels=labels, dropped=dropped)
    assign_splits(rows, data)
    if not may_be_empty:
        _check_splits(rows, data, dropped)
    counts = Counter(row["split"] for row in rows)
    sizes = {split: float(counts[split]) for split in SPLITS}
    groups = Counter(row["group"] for row in rows if row["split"] == "test")
    pairs = groups.total() * (groups.total() - 1)
    sizes["test_same_group"] = sum(n * (n - 1) for n in groups.values()) / pairs if pairs else 0.0
    return sizes | without_explanation(rows) | {"dropped_unexplained": dropped["unexplained"]}


def without_explanation(rows: Iterable[Mapping[str, str]]) -> dict[str, float]:
    """Count the examples of each split that have no explanation."""
    unexplained = Counter(row["split"] for row in rows if not explained(row))
    return {f"{split}_examples_without_explanation": float(unexplained[split]) for split in SPLITS}


def assign_splits(rows: list[dict[str, str]], data: Data) -> None:
    """Set each row's split, group by group; rows that come with a test split keep it."""
    tested = {row["group"] for row in rows if row.get("split") == "test"}
    for row in rows:
        if row.get("split") == "test" or row["group"] in tested:
            row["split"] = "test"
            continue
        # The split hangs on the group's own text, so adding rows never moves a row to another split.
        place = unit_interval(f"{data.seed} holdout {row['group']}")
        inner = unit_interval(f"{data.seed} validation {row['group']}")
        if data.test_split is None and place < data.holdout:
            row["split"] = "test"
        else:
            row["split"] = "validation" if inner < data.validation_share else "train"
