"""Tables in files: CSV, TSV, JSON, JSON Lines, Parquet and Arrow, row by row, values as they are written."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, Any

from attrs import frozen

from engine.data.json_rows import json_rows
from engine.data.mistakes import Mistakes
from engine.errors import DataError, told
from engine.quantities import count
from specs.toml.paths import DATA_FILES, data_suffix

Raw = Mapping[str, Any]
# How the first bytes of a text that is not UTF-8 look; the longer marks first.
_MARKS = {
    b"\xff\xfe\x00\x00": "UTF-32", b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16",
}  # fmt: skip
_SIGNS = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}  # that may part the cells of a line
_LARGEST_CELL = 2**31 - 1  # characters: as many as the csv module can be told to admit


@frozen
class Table:
    """Rows that are read once, each with its place in words."""

    where: str
    columns: Sequence[str] | None  # None: every row has its own
    rows: Iterable[tuple[str, Raw]]


def read_file(path: Path, wanted: Collection[str] | None = None) -> Table:
    """Open a table file by its suffix; of Parquet and Arrow only the `wanted` columns are read (None: all).

    Text stays as it stands there: a cell of CSV is its text and None where it is empty, a JSON string is that
    string, a JSON number its digits as text. Other values are Python's. Raises DataError, then or while the
    rows are read, for what cannot be read so, with the file and the row or line.
    """
    suffix = data_suffix(path)
    if suffix is None:
        raise DataError(
            f'data.source: found "{path}"; expected a file that ends with {", ".join(DATA_FILES)}, each also '
            "with .gz"
        )
    with _reading(path):
        if suffix in (".csv", ".tsv"):
            return _separated(path, "," if suffix == ".csv" else "\t")
        if suffix in (".json", ".jsonl"):
            return Table(str(path), None, _json(path, lines=suffix == ".jsonl"))
        return _columnar(path, suffix, wanted)


def joined(tables: Sequence[Table], where: str) -> Table:
    """Put the rows of several tables behind one another."""
    rows = chain.from_iterable(table.rows for table in tables)
    if len(tables) == 1:
        return Table(where, tables[0].columns, rows)
    return Table(where, None, rows)


def _separated(path: Path, delimiter: str) -> Table:
    csv.field_size_limit(_LARGEST_CELL)
    stream = _text(path)
    lines = _cells(csv.reader(stream, delimiter=delimiter, strict=True), path)
    _, header = next(lines, (1, None))
    if header is None:
        raise DataError(f"{path}: is empty; expected a first line with the names of the columns")
    names = [
        name for name in header if name
    ]  # a separator at the end of each line makes a column without one
    _check_names(names, str(path))
    _check_delimiter(names, delimiter, path)

    def rows() -> Iterator[tuple[str, Raw]]:
        with stream:
            mistakes = Mistakes(str(path))
            for number, (line, cells) in enumerate(lines, start=1):
                place = f"{path}, row {number}"
                if any(cells[len(header) :]):
                    mistakes.note(
                        f"{place} (line {line}): found {count(len(cells), 'cell')}; expected "
                        f"{len(header)}, as there are names in the first line"
                    )
                    continue
                # Some programs leave the separators of empty last cells out.
                cells += [""] * (len(header) - len(cells))
                fields = zip(header, cells, strict=False)
                yield place, {name: cell or None for name, cell in fields if name}
            mistakes.close()

    return Table(str(path), names, rows())


def _cells(reader: Any, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line where each row ends and its cells; lines without any are left out."""
    begin = 1  # of the row that is read next

    def place() -> str:
        return f"lines {begin} to {reader.line_num}" if reader.line_num > begin else f"line {begin}"

    with _reading(path, place):
        for cells in reader:
            if cells:
                yield reader.line_num, cells
            begin = reader.line_num + 1


def _json(path: Path, *, lines: bool) -> Iterator[tuple[str, Raw]]:
    with _text(path) as stream, _reading(path):
        for number, row in enumerate(json_rows(stream, str(path), lines=lines), start=1):
            yield f"{path}, row {number}", row


