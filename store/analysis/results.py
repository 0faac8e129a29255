"""How results are labelled and described: coordinates, units, and the words of method sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from store.errors import StoreError

Columns = Mapping[str, tuple[Any, str, str]]
"""By name: values, units, long_name."""

EXAMPLES = "examples with a value in every seed"
GROUPS = "groups of examples"
SEEDS = "seeds with a value"
STANDARDISED = "mean in standard deviations of a single run's examples"
UNEVEN = " (each by the cells that it has, for some lack cells that others have)"
SCORE = ", for shares Tango's score interval with these widths and Hall's correction for skewness"
SKEWED = ", corrected for skewness where that makes them wider (Hall 1992)"
MISSING = "examples left out for a missing value"


def labelled(like: xr.DataArray, columns: Columns, levels: xr.DataArray | None = None) -> xr.Dataset:
    """Return columns of the shape of `like` with its dims and dimension coordinates.

    levels: the first axis of the columns, before those of `like`.
    """
    coordinates: dict[Any, Any] = {name: c.variable for name, c in like.coords.items() if name in like.dims}
    dims = like.dims
    if levels is not None:
        coordinates["level"], dims = levels, ("level", *dims)
    variables = {
        name: (dims, values, {"units": units, "long_name": title})
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


def count(number: int, thing: str) -> str:
    """Return "1 seed", "2 seeds"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def span(counts: xr.DataArray) -> str:
    """Return the range of some counts: "40", or "38–40"."""
    known = counts.values[np.asarray(counts.values) > 0]  # not of what was not measured at all
    low, high = (int(known.min()), int(known.max())) if known.size else (0, 0)
    return f"{low}" if low == high else f"{low}–{high}"


def intervals(result: xr.Dataset, confidence: float, groups: bool = False, *, withheld: bool = False) -> str:
    """Return what the intervals of a result cover, by its `seeds`, and how they were made.

    groups: whether some examples belong to one group, whose number is in `groups` then. withheld: whether a
    row of one seed has none where others have more. StoreError where `confidence` is no share.
    """
    if not 0 < confidence < 1:  # nan among others
        raise StoreError(f"confidence: found {confidence}; expected a number between 0 and 1, such as 0.95")
    seeds = int(result["seeds"].max())
    units = "groups of examples" if groups else "examples"
    if seeds < 2:
        over = f"t intervals over {units} only (one seed: the variation between trainings is not covered)"
    else:
        over = f"intervals over seeds and {units} as crossed random factors"
        over += f" (the widest t interval of both, of seeds alone and of {units} alone)"
        if (result["seeds"] == 1).any():
            over += f", {'none' if withheld else f'{units} alone'} where there is one seed"
    return f"{confidence:.0%} {over}"


def seeds_of(result: xr.Dataset) -> str:
    """Return the seeds of a result in words: "3 seeds", or "2–3 seeds" where rows differ."""
    known = result["seeds"].values[result["seeds"].values > 0]
    if not known.size:
        return "0 seeds"
    low, high = int(known.min()), int(known.max())
    return count(high, "seed") if low == high else f"{low}–{high} seeds"


def most_seeds(result: xr.Dataset, by: str | None = None) -> None:
    """Keep of `seeds` the most of any row, by one dim."""
    over = [dim for dim in result["seeds"].dims if dim != by]
    result["seeds"] = result["seeds"].max(over, keep_attrs=True)


def units(result: xr.Dataset) -> str:
    """Return the examples of a result in words, and their groups where some share one."""
    examples = f"{span(result['examples'])} examples"
    return f"{examples} in {span(result['groups'])} groups" if grouped(result) else examples


def grouped(result: xr.Dataset) -> bool:
    """Whether some examples of a result share a group."""
    return "groups" in result and bool((result["groups"] < result["examples"]).any())
