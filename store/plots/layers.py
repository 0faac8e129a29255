"""Curves over layers: means, differences from a baseline, ranks and saturation; and means over steps."""

from textwrap import fill
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from specs.common.names import LENS
from store.analysis.ranks import GOLD
from store.ledger.levels import level_text
from store.plots.style import COLUMN, QUIET, drawing, legend, lines, need, only, shortened, title_of

SIZE = (COLUMN, 2.5)
LETTERS = 60  # in a line above a figure


def means(result: xr.Dataset, ax: Axes | None = None, *, key: bool = True) -> Axes:
    """Draw means by layer, one line per level, with their intervals as bands.

    Args:
        result: the result of the analysis `means`, such as lens entropy by condition, of one position. Of one
            level there may be several streams (`probe.streams`), with a line for each.
    """
    need(result, "mean", "low", "high", source="means")
    with drawing(ax, SIZE) as ax:
        series = _series(result)
        handles, title = _curves(ax, only(result, series, "layer"), "mean", series)
        if result["mean"].attrs.get("units") == "nat":
            ax.set_ylim(bottom=min(0, ax.get_ylim()[0]) if float(result["mean"].min()) < 0 else 0)
        if key:
            legend(ax, handles, title)
    return ax


def lens_agreement(result: xr.Dataset, ax: Axes | None = None, *, key: bool = True) -> Axes:
    """Draw how much other lenses read as one does, by layer, one line per lens, with intervals as bands.

    Args:
        result: the result of the analysis `lens_agreement`, of one level and position.
    """
    need(result, "mean", "low", "high", source="lens_agreement")
    with drawing(ax, SIZE) as ax:
        handles, title = _curves(ax, only(result, LENS, "layer"), "mean", LENS)
        ax.set_ylim(-0.02, 1.02)
        if key:
            legend(ax, handles, title)
    return ax


def along(result: xr.Dataset, ax: Axes | None = None, *, key: bool = True) -> Axes:
    """Draw means over the steps of a training, one line per level, with their intervals as bands.

    Args:
        result: the result of the analysis `means` with stage="along", such as accuracy by condition, or the
            entropy of one layer and position.
    """
    need(result, "mean", "low", "high", source='means with stage="along"')
    with drawing(ax, SIZE) as ax:
        handles, title = _curves(ax, only(result, "level", "step"), "mean", over="step")
        if key:
            legend(ax, handles, title)
    return ax


def change(result: xr.Dataset, ax: Axes | None = None, *, alpha: float = 0.05, key: bool = True) -> Axes:
    """Draw differences from a baseline by layer with their intervals, and mark significant layers.

    A square at the foot marks a layer whose corrected p value is below `alpha`, in the line's colour; a grey
    band shows differences below the smallest one of interest, where the result has one.

    Args:
        result: the result of the analysis `change`, or of `effects` of a variable by layer, for one position.
    """
    name = "effect" if "effect" in result else "difference"
    need(result, name, "low", "high", "p_adjusted", source="change or effects")
    series = "term" if "term" in result.dims else _series(result)
    if series == "term":
        result = result.sel(term=result["order"] > 0)
    with drawing(ax, SIZE) as ax:
        drawn = only(result, series, "layer")
        ax.axhline(0, color=QUIET, linewidth=0.6, zorder=1)
        if smallest := result.attrs.get("equivalence"):
            ax.axhspan(-smallest, smallest, color=QUIET, alpha=0.12, linewidth=0, zorder=0)
        handles, title = _curves(ax, drawn, name, series)
        marked = _mark(ax, drawn["p_adjusted"], series, alpha)
        baseline = result.attrs.get("baseline")
        if baseline is not None:
            unit = result[name].attrs.get("units", "1")
            of_unit = f" ({unit})" if unit not in ("", "1") else ""
            ax.set_ylabel(f"difference from {level_text(baseline)}{of_unit}")
        if key:
            words = str(drawn["p_adjusted"].attrs.get("long_name", "")).rpartition("two-sided, ")[2]
            note = fill(f"{'■' if marked else 'no layer has'} p < {alpha:g}, {words}", LETTERS)
            legend(ax, handles, "\n".join(filter(None, [note, title])))
    return ax


