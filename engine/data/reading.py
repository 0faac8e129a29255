"""Reading the examples of a data source: its rows, filtered, mapped to fields, checked and sampled."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from attrs import define, field

from engine.data.cell_text import cell_text, whole_number
from engine.data.chats import MESSAGES, chat_fields
from engine.data.data_sets import REFUSED_COLUMNS, DataSet, data_set_rows
from engine.data.explanations import FURTHER, explanation_fields
from engine.data.missing_explanations import explained
from engine.data.opening import open_source
from engine.data.public_sets import Row
from engine.data.row_checks import RowChecks
from engine.data.sources import DataSource, sources
from engine.data.table_files import Raw, Table
from engine.errors import DataError
from engine.quantities import count
from specs.common.spelling import nearest
from specs.registry import DATA_SETS
from specs.tables.data import Data

RATED = ("label", "explanation")
LISTED = 5  # values of a column that an error names
EXPLAINING = ("explanation", FURTHER)  # what the fields of explanations begin with
OPTIONAL = "explanation"  # a column of this name may be missing, for nobody has asked for it
ANSWERED = "label"  # so may one of this name, where a chat may end with its label


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
    origins, seen = sources(data), _Seen()
    rows = []
    for source in origins:
        if source.data_set is not None or source.adapter:
            _check_no_columns(data, source)
        checks = RowChecks(
            labels if labelled else None,
            data.max_characters,
            unique=source.data_set is None or DATA_SETS.get(source.data_set, DataSet).unique,
            needs_explanation=labelled and data.empty_explanations == "drop",
        )
        kept: Iterable[dict[str, str]] = _checked(source, data, labelled, checks, seen)
        if data.rows is not None:
            kept = heapq.nsmallest(data.rows, kept, key=lambda row: _rank(row, data.seed))
        part = list(kept)
        if data.invalid == "error":
            checks.close(str(source))
        if dropped is not None:
            dropped.update(checks.counts)
        if len(origins) > 1:
            part = [row | {"id": f"{source.name}:{row['id']}", "source": source.name} for row in part]
        rows += part
    if seen.rows and not seen.kept:
        raise DataError(seen.nothing_kept(data))
    return rows


def labels_read(data: Data) -> Iterator[tuple[str, str, str]]:
    """Yield place, column and label of each row that `data.filter` keeps and that has a label.

    DataError as `read_source`.
    """
    for source in sources(data):
        for _, where, columns, row in _examples(source, data, True, _Seen()):
            if label := row.get("label"):
                yield where, columns.get("label", "label"), label


def _check_no_columns(data: Data, source: DataSource) -> None:
    """Raise DataError where a spec names columns that a built-in or public set cannot have."""
    for name in REFUSED_COLUMNS:
        if value := getattr(data.columns, name):
            raise DataError(
                f'data.columns.{name}: found {json.dumps(value)}, but "{source}" has its own columns alone; '
                "expected none, or a file or data set with columns of your own"
            )


@define
class _Seen:
    """What `data.filter` has seen of all sources: rows, those that it keeps, and some of their values."""

    rows: int = 0
    kept: int = 0
    values: dict[str, dict[str, None]] = field(factory=dict)

    def note(self, texts: Mapping[str, str], keeps: bool) -> None:
        """Count a row, by its texts in the filter's columns."""
        self.rows += 1
        self.kept += keeps
        if not self.kept:
            for column, text in texts.items():
                known = self.values.setdefault(column, {})
                if len(known) <= LISTED:
                    known[text] = None

    def nothing_kept(self, data: Data) -> str:
        """Say that no row is kept, of how many, and what the columns hold."""
        asked = ", ".join(f"{column} = {json.dumps(value)}" for column, value in data.filter.items())
        columns = [
            f"{column} holds {', '.join(list(values)[:LISTED])}{', …' * (len(values) > LISTED)}"
            for column, values in self.values.items()
        ]
        return (
            f"data.filter: {{ {asked} }} keeps none of the {count(self.rows, 'row')} that were read; "
            f"expected values that the columns hold: {'; '.join(columns)}"
        )


def unit_interval(text: str) -> float:
    """Draw a number from [0, 1) that hangs on a text alone."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64


def _rank(row: Mapping[str, str], seed: int) -> tuple[float, float, str]:
    # The answer comes second: sets of other answers to the same messages give samples of the same messages.
    first = unit_interval(f"{seed} sample {row['group']}\n{row['context']}")
    return first, unit_interval(f"{seed} sample {row['response']}"), row.get("label", "")


def column_names(data: Data, *, labelled: bool = True) -> dict[str, str]:
    """Give the source's column behind each field."""
    texts = ("context", "response") if data.columns.messages is None else (MESSAGES,)
    names = (*texts, "group", *(RATED if labelled else ()))
    columns = {name: getattr(data.columns, name) for name in names}
    named = {
        name: column.replace("{dimension}", data.dimension)
        for name, column in columns.items()
        if column is not None and (column or name != "context")
    }
    further = data.columns.further_explanations if labelled else []
    return (
        named
        | {column: column for column in data.columns.fields}
        | {
            f"{FURTHER}[{number}]": column.replace("{dimension}", data.dimension)
            for number, column in enumerate(further)
        }
    )


def _checked(
    source: DataSource, data: Data, labelled: bool, checks: RowChecks, seen: _Seen
) -> Iterator[dict[str, str]]:
    defaults = {"explanation": ""} if labelled else {}
    for identity, where, columns, row in _examples(source, data, labelled, seen):
        if "label" in row:
            row |= {"label": checks.label_of(row["label"])}
        if checks.passes(row, columns, where):
            texts = {name: value or "" for name, value in row.items()}
            if labelled and not explained(texts):
                texts["explanation"] = ""
            if "context" not in texts:
                texts = {"context": "", **texts}
            yield {"id": identity, **defaults, "group": texts["context"] or texts["response"], **texts}


