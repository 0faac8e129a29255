"""Effects of interventions as a map: layers by positions, heads or receivers of paths."""

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from store.plots.matrices import MISSING, draw_matrix
from store.plots.style import COLUMN, SIZE, drawing, need, only, title_of

_AXES = {
    "position": "token position", "head": "head", "receiver": "receiver", "strength": "strength",
    "direction": "direction",
}  # fmt: skip


def patching_grid(
    result: xr.Dataset,
    ax: Axes | None = None,
    *,
    variable: str = "effect",
    alpha: float = 0.05,
    key: bool = True,
) -> Axes:
    """Draw each change's effect by its layer, the lowest at the bottom, and its position, head or receiver.

    A dot marks a corrected p value below `alpha`; grey is what was not measured.

    Args:
        result: the result of the analysis `patching_grid`.
        variable: what is drawn: effect, or share.
    """
    need(result, variable, "p_adjusted", source="patching_grid")
    across = next((dim for dim in result[variable].dims if dim in _AXES), None)
    kept = ("layer", str(across)) if across else ("layer",)
    chosen = only(result, *kept).sortby("layer", ascending=False)
    values = chosen[variable].transpose("layer", ...)
    if across is None:
        chosen, values = chosen.expand_dims(change=[""]), values.expand_dims(change=[""], axis=1)
    most = float(np.nanmax(np.abs(values.values), initial=0)) or 1.0
    with drawing(ax, (COLUMN, 0.9 + min(0.16 * values.shape[0], 5))) as ax:
        image = draw_matrix(ax, values, Normalize(-most, most))
        image.set_cmap(colormaps["RdBu_r"].with_extremes(bad=MISSING))
        rows, columns = np.nonzero(chosen["p_adjusted"].transpose(*values.dims).values < alpha)
        ax.plot(columns, rows, "o", markersize=2, color="black")
        ax.set(ylabel="changed layer", xlabel=_AXES.get(str(across), ""))
        if key:
            bar = ax.figure.colorbar(image, ax=ax, pad=0.02, aspect=30)
            bar.outline.set_visible(False)
            bar.ax.tick_params(labelsize=SIZE)
            bar.set_label(title_of(values))
    return ax
