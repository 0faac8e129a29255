"""Where each layer ranks the watched tokens, and the token of the true label."""

from typing import Any

import numpy as np
import xarray as xr

from store.analysis.components import Components, Floats
from store.analysis.groups import LevelValues, read_groups
from store.analysis.inference import CONFIDENCE
from store.analysis.nodes import Data, layer_blocks, stage_nodes, variable
from store.analysis.results import (
    EXAMPLES,
    GROUPS,
    MISSING,
    SEEDS,
    by_level,
    grouped,
    intervals,
    labelled,
    level_coordinate,
    seeds_of,
)
from store.analysis.runs import by_seed
from store.analysis.widths import plain_widths

GOLD = "gold"


def rank_trajectory(
    data: Data,
    by: str = "condition",
    *,
    quantiles: tuple[float, float] = (0.25, 0.75),
    confidence: float = CONFIDENCE,
) -> xr.Dataset:
    """Return the median rank of each watched token by layer, and of the true label's token as watch="gold".

    Ranks are not averaged over other factors or seeds before. Reads layers by blocks.

    Returns:
        Result, by (level, layer, position, watch): `rank` (median over examples and cells, 0 = top), its
            interval `low` and `high`, the distribution's `lower` and `upper` quantiles, `seeds`, `examples`,
            `groups` and `missing`. The interval is Woodruff's (1952, JASA 47): that of the share of values
            below the median, read off the distribution. Examples whose label is not watched are missing from
            "gold".
    """
    parts = []
    for layers in layer_blocks(variable(next(iter(stage_nodes(data, "probe").values())), "watch_rank")):
        groups = read_groups(data, "watch_rank", by, "probe", layers=layers, reduce=_with_gold, paired=False)
        medians = [_median(group, quantiles, confidence) for group in groups.groups]
        parts.append(by_level(medians, groups.coordinate))
    result = xr.concat(parts, "layer") if len(parts) > 1 else parts[0]
    watched = result["missing"].sel(watch=result["watch"] != GOLD)
    result.attrs["method"] = (
        f"Median ranks over {groups.sizes} and {seeds_of(result)} by level of {by}, quantiles "
        f"{quantiles[0]} and {quantiles[1]}, Woodruff {intervals(result, confidence, grouped(result))}; "
        f"{int(watched.sum())} values missing."
    )
    return result


def _with_gold(cells: xr.DataArray) -> xr.DataArray:
    """Append the rank of each example's own label as watch="gold", NaN where its label is not watched."""
    texts = [str(text) for text in cells["watch"].values]
    place_of = {text: place for place, text in enumerate(texts)}
    labels = cells["gold"]  # by example, or by cell, too
    found = np.array([place_of.get(label, -1) for label in labels.values.ravel()]).reshape(labels.shape)
    ranks = cells.transpose(..., "watch")
    like = ranks.isel(watch=0, drop=True)
    at = xr.DataArray(found, dims=labels.dims).broadcast_like(like).transpose(*like.dims).values[..., None]
    gold = np.where(at < 0, np.nan, np.take_along_axis(ranks.values, np.maximum(at, 0), axis=-1))
    coordinates = {name: like[name] for name in like.dims if name in like.coords}
    coordinates["watch"] = level_coordinate([*texts, GOLD], "watched text", "watch")
    return xr.DataArray(np.concatenate([ranks.values, gold], axis=-1), coordinates, ranks.dims)


def _median(group: LevelValues, quantiles: tuple[float, float], confidence: float) -> xr.Dataset:
    values = group.cells
    finite = np.isfinite(values)
    present = np.asarray(finite.any(axis=1))
    valid = (finite | ~present[:, None]).all(axis=0) & present.any(axis=0)
    kept = np.where(valid, values, np.nan).reshape(-1, *values.shape[2:])
    lower, median, upper = np.nanquantile(kept, [quantiles[0], 0.5, quantiles[1]], axis=0)
    share = (values < median) + 0.5 * (values == median)
    components = Components.of(by_seed(np.where(finite, share, np.nan), group.index).values, group.labels)
    half = plain_widths(components.variances, components.seeds, components.df_examples).half(1 - confidence)
    columns: dict[str, tuple[Any, str, str]] = {
        "rank": (median, "1", "median rank, 0 = top"),
        "low": (_quantile(kept, 0.5 - half, "lower"), "1", "median rank, lower bound"),
        "high": (_quantile(kept, 0.5 + half, "higher"), "1", "median rank, upper bound"),
        "lower": (lower, "1", f"quantile {quantiles[0]} of the rank"),
        "upper": (upper, "1", f"quantile {quantiles[1]} of the rank"),
        "seeds": (components.seeds, "1", SEEDS),
        "examples": (components.examples, "1", EXAMPLES),
        "groups": (components.groups, "1", GROUPS),
        "missing": (components.missing, "1", MISSING),
    }
    return labelled(group.like, columns)


def _quantile(kept: Floats, at: Floats, method: str) -> Floats:
    """Return a quantile for every statistic, each at its own level, which is held within 0 and 1.

    method: lower or higher, the value on that side. A level beyond the data's reach gives its extreme value.
    """
    ordered = np.sort(kept, axis=0)  # NaN last
    last = np.isfinite(kept).sum(axis=0) - 1
    place = np.clip(np.nan_to_num(at, nan=0.5), 0, 1) * np.maximum(last, 0)
    place = np.floor(place) if method == "lower" else np.ceil(place)
    return np.asarray(np.take_along_axis(ordered, place[None].astype(int), axis=0)[0])
