"""Where each layer ranks the watched tokens, and the token of the true label."""

from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from store.analysis.groups import Group, read_groups
from store.analysis.nodes import Data, stage_nodes
from store.analysis.resampling import CONFIDENCE, Floats, two_way
from store.analysis.wording import described, spell_count

GOLD = "gold"


def rank_trajectory(
    data: Data,
    by: str = "condition",
    *,
    quantiles: tuple[float, float] = (0.25, 0.75),
    confidence: float = CONFIDENCE,
) -> xr.Dataset:
    """Return the median rank of each watched token by layer, and of the true label's token as watch="gold".

    Result, by (level, layer, position, watch): `rank` (median over examples and seeds, 0 = top), its interval
    `low` and `high`, the distribution's `lower` and `upper` quantiles, `examples` and `missing`. The interval
    is Woodruff's (1952, JASA 47): that of the share of values below the median, read off the distribution.
    Examples whose label is not watched are missing from "gold". Reads one layer at a time.
    """
    layers = next(iter(stage_nodes(data, "probe").values()))["layer"].values
    parts = []
    for layer in layers:
        groups = read_groups(
            data, "watch_rank", by, "probe", reduce=lambda cell, at=layer: _with_gold(cell.sel(layer=at))
        )
        found = [_median(group, quantiles, confidence) for group in groups.groups]
        parts.append(xr.concat(found, "level").assign_coords(level=groups.coordinate))
    result = xr.concat(parts, "layer").assign_coords(layer=layers).transpose("level", "layer", ...)
    result.attrs["method"] = (
        f"Median ranks over {groups.sizes} examples and {spell_count(groups.seeds, 'seed')} by level of {by}, "
        f"quantiles {quantiles[0]} and {quantiles[1]}, Woodruff {described(groups.seeds, None, 0, confidence)}; "
        f"{int(result['missing'].sel(watch=result['watch'] != GOLD).sum())} values missing."
    )
    return result


def _with_gold(cell: xr.DataArray) -> xr.DataArray:
    """Append the rank of each example's own label as watch="gold", NaN where its label is not watched."""
    cell = cell.reset_coords(drop=True).assign_coords(gold=cell["gold"])
    texts = [str(text) for text in cell["watch"].values]
    place = [texts.index(label) if label in texts else -1 for label in cell["gold"].values]
    own = cell.isel(watch=xr.DataArray(place, dims="example"))
    own = own.where(xr.DataArray(np.array(place) >= 0, dims="example"))
    own = own.drop_vars("watch").expand_dims(watch=np.array([GOLD], object))
    return xr.concat([cell, own], "watch", coords="minimal", compat="override")


def _median(group: Group, quantiles: tuple[float, float], confidence: float) -> xr.Dataset:
    values = group.values
    rest = values.shape[2:]
    there = np.isfinite(values).all(axis=0)
    kept = np.where(there, values, np.nan).reshape(-1, *rest)
    found = two_way(_below(values, np.nanmedian(kept, axis=0)))
    half = stats.t.ppf((1 + confidence) / 2, found.df) * np.sqrt(found.variance)
    columns: dict[str, tuple[Any, str]] = {
        "rank": (np.nanmedian(kept, axis=0), "median rank, 0 = top"),
        "low": (_quantile(kept, 0.5 - half, "lower"), "median rank, lower bound"),
        "high": (_quantile(kept, 0.5 + half, "higher"), "median rank, upper bound"),
        "lower": (np.nanquantile(kept, quantiles[0], axis=0), f"quantile {quantiles[0]} of the rank"),
        "upper": (np.nanquantile(kept, quantiles[1], axis=0), f"quantile {quantiles[1]} of the rank"),
        "examples": (there.sum(axis=0), "examples with a value in every seed"),
        "missing": ((~there).sum(axis=0), "examples left out for a missing value"),
    }
    coordinates = {n: c for n, c in group.like.coords.items() if n in group.like.dims}
    variables = {n: (group.like.dims, v, {"units": "1", "long_name": t}) for n, (v, t) in columns.items()}
    return xr.Dataset(variables, coordinates)


def _below(values: Floats, median: Floats) -> Floats:
    """Return 1 for values below the median, ½ for those at it, 0 above, NaN where missing."""
    share = (values < median) + 0.5 * (values == median)
    return np.where(np.isnan(values), np.nan, share)


def _quantile(kept: Floats, at: Floats, method: Any) -> Floats:
    """Return a quantile for every statistic, each at its own level within 0 and 1."""
    levels = np.clip(np.nan_to_num(at, nan=0.5), 0, 1)
    found = np.full(at.shape, np.nan)
    for place in np.ndindex(*at.shape):
        column = kept[(..., *place)]
        if np.isfinite(column).any():
            found[place] = np.nanquantile(column, levels[place], method=method)
    return found
