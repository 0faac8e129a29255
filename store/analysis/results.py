"""How results are labelled and described: coordinates, units, and the words of method sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from store.analysis.multiplicity import NAMES, Correction, adjust

Columns = Mapping[str, tuple[Any, str, str]]
"""By name: values, units, long_name."""

EXAMPLES = "examples with a value in every seed"
MISSING = "examples left out for a missing value"


def labelled(like: xr.DataArray, columns: Columns) -> xr.Dataset:
    """Return columns of the shape of `like` with its dims and dimension coordinates."""
    coordinates = {name: c.variable for name, c in like.coords.items() if name in like.dims}
    variables = {
        name: (like.dims, values, {"units": units, "long_name": title})
        for name, (values, units, title) in columns.items()
    }
    return xr.Dataset(variables, coordinates)


def level_coordinate(levels: Sequence[Any], title: str, dim: str = "level") -> xr.DataArray:
    """Return the levels of a factor as a coordinate of `dim`; text as objects, like the store's own."""
    kind = object if any(isinstance(level, str) for level in levels) else None
    return xr.DataArray(np.array(levels, kind), dims=dim, attrs={"units": "", "long_name": title})


def by_level(parts: Sequence[xr.Dataset], levels: xr.DataArray) -> xr.Dataset:
    """Join one dataset per level along `level`."""
    return xr.concat(parts, "level").assign_coords(level=levels)


def add_adjusted(result: xr.Dataset, name: str, correction: Correction, across: str | None = None) -> str:
    """Add `name` with p values corrected across layers, else levels, as p_adjusted or name_adjusted.

    Return the correction in words.
    """
    p = result[name]
    across = across or ("layer" if "layer" in p.dims else "level")
    corrected = adjust(p.values, p.dims.index(across), correction) if across in p.dims else p.values
    words = f"{NAMES[correction]} across {across}s"
    added = "p_adjusted" if name == "p_value" else f"{name}_adjusted"
    result[added] = p.copy(data=corrected).assign_attrs(
        units="1", long_name=f"{p.attrs['long_name']}, {words}"
    )
    return words


def count(number: int, thing: str) -> str:
    """Return "1 seed", "2 seeds"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def span(counts: xr.DataArray) -> str:
    """Return the range of some counts: "40", or "38–40"."""
    low, high = int(counts.min()), int(counts.max())
    return f"{low}" if low == high else f"{low}–{high}"


def intervals(seeds: int, confidence: float, resamples: int | None = None, seed: int = 0) -> str:
    """Return what intervals cover and how they were made."""
    if seeds < 2:
        over = "over examples only (one seed: the variation between trainings is not covered)"
    else:
        over = "over seeds and examples as crossed random factors (Satterthwaite's df)"
    if resamples is None:
        return f"{confidence:.0%} intervals {over}"
    return (
        f"{confidence:.0%} intervals {over}, by the pigeonhole bootstrap ({resamples} resamples, "
        f"random seed {seed})"
    )
