"""Rows of JSON: a list of objects, or one object per line, with every number as it is written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import IO, Any

from attrs import define

from engine.data.mistakes import Mistakes
from engine.errors import DataError

CHUNK = 2**16  # characters that are read at once from a list
_MARGIN = 16  # characters at the end of what was read that may be half a word, and so no mistake yet
_SPACES = re.compile(r"[ \t\r\n]*")


class _Twice(dict[str, Any]):
    """An object in which a key occurs twice."""

    key: str


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) == len(pairs):
        return content
    keys = [key for key, _ in pairs]
    twice = _Twice(content)
    twice.key = next(key for key in keys if keys.count(key) > 1)
    return twice


# NaN is what Python's own writer makes of a number that is not there.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=str,
    parse_float=str,
    parse_constant=lambda name: None if name == "NaN" else name,
)


def json_rows(stream: IO[str], where: str, *, lines: bool) -> Iterator[dict[str, Any]]:
    """Yield the objects of a text; with `lines` it holds one per line, else it may be one list, too.

    Numbers are text, digit for digit; NaN is None. No more than an object or a chunk of the text is in
    memory. DataError names the line of what is not JSON, or no object; of lines all that are wrong, at the
    end.
    """
    if not lines:
        window = _Window(stream)
        if window.next() == "[":
            yield from _listed(window, where)
            return
        stream.seek(0)
    expected = "one object per line" if lines else "a list of objects, or one object per line"
    mistakes = Mistakes(where)
    begun = False
    for number, line in enumerate(stream, start=1):
        if text := line.strip(" \t\r\n"):
            if lines and not begun and text.startswith("["):
                raise DataError(
                    f"{where}, line {number}: found a list; expected {expected}; a .json file may hold a list"
                )
            begun = True
            try:
                row = _row(text, f"{where}, line {number}", expected)
            except DataError as error:
                mistakes.note(str(error))
            else:
                yield row
    mistakes.close()


def _row(text: str, at: str, expected: str) -> dict[str, Any]:
    row, end = _decoded(text, 0, at, expected)
    if text[end:].strip():
        raise DataError(f"{at}: found more behind the object; expected {expected}")
    return _checked(row, at)


@define
class _Window:
    """The part of a text that is in memory, and where in it reading has come to."""

    stream: IO[str]
    text: str = ""
    place: int = 0
    line: int = 1  # of the part's first character
    ended: bool = False

    @property
    def number(self) -> int:
        """The line that reading has come to."""
        return self.line + self.text.count("\n", 0, self.place)

    def more(self) -> None:
        """Read on; what has been read already is forgotten."""
        self.line, rest = self.number, self.text[self.place :]
        read = self.stream.read(max(CHUNK, len(rest)))
        self.text, self.place, self.ended = rest + read, 0, not read

    def next(self) -> str:
        """Go to the next character that is no space; give it, or "" at the end."""
        while True:
            spaces = _SPACES.match(self.text, self.place)
            self.place = spaces.end() if spaces else self.place
            if self.place < len(self.text) or self.ended:
                return self.text[self.place : self.place + 1]
            self.more()

    def value(self, where: str) -> Any:
        """Read one value, behind which something has to follow."""
        while True:
            try:
                value, self.place = _DECODER.raw_decode(self.text, self.place)
            except json.JSONDecodeError as error:
                cut = error.pos >= len(self.text) - _MARGIN or error.msg.startswith("Unterminated")
                if self.ended or not cut:
                    self.place = min(error.pos, len(self.text))
                    raise DataError(f"{where}, line {self.number}: not JSON: {error.msg}") from error
                self.more()
            except RecursionError as error:
                raise DataError(f"{where}, line {self.number}: nested too deeply") from error
            else:
                return value


def _listed(window: _Window, where: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of a list."""
    window.place += 1  # behind the bracket
    if window.next() == "]":
        return
    while True:
        window.next()
        at = f"{where}, line {window.number}"
        yield _checked(window.value(where), at)
        sign = window.next()
        if sign not in ("]", ","):
            present = f'"{sign}"' if sign else "the end of the file"
            raise DataError(f'{where}, line {window.number}: not JSON: found {present}; expected "," or "]"')
        window.place += 1
        if sign == "]":
            break
    if more := window.next():
        raise DataError(f'{where}, line {window.number}: found "{more}" behind the list; expected its end')


def _decoded(text: str, place: int, at: str, expected: str) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, place)
    except json.JSONDecodeError as error:
        raise DataError(f"{at}: not JSON: {error.msg}; expected {expected}") from error
    except RecursionError as error:
        raise DataError(f"{at}: nested too deeply") from error


def _checked(row: Any, at: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(f"{at}: expected an object with the names of the columns, found {str(row)[:40]!r}")
    if isinstance(row, _Twice):
        raise DataError(f'{at}: found the column "{row.key}" more than once; expected each name once')
    return row
