"""What interventions do, by the layers that they change."""

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from store.plots.style import COLUMN, QUIET, drawing, legend, lines, need, only, shortened, title_of


def intervention_effects(
    found: xr.Dataset, ax: Axes | None = None, *, alpha: float = 0.05, key: bool = True
) -> Axes:
    """Draw the effect of each change, or its share, at the middle of the layers it changes, with intervals.

    found: the result of the analysis `intervention_effects` (for entropy: of one layer) or `mediation`. One
    line per condition and number of changed layers; a marker has a corrected p value below `alpha`.
    """
    name = "effect" if "effect" in found else "share"
    need(found, name, "low", "high", source="intervention_effects or mediation")
    with drawing(ax, (COLUMN, 2.5)) as ax:
        own = only(found, "condition", "intervention")
        own = own if "condition" in own.dims else own.expand_dims("condition")
        widths = (own["last"] - own["first"] + 1).values
        series = [(c, w) for c in own["condition"].values for w in sorted(set(widths.tolist()))]
        titles, title = shortened([f"{c}, {w} layer{'s' if w > 1 else ''}" for c, w in series])
        ax.axhline(0, color=QUIET, linewidth=0.6, zorder=1)
        handles = []
        for (condition, width), label, look in zip(series, titles, lines(len(series)), strict=True):
            part = own.sel(condition=condition).isel(intervention=widths == width)
            middle = ((part["first"] + part["last"]) / 2).values
            handles += ax.plot(middle, part[name].values, label=label, **look)
            ax.vlines(middle, part["low"], part["high"], color=look["color"], linewidth=0.6, alpha=0.5)
            if "p_adjusted" in part:
                sure = part["p_adjusted"].values < alpha
                ax.plot(middle[sure], part[name].values[sure], "o", markersize=3, color=look["color"])
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("changed layers (middle)")
        ax.set_ylabel(title_of(own[name]))
        if key:
            legend(ax, handles, title)
    return ax
