"""What is annotated: the conversations of a spec's `[data]`, the golden set, and where the output goes."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import attrs
from attrs import evolve, frozen

from engine.data.cell_text import cell_text
from engine.data.reading import read_source
from engine.data.table_files import read_file
from engine.errors import DataError, UsageError
from specs import Matrix, Spec
from specs.registry import DATA_SETS
from specs.tables.annotate import COLUMNS, Annotate
from specs.tables.data import Data
from specs.toml.paths import no_such

Row = Mapping[str, str]


@frozen
class Golden:
    """A conversation and its true ratings by dimension."""

    row: Row
    ratings: dict[str, Fraction]


@frozen
class AnnotationJob:
    """One source to annotate, and the file that its ratings go to."""

    settings: Annotate
    data: Data
    output: Path
    golden_file: Path | None

    def rows(self, dropped: Counter[str]) -> list[Row]:
        """Read the conversations, rated or not; `dropped` counts what `[data]` leaves out, by kind."""
        conversations = read_source(self.data, labelled=False, dropped=dropped)
        return [{name: row[name] for name in COLUMNS if name in row} for row in conversations]

    def golden(self, rows: list[Row]) -> list[Golden]:
        """Read the golden set; its rows with an id are looked up in `rows`."""
        return [] if self.golden_file is None else list(_golden(self.golden_file, rows, self.settings))


def jobs(spec: Spec, matrix: Matrix) -> list[AnnotationJob]:
    """Give one job per distinct source among the spec's cells; UsageError where two would share a file."""
    settings = matrix.experiment.annotate
    if settings is None:
        raise UsageError(f"{spec.path}: found no table [annotate]; expected one, see docs/annotate.md")
    folder = spec.folder(("annotate", "output"))
    data_by_source: dict[Path, Data] = {}
    for cell in matrix.cells:
        data = matrix.table("data", cell)
        output = _output(settings, matrix, cell, folder)
        if _what_is_read(data_by_source.setdefault(output, data)) != _what_is_read(data):
            raise UsageError(
                f'annotate.output: found "{settings.output}", one file for several sources; '
                "expected the name of a factor that tells them apart, in braces"
            )
        if str(output) in ([data.source] if isinstance(data.source, str) else data.source):
            raise UsageError(f'annotate.output: found "{settings.output}", which is the source itself')
    of_golden = spec.folder(("annotate", "golden"))
    golden = None if settings.golden is None else of_golden / Path(settings.golden).expanduser()
    return [AnnotationJob(settings, data, output, golden) for output, data in data_by_source.items()]


def _what_is_read(data: Data) -> Data:
    """Forget what has no say in which conversations a source holds."""
    ignored = {"holdout", "validation_share", "train", "validation", "test"}
    if data.source not in DATA_SETS:  # there, each dimension has replies of its own
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
    return Path(os.path.realpath(folder / Path(name).expanduser()))


def _golden(file: Path, rows: list[Row], settings: Annotate) -> Iterator[Golden]:
    known = {row["id"]: row for row in rows}
    if not file.is_file():
        raise DataError(f"annotate.golden: {no_such(file, 'file')}")
    names = ("id", "context", "response", *settings.dimensions)
    for at, raw in read_file(file, names).rows:
        record = {name: cell_text(raw[name], at, name) or "" for name in names if name in raw}
        identity = record.get("id", "")
        if "context" in record and record.get("response"):
            texts = {name: record[name] for name in ("context", "response")}
            row: Row = {"id": identity or f"golden {at.removeprefix(f'{file}, ')}", **texts, "group": ""}
        elif identity in known:
            row = known[identity]
        else:
            raise DataError(
                f"{at}: expected `context` and `response`, or the `id` of one of the "
                f'{len(rows)} conversations; found id "{identity}"'
            )
        ratings = {
            dimension: _true_rating(record[dimension], f"{at}, {dimension}", settings)
            for dimension in settings.dimensions
            if record.get(dimension)
        }
        yield Golden(row, ratings)


def _true_rating(value: str, at: str, settings: Annotate) -> Fraction:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not settings.low <= number <= settings.high:
        raise DataError(f"{at}: expected a rating from {settings.low} to {settings.high}, found {value!r}")
    return Fraction(value.strip())
