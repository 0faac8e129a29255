"""Saturation: the layer from which on a model is sure of its next token, as survival data."""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import CensoredData, ecdf

from store.analysis.groups import Group, Groups, read_groups
from store.analysis.multiplicity import NAMES, Correction, adjust
from store.analysis.nodes import Data, group_seeds, stage_nodes
from store.analysis.permutation import PERMUTATIONS, share_at_least
from store.analysis.resampling import CONFIDENCE, Floats, share_interval, two_way
from store.analysis.wording import described, spell_count


def saturation_layer(max_prob: xr.DataArray, threshold: float = 0.95) -> xr.DataArray:
    """Return the first layer from which the top token's probability stays ≥ threshold to the last layer.

    max_prob: any dims with `layer`; the result lacks `layer`. +inf: censored, not there by the last layer.
    NaN: a layer has no value.
    """
    above = max_prob.transpose(..., "layer").values >= threshold
    stays = np.logical_and.accumulate(above[..., ::-1], axis=-1)[..., ::-1]
    layers = np.append(max_prob["layer"].values.astype(float), np.inf)
    first = layers[np.where(stays.any(axis=-1), stays.argmax(axis=-1), len(layers) - 1)]
    lost = max_prob.isnull().any("layer")
    long_name = f"first layer with top probability of at least {threshold} to the end, inf = none"
    return lost.copy(data=np.where(lost.values, np.nan, first)).assign_attrs(units="1", long_name=long_name)


