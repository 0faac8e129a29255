"""A line for each stage that is at work, whole at any width: what matters less gives way first."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen
from rich.cells import cell_len, set_cell_size
from rich.text import Text

from engine.terminal import joined, shown, styled

GAP = "  "
BAR = 20  # characters, where they are left over
SHORT, SHORTEST = (
    20,
    8,
)  # characters of a cell's name: before the speed of a training goes, and before its loss


@frozen
class Line:
    """What a line says."""

    number: str
    """Of the cell: "3/81"."""
    name: str
    """Of the cell: the levels in which cells differ."""
    stage: str
    done: int = 0
    total: int = 0
    text: str = ""
    """Such as the loss, and behind a comma what matters less."""

    @property
    def steps(self) -> str:
        """How many steps, examples or chunks are done."""
        return f"{self.done:,}/{self.total:,}" if self.total else ""


def drawn(lines: Sequence[Line], width: int) -> list[Text]:
    """Draw lines below each other, each at most so wide.

    First the bar goes, then the middle of the cells' names, then what stands behind the comma of the texts,
    more of the names, the texts, and at last the names. Number, stage and steps stay.
    """
    if not lines:
        return []
    named = max(cell_len(shown(line.name)) for line in lines)
    whole = [shown(line.text) for line in lines]
    first, none = [text.partition(", ")[0] for text in whole], [""] * len(lines)
    room = 0
    for texts, least in ((whole, SHORT), (first, SHORTEST), (none, 0)):
        room = width - _width(lines, texts)
        if room >= min(named, least):
            break
    bar = BAR if room >= named + len(GAP) + BAR and any(line.total for line in lines) else 0
    return _composed(lines, texts, max(0, min(named, room)), bar, width)


def shortened(name: str, width: int) -> str:
    """Give a name whose middle is left out where it is too wide."""
    if cell_len(name) <= width:
        return name
    end = max(0, (width - 1) // 2)
    tail = name
    while cell_len(tail) > end:
        tail = tail[1:]
    return set_cell_size(name, max(0, width - 1 - cell_len(tail))).rstrip() + "…"[:width] + tail


def _width(lines: Sequence[Line], texts: Sequence[str]) -> int:
    """Give the characters of all columns but that of the names, with the gap before it."""
    columns = [
        max(map(cell_len, column), default=0)
        for column in (
            [line.number for line in lines],
            [line.stage for line in lines],
            [line.steps for line in lines],
            texts,
        )
    ]
    return sum(wide + len(GAP) for wide in columns if wide)


def _composed(lines: Sequence[Line], texts: Sequence[str], named: int, bar: int, width: int) -> list[Text]:
    number, stage, steps = (
        max(map(len, column), default=0)
        for column in zip(*((line.number, line.stage, line.steps) for line in lines), strict=True)
    )
    drawn = []
    for line, text in zip(lines, texts, strict=True):
        parts: list[Text | str] = [line.number.rjust(number)]
        if named:
            name = shortened(shown(line.name), named)
            parts.append(name + " " * (named - cell_len(name)))
        parts.append(styled(line.stage.ljust(stage), "bold"))
        if steps:
            parts.append(line.steps.rjust(steps))
        if bar:
            parts.append(_bar(line, bar))
        if text:
            parts.append(text)
        whole = joined(parts, GAP)
        whole.truncate(width)
        drawn.append(whole)
    return drawn


def _bar(line: Line, width: int) -> Text:
    full = round(width * min(line.done, line.total) / line.total) if line.total else 0
    return joined([styled("━" * full, "green"), styled("━" * (width - full), "bright_black")])
