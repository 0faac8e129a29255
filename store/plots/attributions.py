"""What the parts of the residual stream add to the label's logit, layer by layer."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from store.plots.style import COLOURS, COLUMN, QUIET, drawing, legend, need, only, title_of

WIDTH = 0.8  # of all bars of a layer, in layers


def attribution(result: xr.Dataset, ax: Axes | None = None, *, key: bool = True) -> Axes:
    """Draw what each component adds by layer, as bars with their intervals, and the sum up to each layer.

    Args:
        result: the result of the analysis `means` of `label_attribution`, of one level and position. A change
            of it by the analysis `change` is drawn alike.
    """
    name = "difference" if "difference" in result else "mean"
    need(result, name, "low", "high", source='means("label_attribution")')
    with drawing(ax, (COLUMN, 2.5)) as ax:
        drawn = only(result, "component", "layer").transpose("component", "layer")
        places, names = drawn["layer"].values, [str(part) for part in drawn["component"].values]
        values = drawn[name].values
        # What stands at one layer alone has its own place there; those of every block stand side by side.
        alone = np.isfinite(values).sum(axis=1) < 2
        width = WIDTH / max(1, int((~alone).sum()))
        ax.axhline(0, color=QUIET, linewidth=0.6, zorder=1)
        handles: list[Line2D] = []
        for number, (part, colour) in enumerate(zip(names, COLOURS, strict=False)):
            own = int(alone[:number].sum()) if alone[number] else int((~alone[:number]).sum())
            at = places + (own + 0.5) * width - WIDTH / 2
            ax.bar(at, values[number], width, color=colour, alpha=0.75, linewidth=0, zorder=2)
            low, high = (drawn[bound].values[number] for bound in ("low", "high"))
            ax.vlines(at, low, high, color=colour, linewidth=0.6, zorder=3)
            handles.append(Line2D([], [], color=colour, linewidth=4, label=part))
        total = np.nancumsum(np.nansum(values, axis=0))
        handles += ax.plot(places, total, color="black", linewidth=1, label="sum so far", zorder=4)
        ax.set_xlabel(str(drawn["layer"].attrs.get("long_name") or "layer"))
        ax.set_ylabel(title_of(drawn[name]))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        if key:
            legend(ax, handles)
    return ax