def _examples(
    source: DataSource, data: Data, labelled: bool, seen: _Seen
) -> Iterator[tuple[str, str, Mapping[str, str], Row]]:
    """Yield (id, where, the source's column behind each field, row) for every row that the filter keeps."""
    if source.data_set is not None:
        made = data_set_rows(source.data_set, data.dimension)
        rows = ((f"{source}, {raw['id']}", raw) for raw in made)
        for _, where, raw in _filtered(Table(str(source), None, rows), {}, data, seen):
            row = {name: raw[name] for name in raw if labelled or name not in RATED}
            yield raw["id"], where, {}, row
        return
    adapter = source.adapter
    if labelled and adapter and not adapter.labels:
        raise DataError(
            f'data.source: "{source.public}" has no ratings; `engine annotate` makes them, in a file that a '
            "spec names as its source"
        )
    columns = {} if adapter else column_names(data, labelled=labelled)
    places = {column: f"fields[{number}]" for number, column in enumerate(data.columns.fields)}
    needed = {column: f"data.columns.{places.get(name, name)}" for name, column in columns.items()}
    if data.columns.explanation == OPTIONAL:
        needed.pop(OPTIONAL, None)
    if data.columns.messages is not None and data.columns.label == ANSWERED:
        needed.pop(ANSWERED, None)
    if adapter:
        needed = dict.fromkeys(adapter.columns, f"{source.public} has it")
    for split, table in open_source(source, data, {*needed, *columns.values(), *data.filter}):
        marked: Row = {"split": split} if split else {}
        for number, place, raw in _filtered(table, needed, data, seen):
            if adapter is None:
                texts = row_texts(raw, place, columns, labelled=labelled)
                yield f"{split or 'row'}-{number}", place, _columns_of(raw, columns), texts | marked
                continue
            try:
                examples = list(adapter.rows(raw))
            except (LookupError, TypeError, ValueError) as error:
                raise DataError(f'{place}: not as "{source.public}" has it: {error!r}') from error
            for index, row in enumerate(examples, start=1):
                fields = {name: row[name] for name in row if labelled or name not in RATED}
                yield f"{split or 'row'}-{number}.{index}", place, {}, fields | marked


def row_texts(raw: Raw, where: str, columns: Mapping[str, str], *, labelled: bool) -> Row:
    """Give the fields of a row by the source's column behind each; DataError for what is no such value."""
    explaining = {name: column for name, column in columns.items() if name.startswith(EXPLAINING)}
    singles = {name: column for name, column in columns.items() if name not in {*explaining, MESSAGES}}
    texts = {name: cell_text(raw.get(column), where, column) for name, column in singles.items()}
    if labelled:
        texts |= explanation_fields([(raw.get(column), column) for column in explaining.values()], where)
    if MESSAGES not in columns:
        return texts
    column = columns[MESSAGES]
    answered = labelled and texts["label"] is None
    return chat_fields(raw.get(column), where, column, answered=answered) | {
        name: text for name, text in texts.items() if name != "label" or not answered
    }


def _columns_of(raw: Raw, columns: Mapping[str, str]) -> Mapping[str, str]:
    """Give the column behind each field of a row: that of its chat for what comes from there."""
    if MESSAGES not in columns:
        return columns
    of_row = {name: column for name, column in columns.items() if column in raw}
    return dict.fromkeys(("context", "response", "label"), columns[MESSAGES]) | of_row


def _filtered(
    table: Table, needed: Mapping[str, str], data: Data, rows_seen: _Seen
) -> Iterator[tuple[int, str, Raw]]:
    """Yield number, place and row of those that `data.filter` keeps; DataError for a missing column."""
    allowed = {
        column: {text for value in _listed(values) for text in _spelled(value)}
        for column, values in data.filter.items()
        if values != []
    }
    wanted = {**dict.fromkeys(allowed, "data.filter"), **needed}
    if table.columns is not None:
        _check_columns(wanted, table.columns, table.where)
    seen: dict[str, None] = {}
    for number, (place, raw) in enumerate(table.rows, start=1):
        if table.columns is None:
            seen.update(dict.fromkeys(raw))
        texts = {column: cell_text(raw.get(column), place, column) or "" for column in allowed}
        keeps = all({text, whole_number(text)} & allowed[column] for column, text in texts.items())
        rows_seen.note(texts, keeps)
        if keeps:
            yield number, place, raw
    if table.columns is None and seen:  # a column may begin in any row
        _check_columns(wanted, list(seen), table.where)


def _listed(values: Any) -> list[str | int | bool]:
    return values if isinstance(values, list) else [values]


def _spelled(value: str | int | bool) -> tuple[str, ...]:
    """Give the texts that a value of `data.filter` stands for; CSV files have True and TRUE, too."""
    if isinstance(value, bool):
        return str(value).lower(), str(value), str(value).upper()
    return (str(value),)


def _check_columns(wanted: Mapping[str, str], columns: Sequence[str], where: str) -> None:
    """Raise DataError for a column that is not there; `wanted` says what needs each column."""
    missing = [(column, reason) for column, reason in wanted.items() if column not in columns]
    if not missing:
        return
    unused = [column for column in columns if column not in wanted]  # others have a role already
    found = []
    for column, reason in missing:
        none = '; "" where there is none' if reason == "data.columns.context" else ""
        near = nearest(column, columns if reason == "data.filter" else unused)
        found.append(f'"{column}" ({reason}{none})' + (f'; did you mean "{near}"?' if near else ""))
    hint = " The" if found[-1].endswith("?") else "; the"
    raise DataError(f"{where}: found no column {', nor '.join(found)}{hint} columns are {', '.join(columns)}")
