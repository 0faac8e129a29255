"""Matrices with their values written in: transfer between sets, and confusion of labels."""

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from store.plots.style import COLUMN, SIZE, drawing, need, only

COLOURMAP = "Blues"  # one hue from light to dark: an order to any colour vision, and in print
MISSING = "0.92"
WHITE = (1.0, 1.0, 1.0, 1.0)


def transfer_matrix(result: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw a metric for every pair of training and test level, with the interval under each value.

    Args:
        result: the result of the analysis `transfer_matrix`.
    """
    need(result, "value", "low", "high", source="transfer_matrix")
    value, low, high = (result[name].transpose("train", "test") for name in ("value", "low", "high"))
    texts = np.array(
        [
            [_interval(*three) for three in zip(*row, strict=True)]
            for row in zip(value.values, low.values, high.values, strict=True)
        ],
        object,
    )
    with drawing(ax, (COLUMN, 0.9 + 0.45 * value.sizes["train"])) as ax:
        write_texts(ax, draw_matrix(ax, value, _scale(value.values)), texts, SIZE)
        names = (f"trained on ({_factor(result, 'train')})", f"tested on ({_factor(result, 'test')})")
        ax.set(ylabel=names[0], xlabel=names[1])
        ax.set_title(str(value.attrs.get("long_name", "")).partition(":")[0])
    return ax


def confusion(result: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Draw the confusion matrix of one level: true labels in rows, predictions in columns.

    "none" heads what was no label.

    Args:
        result: the result of the analysis `confusion`, as counts or shares.
    """
    name = "share" if "share" in result else "count"
    need(result, name, source="confusion")
    values = only(result, "gold", "predicted")[name].transpose("gold", "predicted")
    form = "{:.2f}" if name == "share" else "{:.0f}"
    texts = np.array(
        [["0" if v == 0 else form.format(v) if v > 0 else "" for v in row] for row in values.values], object
    )
    labels = [str(label) or "none" for label in values["predicted"].values]
    with drawing(ax, (COLUMN * 0.75, COLUMN * 0.75)) as ax:
        norm = Normalize(0, 1) if name == "share" else Normalize(0, max(1.0, float(values.max())))
        write_texts(ax, draw_matrix(ax, values.assign_coords(predicted=labels), norm), texts, SIZE)
        ax.set(ylabel="true label", xlabel="predicted label")
    return ax


def draw_matrix(ax: Axes, values: xr.DataArray, norm: Normalize) -> AxesImage:
    """Draw a matrix as colours, rows by columns, each row and column named by its coordinate."""
    colours = colormaps[COLOURMAP].with_extremes(bad=MISSING)
    image = ax.imshow(values.values, norm=norm, cmap=colours, aspect="auto", interpolation="none")
    for axis, dim in zip((ax.yaxis, ax.xaxis), values.dims, strict=True):
        axis.set_ticks(range(values.sizes[dim]), [str(label) for label in values[dim].values])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    longest = max(len(str(label)) for label in values[values.dims[1]].values)
    if longest * values.shape[1] > 45:
        ax.tick_params(axis="x", rotation=35)
        for label in ax.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    return image


def write_texts(ax: Axes, image: AxesImage, texts: NDArray[np.object_], size: float) -> None:
    """Write a text into each field, dark on light colours and light on dark ones."""
    shade = np.asarray(image.get_array(), float)
    for (row, column), text in np.ndenumerate(texts):
        red, green, blue, _ = (
            image.cmap(image.norm(shade[row, column])) if np.isfinite(shade[row, column]) else WHITE
        )
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        ax.text(
            column, row, str(text), ha="center", va="center", size=size, color="white" if dark else "black"
        )


def _scale(values: NDArray[np.float64]) -> Normalize:
    """Give a little room on both sides, so that no value is white or the darkest blue."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    room = max(high - low, 0.05) / 2
    return Normalize(low - room, high + room)


def _factor(result: xr.Dataset, dim: str) -> str:
    return str(result[dim].attrs.get("long_name", dim))


def _interval(value: float, low: float, high: float) -> str:
    if np.isnan(value):
        return ""
    return f"{value:.2f}\n{low:.2f}–{high:.2f}" if np.isfinite(low) else f"{value:.2f}"
