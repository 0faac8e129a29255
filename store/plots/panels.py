"""Several figures of one kind side by side, with one legend."""

from collections.abc import Callable
from textwrap import fill
from typing import Any

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from store.errors import StoreError
from store.plots.style import SIZE, WIDE, columns_that_fit, styled


def panels(
    draw: Callable[..., Any],
    result: xr.Dataset,
    over: str,
    *,
    columns: int | None = None,
    width: float = WIDE,
    height: float = 2.5,
    **options: Any,
) -> Figure:
    """Return a figure with one panel of `draw` for each entry of the dim `over`, on common axes.

    The figure is not pyplot's and need not be closed.

    Args:
        draw: one of this package's functions.
        columns: panels per row, by default all.
        width: of the figure, in inches.
        height: of a row.
        **options: passed on to `draw`.
    """
    if over not in result.dims:
        raise StoreError(f"over: expected one of the dims {', '.join(map(str, result.dims))}, found {over!r}")
    count = result.sizes[over]
    across = min(count, columns or count)
    rows = -(-count // across)
    letters = int(width / across * 72 / SIZE / 0.6)  # that fit above a panel
    with styled():
        figure = Figure(figsize=(width, height * rows), layout="constrained")
        axes = figure.subplots(rows, across, squeeze=False)
        for ax in axes.flat[count:]:
            ax.remove()
        drawn = list(axes.flat[:count])
        for number, ax in enumerate(drawn):
            entry = result.isel({over: number})
            draw(entry, ax, **options)
            ax.set_title(fill(str(entry[over].values), letters))
        _on_common_axes(drawn)
        _with_one_legend(figure, drawn)
    return figure


def _on_common_axes(axes: list[Axes]) -> None:
    """Give all the widest limits that one has, whichever way they run, and the outer ones the labels."""
    for get, give in ((Axes.get_xlim, Axes.set_xlim), (Axes.get_ylim, Axes.set_ylim)):
        starts, ends = zip(*(get(ax) for ax in axes), strict=True)
        limits = (min(starts), max(ends)) if starts[0] < ends[0] else (max(starts), min(ends))
        for ax in axes:
            give(ax, *limits)
    for ax in axes:
        ax.label_outer()


def _with_one_legend(figure: Figure, axes: list[Axes]) -> None:
    """Put the panels' legends together above them all, each entry once."""
    legends = [legend for ax in axes if (legend := ax.get_legend()) is not None]
    if not legends:
        return
    entries = {
        text.get_text(): handle
        for legend in legends
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
    }
    titles = dict.fromkeys(legend.get_title().get_text() for legend in legends)
    for legend in legends:
        legend.remove()
    figure.legend(
        [handle for handle in entries.values() if handle is not None],
        list(entries),
        title="\n".join(titles) or None,
        loc="outside upper left",
        ncols=columns_that_fit(list(entries), figure.get_size_inches()[0]),
        alignment="left",
    )
