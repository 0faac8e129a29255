"""The heat map of one cell: a statistic of every layer as colour, the layer's top token written in."""

from collections.abc import Sequence
from textwrap import fill

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.font_manager import FontProperties, findfont, get_font

from store.errors import StoreError
from store.plots.matrices import draw_matrix, write_texts
from store.plots.style import SIZE, WIDE, drawing, figure_of, need, only, title_of
from store.tokens import token_text

LEAST_SIZE = 3.5  # points; smaller text is left out
BAR_LETTERS = 25  # in a line beside the colour bar
GLYPH = 0.62  # width of a letter in proportion to the text's size, with room to spare


def layer_tokens(
    probe: xr.Dataset,
    ax: Axes | None = None,
    *,
    tokens: Sequence[str] | None = None,
    variable: str = "entropy",
) -> Axes:
    """Draw a statistic of every layer of one cell as colour, with the top token written in each field.

    Text is cut, or left out, where fields are small.

    Args:
        probe: the data of one cell (`dataset.sel(target="label", seed=0)`), of one example, whose positions
            are then the columns, or of one position, with a column for each example.
        tokens: texts by token id, from `store.read_vocabulary`; without them ids are written.
    """
    need(probe, variable, "top_id", source="the probe stage, with probe.top_k of 1 or more")
    values, top = _fields(probe, variable)
    texts = np.array([[token_text(int(number), tokens) for number in row] for row in top.values], object)
    rows, columns = values.shape
    size = (float(np.clip(1.2 + 0.5 * columns, 2, WIDE)), max(2.2, 0.8 + 0.125 * rows))
    with drawing(ax, size) as ax:
        image = draw_matrix(ax, values, Normalize(0, float(np.nanmax(values.values))))
        ax.invert_yaxis()  # as the network is drawn: the last layer on top
        ax.set_yticks(range(0, rows, 5), [str(layer) for layer in values["layer"].values[::5]])
        ax.set_ylabel(_named(values["layer"]))
        ax.set_xlabel(_named(values[values.dims[1]]))
        bar = ax.figure.colorbar(image, ax=ax, pad=0.02, aspect=30)
        bar.set_label(fill(title_of(values), BAR_LETTERS), size=SIZE)
        bar.ax.tick_params(labelsize=SIZE)
        bar.outline.set_visible(False)
        letters, points = _room(ax, rows, columns)
        if points >= LEAST_SIZE and letters >= 1:
            cut = np.vectorize(lambda text: _shortened(_drawable(text), letters), otypes=[object])
            write_texts(ax, image, cut(texts), points)
    return ax


def _fields(probe: xr.Dataset, variable: str) -> tuple[xr.DataArray, xr.DataArray]:
    """Return the statistic and the top token's id, dims (layer, example or position)."""
    wide = [dim for dim in ("example", "position") if probe.sizes.get(dim, 1) > 1]
    if len(wide) > 1:
        raise StoreError(
            f"expected one example or one position, found {probe.sizes['example']} examples and "
            f"{probe.sizes['position']} positions; select with .isel(example=…) or .sel(position=…)"
        )
    column = wide[0] if wide else "position"
    fields_of = only(probe[[variable, "top_id"]].isel(top=slice(0, 1)), "layer", column)
    if column not in fields_of.dims:
        fields_of = fields_of.expand_dims(column)
    return fields_of[variable].transpose("layer", column), fields_of["top_id"].transpose("layer", column)


def _named(coordinate: xr.DataArray) -> str:
    return str(coordinate.attrs.get("long_name") or coordinate.name)


def _room(ax: Axes, rows: int, columns: int) -> tuple[int, float]:
    """Return how many letters fit into a field, and their size in points."""
    figure = figure_of(ax)
    figure.draw_without_rendering()  # only then are the axes at their place
    box = ax.get_window_extent()
    width, height = (length * 72 / figure.dpi for length in (box.width / columns, box.height / rows))
    points = min(SIZE, 0.75 * height)
    return int(width / (GLYPH * points)), points


def _shortened(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: max(0, letters - 1)] + "…"


def _drawable(text: str) -> str:
    """Return the text with a box for every character that the figure's font lacks."""
    known = get_font(findfont(FontProperties())).get_charmap()
    return "".join(letter if ord(letter) in known else "□" for letter in text)
