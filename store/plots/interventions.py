"""What interventions do, by the layers that they change."""

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from store.analysis.interventions import of_condition, sweep_of
from store.plots.style import COLUMN, QUIET, drawing, legend, lines, need, only, shortened, title_of


def intervention_effects(
    result: xr.Dataset, ax: Axes | None = None, *, alpha: float = 0.05, key: bool = True
) -> Axes:
    """Draw the effect of each change, or its share, by the layers it changes, with intervals.

    One line per condition and number of changed layers, each change at its middle; sets that grow from one
    end are one line, each at the end that moves. A marker has a corrected p value below `alpha`.

    Args:
        result: the result of the analysis `intervention_effects` (for entropy: of one layer) or `mediation`.
    """
    name = "effect" if "effect" in result else "share"
    need(result, name, "low", "high", source="intervention_effects or mediation")
    with drawing(ax, (COLUMN, 2.5)) as ax:
        effects = only(result, "condition", "intervention")
        effects = effects if "condition" in effects.dims else effects.expand_dims("condition")
        series = []
        conditions, title = shortened(effects["condition"].values)
        for condition, short in zip(effects["condition"].values, conditions, strict=True):
            part = of_condition(effects, condition)
            sweep = sweep_of(part)
            for span in sorted(set(sweep.spans.tolist())):
                in_span = sweep.spans == span
                text = f"{short}, {sweep.lines[list(in_span).index(True)]}"
                series.append((text, sweep.place[in_span], part.isel(intervention=in_span)))
        ax.axhline(0, color=QUIET, linewidth=0.6, zorder=1)
        handles = []
        for (label, place, part), look in zip(series, lines(len(series)), strict=True):
            handles += ax.plot(place, part[name].values, label=label, **look)
            ax.vlines(place, part["low"], part["high"], color=look["color"], linewidth=0.6, alpha=0.5)
            if "p_adjusted" in part:
                sure = part["p_adjusted"].values < alpha
                ax.plot(place[sure], part[name].values[sure], "o", markersize=3, color=look["color"])
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel(sweep.axis)
        ax.set_ylabel(title_of(effects[name]))
        if key:
            legend(ax, handles, title)
    return ax
