"""Saturation: the layer from which on a model is sure of its next token, as survival data."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import CensoredData, ecdf

from specs.common.thresholds import SATURATED
from store.analysis.between import difference
from store.analysis.components import Components, Floats
from store.analysis.families import add_adjusted
from store.analysis.groups import Groups, LevelValues, read_groups
from store.analysis.inference import CONFIDENCE, inferred
from store.analysis.multiplicity import Correction
from store.analysis.nodes import Data, stage_nodes
from store.analysis.permutation import CHUNK, PERMUTATIONS, share_at_least
from store.analysis.proportions import share_bounds
from store.analysis.results import (
    EXAMPLES,
    GROUPS,
    MISSING,
    SEEDS,
    by_level,
    grouped,
    intervals,
    labelled,
    seeds_of,
)
from store.analysis.runs import by_seed, over_groups
from store.errors import StoreError


def saturation(
    data: Data,
    factor: str = "condition",
    baseline: Any = None,
    *,
    threshold: float = SATURATED,
    correction: Correction = "holm",
    paired: bool | None = None,
    confidence: float = CONFIDENCE,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> xr.Dataset:
    """Return when examples saturate, by level of a factor (or by condition), and a log-rank test.

    Survival is the share of examples that layer ℓ has not yet saturated (Kaplan & Meier, 1958; all censoring
    is at the last layer).

    Returns:
        Result, by (level, layer, position): `survival`, `low`, `high`; by (level, position): `median_layer`
            (NaN: fewer than half), `censored` (share), `seeds`, `examples`, `groups`, `missing`; against the
            baseline (default: the first level) `difference` in the restricted mean saturation layer (an
            example that never saturates counts as one layer after the last) with `difference_low`,
            `difference_high`, `p_value` and `p_adjusted`, over seeds and examples as in `change`. For these
            trained models alone: `log_rank` (χ², 1 df) with `log_rank_p` by permutation of examples or their
            groups, which keeps an example's cells (and, where levels share examples, its levels) together,
            and `log_rank_p_adjusted`.
    """
    groups = read_groups(
        data,
        "max_prob",
        factor,
        "probe",
        reduce=lambda cells: saturation_layer(cells, threshold),
        paired=paired,
    ).alike()
    layers = _layers(data)
    base = groups.find(baseline)
    parts = []
    for group in groups.groups:
        units = base.units, group.units
        chi2, p = log_rank(base.cells, group.cells, layers.values, groups.paired, permutations, seed, units)
        last = float(layers.values[-1]) + 1
        inference = inferred(
            difference(base, group, groups.paired, lambda times: np.minimum(times, last)),  # noqa: B023
            confidence=confidence,
        )
        tests = {
            "difference": (
                inference.mean,
                "1",
                f"difference in the restricted mean saturation layer to {base.level}",
            ),
            "difference_low": (inference.low, "1", "difference, lower bound"),
            "difference_high": (inference.high, "1", "difference, upper bound"),
            "p_value": (inference.p, "1", "p value, two-sided"),
            "log_rank": (chi2, "1", f"log-rank statistic against {base.level}"),
            "log_rank_p": (p, "1", "p value for these trained models, two-sided"),
        }
        if group is base:
            tests = {name: (np.full_like(p, np.nan), *told[1:]) for name, told in tests.items()}
        parts.append(_curve(group, layers, confidence).merge(labelled(group.like, tests)))
    result = by_level(parts, groups.coordinate)
    words = add_adjusted(result, "p_value", correction, factor)
    add_adjusted(result, "log_rank_p", correction, factor)
    curves = (
        f"Kaplan–Meier estimates of the first layer from which the top probability stays at {threshold} or "
        f"more, {groups.sizes}, {seeds_of(result)}, censored at the last layer; Wilson "
        f"{intervals(result, confidence, grouped(result))}"
    )
    means = f"restricted mean layers against {base.level} by the same inference, {words}"
    result["survival"].attrs["method"] = f"{curves}."
    result["difference"].attrs["method"] = f"{groups.sizes}, {seeds_of(result)}; {means}."
    result.attrs["method"] = (
        f"{curves}; {means}; log-rank tests for these trained models from "
        f"{permutations} {_exchanged(groups)} (random seed {seed}); "
        f"{int(result['missing'].sum())} values missing."
    )
    return result


def _layers(data: Data) -> xr.DataArray:
    """Return the layers that all cells have; StoreError where they differ."""
    first, *others = stage_nodes(data, "probe", "max_prob").values()
    for node in others:
        if not node["layer"].equals(first["layer"]):
            sizes = f"{node.sizes['layer']} and {first.sizes['layer']}"
            raise StoreError(f"layer: expected the same ones in all cells, found {sizes}; select a model")
    return first["layer"]


def saturation_layer(max_prob: xr.DataArray, threshold: float = SATURATED) -> xr.DataArray:
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


def kaplan_meier(times: Floats, layers: Floats) -> Floats:
    """Return the survival function at each layer; +inf is censored at the last layer, NaN left out."""
    known = times[~np.isnan(times)]
    if not known.size:
        return np.full(len(layers), np.nan)
    reached = np.isfinite(known)
    sample = CensoredData(uncensored=known[reached], right=np.full((~reached).sum(), layers[-1]))
    return np.asarray(ecdf(sample).sf.evaluate(layers))


def log_rank(
    a: Floats,
    b: Floats,
    layers: Floats,
    paired: bool,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    units: tuple[NDArray[np.intp], NDArray[np.intp]] | None = None,
) -> tuple[Floats, Floats]:
    """Return the log-rank χ² [*rest] of times [cell, example, *rest] in two groups, and its permutation p.

    Paired: the levels of an example change places; else examples change groups. All cells of an example
    move together, so the p value holds however alike they are; units: the group of each example of
    both, whose examples move together, too.
    """
    rest, by = a.shape[2:], units or (None, None)
    chi2, p = np.empty(rest), np.empty(rest)
    for place in np.ndindex(*rest):
        sides = a[(..., *place)], b[(..., *place)]
        counts = [
            [
                over_groups(_count(compare(x[None], layers[:, None, None])), members_of)
                for x, members_of in zip(sides, by, strict=True)
            ]
            for compare in (np.equal, np.greater_equal)
        ]
        events, at_risk = (np.concatenate(of_sides) for of_sides in counts)
        members = _memberships(len(counts[0][0]), len(counts[0][1]), paired, permutations, seed)
        null = np.concatenate([_log_rank_statistic(first, events, at_risk) for first in members])
        chi2[place], p[place] = null[0], share_at_least(null)
    return chi2, p


def _count(happened: Floats) -> Floats:
    """Return how many cells [layer, cell, example] it happens in: [example, layer]."""
    return np.asarray(happened.sum(axis=1).T, dtype=float)


def _log_rank_statistic(first: Floats, events: Floats, at_risk: Floats) -> Floats:
    """Return χ² for each membership [permutation, example] in the first group; 0 where nothing happens."""
    d, n = events.sum(axis=0), at_risk.sum(axis=0)
    d_1, n_1 = first @ events, first @ at_risk
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.where(n > 0, d * n_1 / n, 0)
        variance = np.where(n > 1, d * (n_1 / n) * (1 - n_1 / n) * (n - d) / (n - 1), 0).sum(axis=1)
        chi2: Floats = (d_1.sum(axis=1) - expected.sum(axis=1)) ** 2 / variance
    return np.where(variance > 0, chi2, np.zeros_like(chi2))


def _memberships(n_a: int, n_b: int, paired: bool, permutations: int, seed: int) -> Iterator[Floats]:
    """Yield chunks of who is in the first group [permutation, examples of both], the data's own first."""
    rng = np.random.default_rng(seed)
    members = np.concatenate([np.ones(n_a), np.zeros(n_b)])
    yield members[None]
    for start in range(0, permutations, CHUNK):
        rows = min(CHUNK, permutations - start)
        if paired:
            stay = rng.integers(0, 2, size=(rows, n_a)).astype(float)
            yield np.concatenate([stay, 1 - stay], axis=1)
        else:
            yield rng.permuted(np.tile(members, (rows, 1)), axis=1)


