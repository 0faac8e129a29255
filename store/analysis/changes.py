"""What a factor's levels change: paired differences, and their means with intervals and tests."""

from typing import Any

import numpy as np
import xarray as xr

from store.analysis.multiplicity import Correction
from store.analysis.nodes import DERIVED, SHARES, Data, group_seeds, layer_blocks, stage_node
from store.analysis.pairs import Pairs, differences, find_pairs
from store.analysis.resampling import CONFIDENCE, RESAMPLES, Floats, TwoWay, d_z, mean_interval
from store.analysis.results import EXAMPLES, MISSING, add_adjusted, by_level, count, intervals, labelled, span
from store.errors import StoreError


def contrast(data: Data, variable: str, factor: str, baseline: Any = None, level: Any = None) -> xr.Dataset:
    """Return the differences of a variable between levels of a factor and its baseline, pair by pair.

    variable: any numeric one of the stage, or correct, generated_correct, absolute_error. baseline: by
    default the first level. level: one or several, by default all others. Result: `difference` (level, pair,
    *the variable's dims), in the variable's units and read when asked for; `pair` is the index of the other
    factors and the seed; `pairs` (level) counts them. NaN where a level lacks a pair or a value is missing.
    StoreError for unknown names and when no two cells differ in the factor alone.
    """
    dataset = stage_node(data, stage_of(variable))
    pairs = find_pairs(dataset, factor, baseline, level)
    found = xr.Dataset({"difference": differences(dataset, variable, pairs)})
    counts = (pairs.condition >= 0).sum(axis=1)
    found["pairs"] = ("level", counts, {"units": "1", "long_name": "pairs of cells"})
    found.attrs = {"factor": factor, "baseline": str(pairs.baseline)}
    found.attrs["method"] = (
        f"Differences in {variable} between levels of {factor} and {pairs.baseline}, paired by seed, example "
        f"and all other factors ({count(int(counts.sum()), 'pair')} of cells){_moved(pairs)}."
    )
    return found


def change(
    data: Data,
    variable: str,
    factor: str,
    baseline: Any = None,
    level: Any = None,
    *,
    correction: Correction = "holm",
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> xr.Dataset:
    """Return the mean difference of a variable from a factor's baseline, with interval, test and effect size.

    Means are over examples, seeds and the levels of the other factors, each with equal weight; to keep a
    factor apart, select one of its levels first. Result, by (level, layer, position, …): `difference`, `low`,
    `high` (in the variable's units), `p_value` (two-sided t test, seeds and examples random), `p_adjusted`
    (corrected across layers, else across levels), `effect_size` (Cohen's d_z of the examples' mean
    differences), `examples`, `missing`; by level: `seeds`. Where a share changes in no example, or alike in
    all, it has no interval (NaN). Reads two cells at a time, layers by blocks.
    """
    paired = contrast(data, variable, factor, baseline, level)
    difference = paired["difference"]
    if "example" not in difference.dims:
        raise StoreError(f"{variable}: expected a variable by example, found {difference.dims}")
    parts = []
    for own in difference.transpose("level", ...):
        blocks = []
        for layers in layer_blocks(own):
            block = own.isel(layer=layers) if "layer" in own.dims else own
            values, seeds = by_seed(block)
            blocks.append(summary(values, without_units(block), variable, resamples, seed, confidence))
        part = xr.concat(blocks, "layer") if len(blocks) > 1 else blocks[0]
        parts.append(part.assign(seeds=((), len(seeds), {"units": "1", "long_name": "seeds"})))
    result = by_level(parts, difference["level"])
    words = add_adjusted(result, "p_value", correction)
    for name in ("difference", "low", "high"):
        result[name].attrs.update(difference.attrs)
    seeds_used = int(result["seeds"].min())
    result.attrs = paired.attrs | {
        "method": f"{paired.attrs['method'].removesuffix('.')}; mean over {span(result['examples'])} "
        f"examples and {count(seeds_used, 'seed')}, {intervals(seeds_used, confidence, resamples, seed)}; "
        f"two-sided t tests, {words}; {int(result['missing'].sum())} values missing."
    }
    return result


def relative_entropy(data: Data, factor: str, baseline: Any = None, **options: Any) -> xr.Dataset:
    """Return the lens entropy relative to a baseline (condition minus baseline, nat) per layer and position.

    This is `change` of the variable `entropy`, with its result and its options; it is a difference of
    entropies, not a Kullback-Leibler divergence.
    """
    return change(data, "entropy", factor, baseline, **options)


def stage_of(variable: str) -> str:
    """Return the stage that holds a variable."""
    return "evaluate" if variable in DERIVED or variable == "label_logprob" else "probe"


def by_seed(paired: xr.DataArray) -> tuple[Floats, list[Any]]:
    """Return paired values (pair, example, *rest) as [seed, example, *rest], other factors averaged.

    A pair without a single value is left out, then a seed that lacks pairs which others have, with warnings.
    """
    values = paired.transpose("pair", "example", ...).values
    there = np.isfinite(values).reshape(len(values), -1).any(axis=1)
    if not there.any():
        raise StoreError(f"{paired.name}: not one value in {len(values)} pairs of cells")
    return group_seeds(values[there], paired.indexes["pair"][there])


def without_units(paired: xr.DataArray) -> xr.DataArray:
    """Return the dims and coordinates (of one pair and example) that results by layer and position have."""
    return paired.isel(pair=0, example=0, drop=True)


def undetermined(variable: str, found: TwoWay, low: Floats, high: Floats) -> tuple[Floats, Floats, Floats]:
    """Return low, high and p value; for a share NaN where no example differs from the others in its change.

    That some examples agree does not mean that all would. That nothing changed keeps its p value of 1.
    """
    p = found.t_test()
    if variable not in SHARES:
        return low, high, p
    still = found.variance == 0
    low, high = (np.where(still, np.nan, bound) for bound in (low, high))
    return low, high, np.where(still & (found.mean != 0), np.nan, p)


def summary(
    values: Floats, like: xr.DataArray, variable: str, resamples: int, seed: int, confidence: float
) -> xr.Dataset:
    """Return mean, interval, test and effect size of differences [seed, example, *rest], labels of `like`."""
    found, low, high = mean_interval(values, resamples, seed, confidence)
    low, high, p = undetermined(variable, found, low, high)
    columns = {
        "difference": (found.mean, "", ""),
        "low": (low, "", ""),
        "high": (high, "", ""),
        "p_value": (p, "1", "p value, two-sided"),
        "effect_size": (d_z(values.mean(axis=0)), "1", "Cohen's d_z over examples"),
        "examples": (found.examples, "1", EXAMPLES),
        "missing": (values.shape[1] - found.examples, "1", MISSING),
    }
    return labelled(like, columns)


def _moved(pairs: Pairs) -> str:
    return f"; {' and '.join(pairs.moving)} moves with {pairs.factor}" if pairs.moving else ""