def rank_trajectory(result: xr.Dataset, ax: Axes | None = None, *, key: bool = True) -> Axes:
    """Draw the median rank of each watched token by layer, log scale with 0 at the top, quantiles as bands.

    Args:
        result: the result of the analysis `rank_trajectory`, of one level and position.
    """
    need(result, "rank", "lower", "upper", source="rank_trajectory")
    with drawing(ax, SIZE) as ax:
        ranks = only(result, "watch", "layer")
        ranks = (
            ranks.sel(watch=ranks["examples"].max("layer") > 0)
            if "watch" in ranks["examples"].dims
            else ranks
        )
        handles, title = _curves(ax, ranks, "rank", "watch", bounds=("lower", "upper"), opacity=0.1)
        ax.set_yscale("symlog", linthresh=1, linscale=0.4)
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        ax.set_ylim(max(1.0, float(ranks["upper"].max())) * 1.3, -0.2)
        if key:
            legend(ax, handles, title)
    return ax


def saturation(result: xr.Dataset, ax: Axes | None = None, *, key: bool = True) -> Axes:
    """Draw the share of examples that each layer has not yet saturated, as steps with intervals.

    Args:
        result: the result of the analysis `saturation`, of one position.
    """
    need(result, "survival", "low", "high", source="saturation")
    with drawing(ax, SIZE) as ax:
        handles, title = _curves(ax, only(result, "level", "layer"), "survival", steps=True)
        ax.set_ylim(-0.02, 1.02)
        if key:
            legend(ax, handles, title)
    return ax


def _series(result: xr.Dataset) -> str:
    """Return the dim that has a line for each entry: the streams of one level, else the levels."""
    return "stream" if result.sizes.get("level", 1) == 1 and result.sizes.get("stream", 1) > 1 else "level"


def _curves(
    ax: Axes,
    result: xr.Dataset,
    name: str,
    series: str = "level",
    *,
    bounds: tuple[str, str] = ("low", "high"),
    opacity: float = 0.18,
    steps: bool = False,
    over: str = "layer",
) -> tuple[list[Line2D], str]:
    """Draw a line over a dim for each entry of `series`, with a band between two other variables.

    Return the lines, and the title that their legend needs.
    """
    places = result[over].values
    entries = (
        result[series].values
        if series in result.dims
        else [result[series].item() if series in result else ""]
    )
    names, title = shortened(entries)
    drawn: list[Line2D] = []
    for number, look in enumerate(lines(len(entries))):
        one = result.isel({series: number}) if series in result.dims else result
        style: dict[str, Any] = {"drawstyle": "steps-post"} if steps else {}
        if entries[number] == GOLD:
            look, names[number] = look | {"color": "black", "linewidth": 1.8}, "true label"
        drawn += ax.plot(places, one[name].values, label=names[number], zorder=3, **style, **look)
        ax.fill_between(
            places,
            one[bounds[0]].values,
            one[bounds[1]].values,
            color=look["color"],
            alpha=opacity,
            linewidth=0,
            step="post" if steps else None,
        )
    ax.set_xlabel(str(result[over].attrs.get("long_name") or over))
    ax.set_ylabel(title_of(result[name]))
    ax.set_xlim(places.min(), places.max())
    if places.dtype.kind in "iu":
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return drawn, title


def _mark(ax: Axes, p: xr.DataArray, series: str, alpha: float) -> bool:
    """Put a row of squares for each line at the foot of the axes; say whether there was any."""
    rows = p.transpose(series, "layer").values if series in p.dims else p.values[None]
    hits = rows < alpha  # NaN is none
    low, high = ax.get_ylim()
    room = 0.035 * (len(rows) + 1)
    ax.set_ylim(low - (high - low) * room / (1 - room), high)
    for number, (layers_hit, look) in enumerate(zip(hits, lines(len(rows)), strict=True)):
        ax.plot(
            p["layer"].values[layers_hit],
            np.full(layers_hit.sum(), 0.035 * (len(rows) - number)),
            transform=ax.get_xaxis_transform(),
            linestyle="",
            marker="s",
            markersize=2.5,
            color=look["color"],
            clip_on=False,
        )
    return bool(hits.any())