def _curve(group: LevelValues, layer: xr.DataArray, confidence: float) -> xr.Dataset:
    layers = layer.values
    times = np.moveaxis(group.cells[..., None], -1, 2)  # [cell, example, 1, *rest]
    later = times > layers.reshape(-1, *(1,) * group.like.ndim)
    runs = by_seed(np.where(np.isnan(times), np.nan, later), group.index)
    components = Components.of(runs.values, group.labels)
    low, high = share_bounds(components, confidence)
    flat = group.cells.reshape(-1, *group.like.shape)
    survival = np.apply_along_axis(kaplan_meier, 0, flat, layers)
    by_layer = labelled(
        group.like.expand_dims(layer=layer),
        {
            "survival": (survival, "1", "share of examples not yet saturated"),
            "low": (low, "1", "share not yet saturated, lower bound"),
            "high": (high, "1", "share not yet saturated, upper bound"),
        },
    )
    reached = survival <= 0.5
    median = np.where(reached.any(axis=0), layers[reached.argmax(axis=0)], np.nan)
    overall = {
        "median_layer": (median, "1", "first layer that half of the examples have reached"),
        "censored": (survival[-1], "1", "share of examples that never saturate"),
        "seeds": (components.seeds[-1], "1", SEEDS),
        "examples": (components.examples[-1], "1", EXAMPLES),
        "groups": (components.groups[-1], "1", GROUPS),
        "missing": (components.missing[-1], "1", MISSING),
    }
    return by_layer.merge(labelled(group.like, overall)).assign_coords(layer=layer)


def _exchanged(groups: Groups) -> str:
    return (
        f"exchanges of levels within {groups.units}"
        if groups.paired
        else f"exchanges of {groups.units} between levels"
    )
