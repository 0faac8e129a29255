"""Plain means by level or condition, each with its interval: what a table of results shows."""

from typing import Any

import numpy as np
import xarray as xr

from store.analysis.changes import stage_of
from store.analysis.nodes import (
    SHARES,
    Data,
    by_condition,
    group_seeds,
    levels,
    numbers,
    stage_nodes,
    variable,
)
from store.analysis.resampling import CONFIDENCE, share_interval, two_way
from store.analysis.results import EXAMPLES, count, intervals, labelled, level_coordinate
from store.errors import StoreError


def means(
    data: Data,
    name: str,
    by: str = "condition",
    *,
    stage: str | None = None,
    confidence: float = CONFIDENCE,
) -> xr.Dataset:
    """Return the mean of a variable by level of a factor, or by condition (all factors but the seed).

    name: as for `contrast`, or with stage="summary" a number of the summary. Result, by (level, layer, …):
    `mean`, `low`, `high` (in the variable's units), `examples`; by level: `seeds`. Intervals cover seeds and
    examples; those of summary numbers seeds alone (NaN for one seed). Reads one level at a time. StoreError
    for unknown names, and for a level that lies in several shapes.
    """
    stage = stage or stage_of(name)
    parts: dict[Any, xr.Dataset] = {}
    attrs: dict[str, Any] = {}
    for whole in stage_nodes(data, stage).values():
        dataset = by_condition(whole) if by == "condition" else whole
        values = variable(dataset, name)
        attrs = values.attrs
        own = dataset.indexes["cell"].get_level_values(by)
        for level in levels(dataset, by):
            if level in parts:
                raise StoreError(f"{by}: the cells of {level!r} come in several shapes; select one")
            parts[level] = _mean(values.isel(cell=np.flatnonzero(own == level)), confidence)
    result = xr.concat(list(parts.values()), level_coordinate(list(parts), by))
    for column in ("mean", "low", "high"):
        result[column].attrs.update(units=attrs.get("units") or "1", long_name=attrs.get("long_name", name))
    seeds = int(result["seeds"].min())
    how = intervals(seeds, confidence)
    if stage == "summary":
        how = f"{confidence:.0%} t intervals over seeds, for these examples"
    result.attrs["method"] = f"Mean {name} by {by}, {count(seeds, 'seed')} or more; {how}."
    return result


def _mean(values: xr.DataArray, confidence: float) -> xr.Dataset:
    crossed = "example" in values.dims
    block = numbers(values.transpose("cell", *(["example"] if crossed else []), ...))
    by_seed, seeds = group_seeds(block.values, values.indexes["cell"])
    found = two_way(by_seed if crossed else by_seed[None])  # in a summary the seeds are the only units
    low, high = share_interval(found, confidence) if values.name in SHARES else found.interval(confidence)
    like = block.isel(cell=0, example=0, drop=True) if crossed else block.isel(cell=0, drop=True)
    columns = {
        "mean": (found.mean, "", ""),
        "low": (low, "", ""),
        "high": (high, "", ""),
        "examples": (found.examples if crossed else np.full(like.shape, np.nan), "1", EXAMPLES),
    }
    return labelled(like, columns).assign(seeds=((), len(seeds), {"units": "1", "long_name": "seeds"}))
