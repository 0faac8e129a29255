"""What is annotated: the conversations of a spec's `[data]`, the golden set, and where the output goes."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import attrs
from attrs import evolve, frozen

from engine.errors import DataError, UsageError
from engine.reading import read_source
from specs import Matrix, Spec
from specs.annotate import COLUMNS, Annotate
from specs.data import BUILT_IN_SETS, Data

Row = Mapping[str, str]


@frozen
class Golden:
    """A conversation and its true ratings by dimension."""

    row: Row
    ratings: dict[str, Fraction]


@frozen
class Job:
    """One source to annotate, and the file that its ratings go to."""

    settings: Annotate
    data: Data
    output: Path
    golden_file: Path | None

    def rows(self, dropped: Counter[str]) -> list[Row]:
        """Read the conversations, rated or not; `dropped` counts what `[data]` leaves out, by kind."""
        found = read_source(self.data, labelled=False, dropped=dropped)
        return [{name: row[name] for name in COLUMNS if name in row} for row in found]

    def golden(self, rows: list[Row]) -> list[Golden]:
        """Read the golden set; its rows with an id are looked up in `rows`."""
        return [] if self.golden_file is None else list(_golden(self.golden_file, rows, self.settings))


def jobs(spec: Spec, matrix: Matrix) -> list[Job]:
    """Give one job per distinct source among the spec's cells; UsageError where two would share a file."""
    settings = matrix.experiment.annotate
    if settings is None:
        raise UsageError(f"{spec.path}: found no table [annotate]; expected one, see docs/annotate.md")
    folder = spec.path.parent
    found: dict[Path, Data] = {}
    for cell in matrix.cells:
        data = matrix.table("data", cell)
        output = _output(settings, matrix, cell, folder)
        if _what_is_read(found.setdefault(output, data)) != _what_is_read(data):
            raise UsageError(
                f'annotate.output: found "{settings.output}", one file for several sources; '
                "expected the name of a factor that tells them apart, in braces"
            )
        if str(output) in ([data.source] if isinstance(data.source, str) else data.source):
            raise UsageError(f'annotate.output: found "{settings.output}", which is the source itself')
    golden = None if settings.golden is None else folder / Path(settings.golden).expanduser()
    return [Job(settings, data, output, golden) for output, data in found.items()]


def _what_is_read(data: Data) -> Data:
    """Forget what has no say in which conversations a source holds."""
    ignored = {"holdout", "validation_share", "train", "validation", "test"}
    if data.source not in BUILT_IN_SETS:  # there, each dimension has replies of its own
        ignored.add("dimension")
    defaults: dict[str, Any] = {key.name: key.default for key in attrs.fields(Data) if key.name in ignored}
    return evolve(data, **defaults)


def _output(settings: Annotate, matrix: Matrix, cell: tuple[int, ...], folder: Path) -> Path:
    levels = matrix.levels(cell)
    try:
        name = settings.output.format_map(levels)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise UsageError(
            f'annotate.output: found "{settings.output}" with the field {error}; '
            f"expected only factors in braces: {', '.join(levels)}"
        ) from error
    return (folder / Path(name).expanduser()).resolve()


def _golden(file: Path, rows: list[Row], settings: Annotate) -> Iterator[Golden]:
    known = {row["id"]: row for row in rows}
    for place, record in _records(file):
        if record.get("context") is not None and record.get("response"):
            row: Row = {name: str(record[name]) for name in ("context", "response")}
            row = {"id": str(record.get("id") or f"golden {place}"), **row, "group": ""}
        elif str(record.get("id")) in known:
            row = known[str(record["id"])]
        else:
            raise DataError(
                f"{file}, {place}: expected `context` and `response`, or the `id` of one of the "
                f"{len(rows)} conversations; found id {record.get('id')!r}"
            )
        ratings = {
            dimension: _true_rating(record[dimension], f"{file}, {place}, {dimension}", settings)
            for dimension in settings.dimensions
            if record.get(dimension) not in (None, "")
        }
        yield Golden(row, ratings)


def _records(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if not file.is_file() or file.suffix not in (".jsonl", ".csv"):
        raise DataError(f'annotate.golden: found "{file}"; expected a .jsonl or .csv file')
    with file.open(encoding="utf-8-sig", newline="") as lines:
        if file.suffix == ".csv":
            for number, record in enumerate(csv.DictReader(lines), start=1):
                yield f"row {number}", record
            return
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                raise DataError(f"{file}, line {number}: not JSON: {error}") from error
            if not isinstance(record, dict):
                raise DataError(f"{file}, line {number}: expected a JSON object")
            yield f"line {number}", record


def _true_rating(value: Any, at: str, settings: Annotate) -> Fraction:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not settings.low <= number <= settings.high:
        raise DataError(f"{at}: expected a rating from {settings.low} to {settings.high}, found {value!r}")
    return Fraction(str(value).strip()) if isinstance(value, str) else Fraction(value)
