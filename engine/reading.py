"""Reading the examples of a data source: tables through `datasets`, filtered, mapped, checked and sampled."""

from __future__ import annotations

import hashlib
import heapq
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from engine import graded
from engine.adapters import Raw, Row
from engine.errors import DataError
from engine.row_checks import RowChecks
from engine.sources import Source, sources
from specs.data import BUILT_IN, NAMED_SETS, Data
from specs.errors import nearest
from specs.paths import DATA_FILES

RATED = ("label", "explanation")


def read_source(
    data: Data,
    *,
    labelled: bool = True,
    labels: Sequence[str] | None = None,
    dropped: Counter[str] | None = None,
) -> list[dict[str, str]]:
    """Read, filter, check and sample the rows of all sources.

    A row holds id, context, response and group; with `labelled` also label and explanation ("" if it has
    none); `source` where there are several; `split` ("test") where the source has a test split of its own.
    `labels` are those that a row may have. `dropped` counts the rows left out, by `row_checks.KINDS`.
    Raises DataError for a source out of reach or without ratings, and for columns and rows that do not fit.
    """
    found = sources(data)
    rows = []
    for source in found:
        # The built-in set is taken as it is: few of its damaged replies coincide, all in one group.
        checks = RowChecks(labels if labelled else None, data.max_characters, unique=not source.built_in)
        kept: Iterable[dict[str, str]] = _checked(source, data, labelled, checks)
        if data.rows is not None:
            kept = heapq.nsmallest(data.rows, kept, key=lambda row: _rank(row, data.seed))
        part = list(kept)
        if data.invalid == "error":
            checks.close(str(source))
        if dropped is not None:
            dropped.update(checks.counts)
        if len(found) > 1:
            part = [row | {"id": f"{source.name}:{row['id']}", "source": source.name} for row in part]
        rows += part
    return rows


