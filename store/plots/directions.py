"""How much of an effect a direction carries, by the layer at which it is added, beside random directions."""

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from store.plots.style import COLUMN, QUIET, drawing, legend, lines, need, only, title_of


def steering(result: xr.Dataset, ax: Axes | None = None, *, share: bool = True, key: bool = True) -> Axes:
    """Draw the share of an effect that an added mean difference carries, by layer, beside random directions.

    One line per strength, with its interval at each layer, NaN and endless bounds left out; bands reach from
    the lowest to the highest of the random directions of a strength.

    Args:
        result: the result of the analysis `steering`, of one condition and position.
        share: False draws the effect itself.
    """
    name, low, high = ("share", "share_low", "share_high") if share else ("effect", "low", "high")
    need(result, name, low, high, source="steering")
    with drawing(ax, (COLUMN, 2.5)) as ax:
        drawn = only(result, "layer", "strength").transpose("strength", "layer", ...)
        places, strengths = drawn["layer"].values, drawn["strength"].values
        for bound in (0, 1) if share else (0,):
            ax.axhline(bound, color=QUIET, linewidth=0.6, zorder=1)
        handles: list[Line2D] = []
        for number, look in enumerate(lines(len(strengths))):
            of = drawn.isel(strength=number)
            label = f"{strengths[number]:g} × mean difference"
            handles += ax.plot(places, of[name].values, label=label, zorder=3, **look)
            bounds = of[[low, high]].where(abs(of[[low, high]]) < float("inf"))
            ax.vlines(places, bounds[low], bounds[high], color=look["color"], linewidth=0.6, alpha=0.5)
            if f"random_{name}" in of:
                lowest, highest = (of[f"random_{name}_{end}"].values for end in ("lowest", "highest"))
                ax.fill_between(places, lowest, highest, color=look["color"], alpha=0.2, linewidth=0)
        if f"random_{name}" in drawn:
            handles.append(Line2D([], [], color=QUIET, alpha=0.3, linewidth=4, label="random directions"))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("layer at which it is added")
        ax.set_ylabel(title_of(drawn[name]))
        if key:
            legend(ax, handles)
    return ax
