"""Tables that fit a terminal: names are wrapped, numbers never cut; columns without room stand below."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from attrs import define, field
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from engine.terminal import shown, styled
from store.ledger.levels import level_text

Cell = Text | str
LEAST = 12  # characters of a column of words, if it has as many
SHORT = 8  # characters of a title of numbers that is not wrapped
BORDERS = 3  # characters of a column beside its content; the table has one more


@define
class Column:
    """One column: names of rows, words, or numbers."""

    title: str
    kind: str = "number"  # "name": stands in every part of a table that is parted; "words"; "number"


@define
class Grid:
    """A table whose numbers are whole at any width; a row that is None parts what stands around it."""

    title: str
    columns: list[Column]
    rows: list[Sequence[Cell] | None] = field(factory=list)
    caption: str = ""
    _bold: set[int] = field(factory=set)

    @classmethod
    def of(cls, title: str, names: Iterable[str], numbers: Iterable[str] = ()) -> Grid:
        """Make a table without rows, of columns that name a row and columns of numbers."""
        return cls(title, [*(Column(name, "name") for name in names), *map(Column, numbers)])

    def add(self, *cells: Cell, bold: bool = False) -> None:
        """Add a row."""
        if bold:
            self._bold.add(len(self.rows))
        self.rows.append([cell if isinstance(cell, Text) else styled(cell) for cell in cells])

    def part(self) -> None:
        """Draw a line below the rows so far."""
        self.rows.append(None)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the table, in parts where it is too wide."""
        parts = list(self._parts(options.max_width))
        for number, (chosen, widths) in enumerate(parts, start=1):
            of = f" ({number} of {len(parts)})" if len(parts) > 1 else ""
            yield self._table(chosen, widths, f"{self.title}{of}", number == len(parts))

    def _table(self, chosen: Sequence[int], widths: Sequence[int], title: str, last: bool) -> Table:
        table = Table(title=shown(title), caption=shown(self.caption) if last and self.caption else None)
        for place, width in zip(chosen, widths, strict=True):
            column = self.columns[place]
            justify: Any = "right" if column.kind == "number" else "left"
            table.add_column(styled(column.title), justify=justify, overflow="fold", width=width)
        for number, row in enumerate(self.rows):
            if row is None:
                table.add_section()
            else:
                style = "bold" if number in self._bold else None
                table.add_row(*(row[place] for place in chosen), style=style)
        return table

    def _parts(self, width: int) -> Iterator[tuple[list[int], list[int]]]:
        """Yield which columns stand in each part, and how wide."""
        natural = [self._natural(place) for place in range(len(self.columns))]
        least = [
            wide if column.kind == "number" else min(wide, LEAST)
            for column, wide in zip(self.columns, natural, strict=True)
        ]
        names = [place for place, column in enumerate(self.columns) if column.kind == "name"]
        chosen = list(names)
        for place in (place for place in range(len(self.columns)) if place not in names):
            more = [*chosen, place]
            if len(chosen) > len(names) and _total(least[at] for at in more) > width:
                yield chosen, self._widths(chosen, natural, least, width)
                more = [*names, place]
            chosen = more
        yield chosen, self._widths(chosen, natural, least, width)

    def _widths(
        self, chosen: Sequence[int], natural: Sequence[int], least: Sequence[int], width: int
    ) -> list[int]:
        """Give every column what it needs at the least, and words what is left, the narrowest first."""
        widths = [least[place] for place in chosen]
        rest = width - _total(widths)
        growing = [at for at, place in enumerate(chosen) if natural[place] > least[place]]
        for done, at in enumerate(sorted(growing, key=lambda at: natural[chosen[at]])):
            more = max(0, min(natural[chosen[at]] - widths[at], rest // (len(growing) - done)))
            widths[at] += more
            rest -= more
        return widths

    def _natural(self, place: int) -> int:
        column = self.columns[place]
        cells = [row[place] for row in self.rows if row is not None]
        widest = max((cell_len(line) for cell in cells for line in str(cell).split("\n")), default=0)
        wraps = column.kind == "number" and len(column.title) > SHORT
        words = column.title.split() if wraps else [column.title]
        return max(widest, *(cell_len(shown(word)) for word in words), 1)


def _total(widths: Iterable[int]) -> int:
    return sum(width + BORDERS for width in widths) + 1


def varying(levels: Sequence[Mapping[str, Any]], leave: Sequence[str] = ()) -> tuple[list[str], str]:
    """Give the factors in which rows differ, and in words the levels that all share.

    leave: factors that are not shown.
    """
    names = [name for name in dict.fromkeys(name for row in levels for name in row) if name not in leave]
    known = {name: list(dict.fromkeys(level_text(row.get(name)) for row in levels)) for name in names}
    fixed = [f"{name}={texts[0]}" for name, texts in known.items() if len(texts) == 1]
    return [name for name in names if len(known[name]) > 1], ", ".join(fixed)