def unit_interval(text: str) -> float:
    """Draw a number from [0, 1) that hangs on a text alone."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64


def _rank(row: Mapping[str, str], seed: int) -> tuple[float, float, str]:
    # The answer comes second: sets of other answers to the same messages give samples of the same messages.
    first = unit_interval(f"{seed} sample {row['group']}\n{row['context']}")
    return first, unit_interval(f"{seed} sample {row['response']}"), row.get("label", "")


def _checked(source: Source, data: Data, labelled: bool, checks: RowChecks) -> Iterator[dict[str, str]]:
    defaults = {"explanation": ""} if labelled else {}
    for identity, where, columns, row in _examples(source, data, labelled):
        if checks.passes(row, columns, where):
            texts = {name: value or "" for name, value in row.items()}
            yield {"id": identity, **defaults, "group": texts["context"] or texts["response"], **texts}


def _examples(
    source: Source, data: Data, labelled: bool
) -> Iterator[tuple[str, str, Mapping[str, str], Row]]:
    """Yield (id, where, the source's column behind each field, row) for every row that the filter keeps."""
    if source.built_in:
        for _, raw in _filtered(graded.examples(data.dimension, source.part), {}, data, str(source)):
            row = {name: raw[name] for name in raw if labelled or name not in RATED}
            yield raw["id"], f"{source}, {raw['id']}", {}, row
        return
    adapter = source.adapter
    if labelled and adapter and not adapter.labels:
        raise DataError(
            f'data.source: "{source.public}" has no ratings; `engine annotate` makes them, in a file that a '
            "spec names as its source"
        )
    columns = {} if adapter else _columns(data, labelled)
    needed = {column: f"data.columns.{name}" for name, column in columns.items()}
    if adapter:
        needed = dict.fromkeys(adapter.columns, f"{source.public} has it")
    for split, where, table in _tables(source, data):
        marked: Row = {"split": split} if split else {}
        for number, raw in _filtered(table, needed, data, where):
            place = f"{where}, row {number}"
            if adapter is None:
                row = {name: _text(raw.get(column)) for name, column in columns.items()} | marked
                yield f"{split or 'row'}-{number}", place, columns, row
                continue
            try:
                made = list(adapter.rows(raw))
            except (LookupError, TypeError, ValueError) as error:
                raise DataError(f'{place}: not as "{source.public}" has it: {error!r}') from error
            for index, row in enumerate(made, start=1):
                fields = {name: row[name] for name in row if labelled or name not in RATED}
                yield f"{split or 'row'}-{number}.{index}", place, {}, fields | marked


def _columns(data: Data, labelled: bool) -> dict[str, str]:
    """Give the source's column behind each field."""
    names = ("context", "response", "group", *(RATED if labelled else ()))
    columns = {name: getattr(data.columns, name) for name in names}
    return {
        name: column.format(dimension=data.dimension)
        for name, column in columns.items()
        if column is not None
    }


def _filtered(
    table: Iterable[Raw], needed: Mapping[str, str], data: Data, where: str
) -> Iterator[tuple[int, Raw]]:
    """Yield the rows that `data.filter` keeps, with their numbers. DataError for a column that is missing."""
    allowed = {
        column: {_text(value) for value in (values if isinstance(values, list) else [values])}
        for column, values in data.filter.items()
        if values != []
    }
    for number, raw in enumerate(table, start=1):
        if number == 1:
            _check_columns({**dict.fromkeys(allowed, "data.filter"), **needed}, list(raw), where)
        if all(_text(raw.get(column)) in values for column, values in allowed.items()):
            yield number, raw


def _check_columns(wanted: Mapping[str, str], found: Sequence[str], where: str) -> None:
    """Raise DataError for a column that is not there; `wanted` says what needs each column."""
    for column, reason in wanted.items():
        if column not in found:
            near = nearest(column, found)
            hint = f'; did you mean "{near}"? The' if near else "; the"
            raise DataError(
                f'{where}: found no column "{column}" ({reason}){hint} columns are {", ".join(found)}'
            )


def _text(value: Any) -> str | None:
    # A rating column read from CSV or Parquet may be 4.0 where the label is "4".
    if value is None:
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _tables(source: Source, data: Data) -> Iterator[tuple[str | None, str, Iterable[Raw]]]:
    """Yield (split or None, where, table) for a file, a folder or a hub data set, as `datasets` reads it."""
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    if source.missing:
        raise DataError(f'data.source: found "{source}", which is no file or folder')
    if source.path is not None and source.path.is_file():
        reader = DATA_FILES[source.path.suffix]
        yield None, str(source), _load(source, data, reader, split="train", data_files=str(source.path))
        return
    wanted: dict[str | None, str] = {None: data.train_split}
    if data.test_split is not None:
        wanted["test"] = data.test_split
    for split, name in wanted.items():
        if source.hub and source.adapter and name not in source.adapter.splits:
            has = ", ".join(source.adapter.splits)
            raise DataError(f'data.source: "{source.public}" has the splits {has}; found "{name}"')
        table = _load(source, data, str(source), source.config, split=name, revision=source.revision)
        yield split, f'{source}, split "{name}"', table


def _load(source: Source, data: Data, *place: Any, split: str, **options: Any) -> Iterator[Raw]:
    """Yield the rows of one split; DataError whether opening or reading it fails."""
    import datasets

    try:
        yield from datasets.load_dataset(*place, split=split, streaming=data.streaming, **options)
    except Exception as error:
        raise DataError(_failure(source, split, error)) from error


def _failure(source: Source, split: str, error: Exception) -> str:
    import datasets

    reason = f"{error.__cause__ or error}"
    if source.path is not None:
        return f'data.source: "{source}" (split "{split}") cannot be read: {reason}'
    expected = f'neither "{BUILT_IN}", nor a {", ".join(DATA_FILES)} file, nor a hub data set within reach'
    text = f'data.source: found "{source}" (split "{split}"), which is {expected}: {reason}'
    near = nearest(str(source), NAMED_SETS)
    if near and source.public is None:
        text += f'; did you mean "{near}"?'
    if datasets.config.HF_HUB_OFFLINE:
        text += (
            "; HF_HUB_OFFLINE or HF_DATASETS_OFFLINE is set, so a hub data set must be in the cache already, "
            "or be a local copy: data.source = its folder, data.adapter = its name"
        )
    return text