def _columnar(path: Path, suffix: str, wanted: Collection[str] | None) -> Table:
    """Open a Parquet or Arrow file (of both of Arrow's formats) and read it batch by batch."""
    import pyarrow as pa
    from pyarrow import ipc, parquet

    packed = _is_packed(path)
    source = pa.BufferReader(gzip.decompress(path.read_bytes())) if packed else pa.memory_map(str(path))
    if suffix == ".parquet":
        file = parquet.ParquetFile(source)
        names = file.schema_arrow.names
    else:
        begins = source.read(6)
        source.seek(0)
        file = ipc.open_file(source) if begins == b"ARROW1" else ipc.open_stream(source)
        names = file.schema.names
    _check_names(names, str(path))
    chosen = [name for name in names if wanted is None or name in wanted]

    def batches() -> Iterator[Any]:
        if suffix == ".parquet":
            yield from file.iter_batches(batch_size=1024, columns=chosen)
        elif hasattr(file, "num_record_batches"):
            yield from (file.get_batch(place) for place in range(file.num_record_batches))
        else:
            yield from file

    def rows() -> Iterator[tuple[str, Raw]]:
        number = 0
        with _reading(path):
            for batch in batches():
                values = [_values(batch.column(name)) for name in chosen]
                for row in range(batch.num_rows):
                    number += 1
                    place = f"{path}, row {number}"
                    yield place, {name: column[row] for name, column in zip(chosen, values, strict=True)}

    return Table(str(path), names, rows())


def _values(column: Any) -> list[Any]:
    """Give a column's values; a float of fewer bits than Python's by its own shortest digits."""
    import pyarrow as pa

    if pa.types.is_float16(column.type) or pa.types.is_float32(column.type):
        exact, known = column.to_numpy(zero_copy_only=False), column.is_valid().to_pylist()
        return [float(str(value)) if is_known else None for value, is_known in zip(exact, known, strict=True)]
    return list(column.to_pylist())


def _text(path: Path) -> IO[str]:
    """Open a file of UTF-8 text, packed or not; DataError names another encoding where it can be told."""
    with _bytes(path) as stream:
        begins = stream.read(4)
    encoding = next((name for mark, name in _MARKS.items() if begins.startswith(mark)), None)
    if encoding is None and len(begins) == 4 and 0 in begins:  # every other byte of UTF-16 is zero
        encoding = "UTF-16" if begins.count(0) == 2 else "UTF-32" if begins.count(0) == 3 else None
    if encoding:
        raise DataError(f"{path}: found text in {encoding}; expected UTF-8")
    return io.TextIOWrapper(_bytes(path), encoding="utf-8-sig", newline="")


def _is_packed(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def _bytes(path: Path) -> gzip.GzipFile | io.BufferedReader:
    return gzip.open(path) if _is_packed(path) else path.open("rb")


def _check_names(names: Sequence[str], where: str) -> None:
    twice = [name for name, number in Counter(names).items() if number > 1]
    if twice:
        raise DataError(f'{where}: found the column "{twice[0]}" more than once; expected each name once')


def _check_delimiter(names: Sequence[str], delimiter: str, path: Path) -> None:
    """Raise DataError for a table of one column whose name has what may be meant to part columns."""
    meant = next((sign for sign in _SIGNS if sign != delimiter and len(names) == 1 and sign in names[0]), "")
    if not meant:
        return
    suffix, other = data_suffix(path) or "", {",": ".csv", "\t": ".tsv"}.get(meant)
    renamed = f", or the name {path.name.replace(suffix, other)}" if other else ": save it with these"
    raise DataError(
        f"{path}, line 1: found {_SIGNS[meant]} between the names of columns, {names[0]!r:.80}; expected "
        f"{_SIGNS[delimiter]} in a {suffix} file{renamed}"
    )


@contextmanager
def _reading(path: Path, place: Callable[[], str] | None = None) -> Iterator[None]:
    """Turn what the readers raise into a DataError that names the file, and the place where it is known."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(f"{path}{_undecodable(path)}; expected the file saved as UTF-8") from error
    # Of pyarrow's errors, those that are no OSError are ValueErrors or the like.
    except (csv.Error, EOFError, OSError, zlib.error, ValueError, TypeError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.filename:
            raise DataError(told(error)) from error
        at = f", {place()}" if place else ""
        quotes = '; expected " around a whole cell, closed in it, and "" for one within'
        expected = quotes if isinstance(error, csv.Error) else ""
        raise DataError(f"{path}{at}: cannot be read: {error}{expected}") from error


def _undecodable(path: Path) -> str:
    """Say where a file is not UTF-8; the readers decode ahead of the row that they give."""
    with _bytes(path) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return f", line {number}: found the byte 0x{line[error.start]:02x}, which is not UTF-8"
    return ": is not UTF-8"
