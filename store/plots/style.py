"""How all figures look: sizes, colours safe for any colour vision, labels from units, and saving."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib as mpl
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from store.errors import StoreError
from store.ledger.levels import level_text

COLUMN = 3.4
"""Width in inches of one column of a two-column page."""
WIDE = 7.0
"""Width in inches of the whole page."""

# Okabe and Ito's palette (2008) without its yellow, which is too light for lines on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", ":", "-.")
QUIET = "0.45"
SIZE = 7
STYLE: Any = {  # matplotlib types its keys one by one
    "axes.labelsize": SIZE,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": SIZE + 1,
    "font.size": SIZE,
    "legend.fontsize": SIZE,
    "legend.title_fontsize": SIZE,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "lines.linewidth": 1.2,
    "text.parse_math": False,  # a "$" in a label or a token is a dollar sign
    "xtick.labelsize": SIZE,
    "xtick.major.width": 0.6,
    "ytick.labelsize": SIZE,
    "ytick.major.width": 0.6,
}
EDITABLE: Any = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "figure"}
LEGEND: Any = {"bbox_to_anchor": (0, 1), "borderaxespad": 0.2, "columnspacing": 1.2, "alignment": "left"}
LETTERS = 38  # after so many letters the name of an axis goes on in a second line
LETTER = 0.55  # width of a letter by the size of the font
LINE_AND_GAP = 3.5  # of a legend, by the size of the font
LEGEND_ROOM = 0.5  # inches of a figure's height that a legend may take
AXIS_ROOM = 0.45  # inches that the tick labels and the name of an axis take
UNDATED = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}


@contextmanager
def styled() -> Iterator[None]:
    """Let matplotlib make what is made here in this package's style.

    Not by rc_context, which also takes back what others set meanwhile: a notebook's backend turns interactive
    with its first figure, and would show no other.
    """
    before = {key: mpl.rcParams[key] for key in STYLE}
    mpl.rcParams.update(STYLE)
    try:
        yield
    finally:
        mpl.rcParams.update(before)


@contextmanager
def drawing(ax: Axes | None, size: tuple[float, float]) -> Iterator[Axes]:
    """Give the axes to draw on: the caller's, or those of a new pyplot figure of `size` inches.

    A new figure grows by what a long legend takes above the axes.
    """
    new = ax is None
    with styled():
        if ax is None:
            from matplotlib import pyplot as plt

            ax = plt.subplots(figsize=size, layout="constrained")[1]
        ax.tick_params(labelsize=SIZE)  # ticks are made when first drawn, after this context has ended
        yield ax
        if new and (above := ax.get_legend()) is not None:
            figure = figure_of(ax)
            height = above.get_window_extent().height / figure.dpi
            figure.set_figheight(size[1] + max(0.0, height - LEGEND_ROOM))


def save(figure: Figure | Axes, file: str | os.PathLike[str]) -> Path:
    """Save a figure in the format of the file's suffix; text in PDF and SVG stays text, without a date."""
    path = Path(file)
    whole = figure_of(figure) if isinstance(figure, Axes) else figure
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(EDITABLE):
        whole.savefig(path, dpi=300, metadata=UNDATED.get(path.suffix.lower()))
    return path


def figure_of(ax: Axes) -> Figure:
    """Return the whole figure that the axes are on."""
    figure = ax.get_figure(root=True)
    if not isinstance(figure, Figure):
        raise StoreError("expected axes on a figure, found axes that have been removed from theirs")
    return figure


def lines(count: int) -> list[dict[str, Any]]:
    """Return the looks of so many lines: neighbours differ in colour and in dashes, 28 in one of both."""
    looks = zip(cycle(DASHES), cycle(COLOURS), strict=False)
    return [{"linestyle": dash, "color": colour} for dash, colour in islice(looks, count)]


def title_of(values: xr.DataArray) -> str:
    """Return what a variable is, and its units in brackets where it has any."""
    units = values.attrs.get("units", "1")
    name = str(values.attrs.get("long_name") or values.name)
    return fill(f"{name} ({units})" if units not in ("", "1") else name, LETTERS)


def only(result: xr.Dataset, *kept: str) -> xr.Dataset:
    """Return the data with the dims in `kept` alone; StoreError where another has more than one entry."""
    for dim in result.dims:
        if dim not in kept and result.sizes[dim] > 1:
            known = ", ".join(map(str, result[dim].values[:6])) if dim in result.coords else "no labels"
            raise StoreError(
                f"{dim}: expected one to draw, found {result.sizes[dim]} ({known}); select one with "
                f'.sel({dim}=…), or draw all side by side with panels(…, over="{dim}")'
            )
    return result.squeeze([dim for dim in result.dims if dim not in kept])


def need(result: xr.Dataset, *names: str, source: str) -> None:
    """Check that the data has these variables; StoreError says which analysis gives them."""
    if missing := [name for name in names if name not in result]:
        known = ", ".join(map(str, result.data_vars)) or "nothing"
        raise StoreError(f"expected the result of {source}, with {missing[0]!r}; found {known}")


def legend(ax: Axes, handles: Sequence[Line2D], title: str = "") -> None:
    """Put the legend above the axes, where it covers no data; a single line without title needs none."""
    if len(handles) < 2 and not title:
        return
    place = ax.get_subplotspec()
    share = 1 / place.get_gridspec().ncols if place else ax.get_position().width
    room = figure_of(ax).get_size_inches()[0] * share - AXIS_ROOM
    letters = int((room * 72 / SIZE - LINE_AND_GAP) / LETTER)
    labels = [fill(str(handle.get_label()), letters) for handle in handles]
    ax.legend(
        handles=handles,
        labels=labels,
        title=fill_lines(title, letters) or None,
        ncols=columns_that_fit(labels, room),
        loc="lower left",
        **LEGEND,
    )


def fill_lines(text: str, letters: int) -> str:
    """Break each line of a text at so many letters."""
    return "\n".join(fill(line, letters) for line in text.splitlines())


def columns_that_fit(labels: Sequence[str], inches: float) -> int:
    """Return how many legend columns fit into a width, for entries as wide as the longest line."""
    longest = max(len(line) for label in labels for line in label.splitlines())
    each = (longest * LETTER + LINE_AND_GAP) * SIZE / 72
    return max(1, min(len(labels), int(inches / each)))


def shortened(levels: Iterable[Any]) -> tuple[list[str], str]:
    """Return names for the legend and its title: conditions in words lose the factors' names to the title.

    "target=label, rank=8" becomes "label, 8" under "target, rank" where all levels name the same factors.
    """
    names = [level_text(level) for level in levels]
    parts = [[part.partition("=") for part in name.split(", ")] for name in names]
    factors = {tuple(factor for factor, equals, _ in words if equals) for words in parts}
    if len(factors) != 1 or any(not equals for words in parts for _, equals, _ in words):
        return names, ""
    return [", ".join(value for *_, value in words) for words in parts], ", ".join(factors.pop())
