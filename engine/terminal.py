"""The only way to a terminal: text stays text, and control characters are shown rather than sent.

Level names, labels, paths and error messages may hold anything, such as "[INST]", which rich would read as a
style, or an escape sequence, which a terminal would obey, or the end of a line. So no string is read as
markup here, or has lines; what has a style is a `styled` text, and what has lines says so, or is `joined`.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.text import Text

from engine.errors import Interrupted

# Cc: control; Cf: format, such as a change of writing direction; Cs: half of a pair; Zl, Zp: ends of lines.
HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
WIDEST = 100_000  # characters of a line that goes to a file or another program
JOINERS = "\u200c\u200d"  # of letters in many scripts, and of emoji


def shown(text: str, *, lines: bool = False) -> str:
    """Return a text whose control characters are spelled as Python does: `\\x1b` for an escape.

    lines: whether the text has lines of its own, whose ends stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(letter if lines and letter == "\n" else _spelled(letter) for letter in text)


def _spelled(letter: str) -> str:
    if letter in JOINERS or unicodedata.category(letter) not in HIDDEN:
        return letter
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")


def styled(text: Any, style: str = "", *, lines: bool = False) -> Text:
    """Return a text in a style, control characters shown, but for the ends of its own `lines`."""
    return Text(shown(str(text), lines=lines), style)


def joined(parts: Iterable[Text | str], between: str = "") -> Text:
    """Return parts as one text, strings without a style."""
    return Text(between).join([part if isinstance(part, Text) else styled(part) for part in parts])


class Terminal(Console):
    """A console on which strings are plain text."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, highlight=False, emoji=False, **options)
        if not (self.is_terminal or self.is_jupyter or "width" in options or "COLUMNS" in os.environ):
            self.width = WIDEST

    def render_str(self, text: str, **options: Any) -> Text:
        """Render a string, in a table too; whatever it holds is text."""
        return super().render_str(shown(text), **(options | {"markup": False, "emoji": False}))

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render to segments, the last place that a text passes, whoever made it."""
        for part in super().render(renderable, options):
            yield part if part.control else Segment(shown(part.text, lines=True), part.style)


def say(text: Any, *, error: bool = False, lines: bool = False) -> None:
    """Print a line as it is, or `lines`, to standard output or standard error."""
    click.echo(shown(str(text), lines=lines), err=error)


class Words(TextColumn):
    """A column of progress bars whose words are plain text, such as "{task.description}"."""

    def render(self, task: Task) -> Text:
        """Render the words of one bar."""
        return styled(self.text_format.format(task=task))


@contextmanager
def until_ctrl_c(goes_on: bool) -> Iterator[None]:
    """Say nothing of Ctrl-C where it ends what `goes_on` by itself, for that is how a person ends it."""
    try:
        yield
    except KeyboardInterrupt as error:
        if not goes_on:
            raise
        raise Interrupted from error


@contextmanager
def followed(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """Show on standard error, where that is a terminal, how far something is that tells a callback of it."""
    with progress(Terminal(stderr=True)) as bars:
        task = bars.add_task(title, total=None)

        def follow(done: int, total: int, part: str) -> None:
            bars.update(task, completed=done, total=total, description=f"{title}: {part}")

        yield follow


def progress(console: Console, *more: ProgressColumn, shown: bool = True) -> Progress:
    """Return progress bars; none where the console is no terminal, or they are not to be `shown`."""
    columns = (
        Words("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    return _Bars(*columns, *more, console=console, disable=not (console.is_terminal and shown))


def live(console: Console, draw: Callable[[ConsoleOptions], Iterable[RenderableType]]) -> Live:
    """Return what keeps lines at the foot of a terminal, drawn anew some times a second; what is printed
    meanwhile goes above them.

    draw: the lines, by the width and height that there are.
    """

    class Lines:
        def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[RenderableType]:
            return draw(options)

    return Live(Lines(), console=console, transient=True, refresh_per_second=4)


class _Bars(Progress):
    """Progress bars that print nothing where they are disabled: rich 13 ends them with an empty line."""

    def stop(self) -> None:
        """Take the bars away."""
        if not self.disable:
            super().stop()