def saturation(
    data: Data,
    factor: str = "condition",
    baseline: Any = None,
    *,
    threshold: float = 0.95,
    correction: Correction = "holm",
    paired: bool | None = None,
    confidence: float = CONFIDENCE,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> xr.Dataset:
    """Return when examples saturate, by level of a factor (or by condition), and a log-rank test.

    Survival is the share of examples that layer ℓ has not yet saturated (Kaplan & Meier, 1958; all censoring
    is at the last layer). Result, by (level, layer, position): `survival`, `low`, `high`; by (level,
    position): `median_layer` (NaN: fewer than half), `censored` (share), `examples`, `missing`; against the
    baseline (default: the first level) `log_rank` (χ², 1 df), `p_value` by permutation of examples, which
    keeps an example's seeds (and, where levels share examples, its levels) together, and `p_adjusted`.
    """
    groups = read_groups(
        data, "max_prob", factor, "probe", reduce=lambda a: saturation_layer(a, threshold), paired=paired
    )
    layers = _layers(data)
    base = groups.groups[0] if baseline is None else groups.find(baseline)
    parts = [_curve(group, layers, confidence) for group in groups.groups]
    result = xr.concat(parts, "level").assign_coords(level=groups.coordinate)
    shape = base.like.shape
    tests = [
        (np.full(shape, np.nan), np.full(shape, np.nan))
        if group is base
        else log_rank(base.cells, group.cells, layers, groups.paired, permutations, seed)
        for group in groups.groups
    ]
    dims = ("level", *base.like.dims)
    p = np.stack([p for _, p in tests])
    chi2 = np.stack([chi2 for chi2, _ in tests])
    title = f"log-rank statistic against {base.level}"
    result["log_rank"] = (dims, chi2, {"units": "1", "long_name": title})
    result["p_value"] = (dims, p, {"units": "1", "long_name": "p value, two-sided, by permutation"})
    adjusted = adjust(p, 0, correction)
    result["p_adjusted"] = (
        dims,
        adjusted,
        {"units": "1", "long_name": f"p value, {NAMES[correction]} across levels"},
    )
    result.attrs["method"] = (
        f"Kaplan–Meier estimates of the first layer from which the top probability stays at {threshold} or more; "
        f"{groups.sizes} examples, {spell_count(groups.seeds, 'seed')}, censored at the last layer; Wilson "
        f"{described(groups.seeds, None, seed, confidence)}; log-rank tests against {base.level} with p values "
        f"from {permutations} permutations {_exchanged(groups)} (random seed {seed}), {NAMES[correction]} across "
        f"levels; {int(result['missing'].sum())} values missing."
    )
    return result


def log_rank(
    a: Floats, b: Floats, layers: Floats, paired: bool, permutations: int = PERMUTATIONS, seed: int = 0
) -> tuple[Floats, Floats]:
    """Return the log-rank χ² [*rest] of times [cell, example, *rest] in two groups, and its permutation p.

    Paired: the levels of an example change places; else examples change groups. All cells of an example
    move together, so the p value holds however alike they are.
    """
    rng = np.random.default_rng(seed)
    n_a, n_b = a.shape[1], b.shape[1]
    swaps = _memberships(rng, n_a, n_b, paired, permutations)
    rest = a.shape[2:]
    chi2, p = np.empty(rest), np.empty(rest)
    for place in np.ndindex(*rest):
        x, y = a[(..., *place)], b[(..., *place)]
        pooled = _stacked(x, y)
        events = np.stack([(pooled == layer).sum(axis=0) for layer in layers], axis=1).astype(float)
        at_risk = np.stack([(pooled >= layer).sum(axis=0) for layer in layers], axis=1).astype(float)
        null = _log_rank_statistic(swaps, events, at_risk)
        chi2[place], p[place] = null[0], share_at_least(null)
    return chi2, p


def _log_rank_statistic(first: Floats, events: Floats, at_risk: Floats) -> Floats:
    """Return χ² for each membership [permutation, example] in the first group; NaN never counts."""
    d, n = events.sum(axis=0), at_risk.sum(axis=0)
    d_1, n_1 = first @ events, first @ at_risk
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.where(n > 0, d * n_1 / n, 0)
        variance = np.where(n > 1, d * (n_1 / n) * (1 - n_1 / n) * (n - d) / (n - 1), 0).sum(axis=1)
        chi2 = (d_1.sum(axis=1) - expected.sum(axis=1)) ** 2 / variance
    return np.where(variance > 0, chi2, 0.0)


def _memberships(rng: np.random.Generator, n_a: int, n_b: int, paired: bool, permutations: int) -> Floats:
    own = np.concatenate([np.ones(n_a), np.zeros(n_b)])
    if paired:
        flips = rng.integers(0, 2, size=(permutations, n_a))
        drawn = np.concatenate([flips, 1 - flips], axis=1)
    else:
        drawn = rng.permuted(np.tile(own, (permutations, 1)), axis=1)
    return np.concatenate([own[None], drawn])


def _stacked(x: Floats, y: Floats) -> Floats:
    """Return both groups' times [cell, example], the group with fewer cells filled up with NaN."""
    cells = max(len(x), len(y))
    fill = [np.pad(v, ((0, cells - len(v)), (0, 0)), constant_values=np.nan) for v in (x, y)]
    return np.concatenate(fill, axis=1)


def _curve(group: Group, layers: Floats, confidence: float) -> xr.Dataset:
    times = np.moveaxis(group.cells[..., None], -1, 2)  # [cell, example, 1, *rest]
    later = times > layers.reshape(-1, *(1,) * (times.ndim - 3))
    found = two_way(group_seeds(np.where(np.isnan(times), np.nan, later), group.index)[0])
    low, high = share_interval(found, confidence)
    dims = ("layer", *group.like.dims)
    survival = np.apply_along_axis(kaplan_meier, 0, group.cells.reshape(-1, *group.like.shape), layers)
    coordinates = {n: c for n, c in group.like.coords.items() if n in group.like.dims}
    columns = {
        "survival": (dims, survival, "share of examples not yet saturated"),
        "low": (dims, low, "share not yet saturated, lower bound"),
        "high": (dims, high, "share not yet saturated, upper bound"),
        "median_layer": (
            dims[1:],
            _median(survival, layers),
            "first layer that half of the examples have reached",
        ),
        "censored": (dims[1:], survival[-1], "share of examples that never saturate"),
        "examples": (dims[1:], found.examples[-1], "examples with a value in every seed"),
        "missing": (dims[1:], times.shape[1] - found.examples[-1], "examples left out for a missing value"),
    }
    variables = {n: (d, v, {"units": "1", "long_name": title}) for n, (d, v, title) in columns.items()}
    return xr.Dataset(variables, {"layer": layers.astype(int), **coordinates})


def kaplan_meier(times: Floats, layers: Floats) -> Floats:
    """Return the Kaplan–Meier survival function at each layer; +inf is censored at the last, NaN left out."""
    known = times[~np.isnan(times)]
    if not known.size:
        return np.full(len(layers), np.nan)
    reached = np.isfinite(known)
    sample = CensoredData(uncensored=known[reached], right=np.full((~reached).sum(), layers[-1]))
    return np.asarray(ecdf(sample).sf.evaluate(layers))


def _median(survival: Floats, layers: Floats) -> Floats:
    reached = survival <= 0.5
    return np.where(reached.any(axis=0), layers[reached.argmax(axis=0)], np.nan)


def _layers(data: Data) -> NDArray[np.float64]:
    return np.asarray(next(iter(stage_nodes(data, "probe").values()))["layer"].values, dtype=float)


def _exchanged(groups: Groups) -> str:
    return "of levels within examples" if groups.paired else "of examples between levels"
