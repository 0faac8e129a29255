"""What a factor's levels change: paired differences, and their means with intervals and tests."""

from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import xarray as xr

from store.analysis.components import Components, Floats
from store.analysis.equivalence import add_verdict, one_sided, smallest_difference
from store.analysis.inference import CONFIDENCE, inferred
from store.analysis.multiplicity import Correction
from store.analysis.nodes import (
    DERIVED,
    SHARES,
    Data,
    change_range,
    in_words,
    layer_blocks,
    stage_node,
)
from store.analysis.pairs import Pairs, differences, find_pairs
from store.analysis.results import (
    EXAMPLES,
    FAMILY,
    FLOOR,
    GROUPS,
    MISSING,
    SEEDS,
    STANDARDISED,
    UNEVEN,
    add_adjusted,
    by_level,
    count,
    grouped,
    intervals,
    labelled,
    most_seeds,
    seeds_of,
    units,
)
from store.analysis.runs import by_seed, check_values, example_groups, standardised
from store.errors import StoreError

BOUNDS = ("low", "high", "simultaneous_low", "simultaneous_high")


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
        f"Differences in {in_words(variable)} between levels of {factor} and {pairs.baseline}, paired by "
        f"seed, example and all other factors ({count(int(counts.sum()), 'pair')} of cells){_moved(pairs)}."
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
    equivalence: float | None = None,
    resamples: int | None = None,
    seed: int | None = None,
) -> xr.Dataset:
    """Return the mean difference of a variable from a factor's baseline, with interval, test and effect size.

    Means are over examples, seeds and the levels of the other factors, each with equal weight; to keep a
    factor apart, select one of its levels first. Where cells are missing, a seed counts by the pairs that it
    has. Seeds and examples (or groups, where the data has a coordinate `group` along `example`) are random.
    Result, by (level, layer, position, …): `difference`, `low`, `high` (in the variable's units, pointwise),
    `p_value` (two-sided, below 1 − confidence just where the interval leaves out 0), `p_adjusted` (corrected
    across layers, else across levels), `simultaneous_low` and `simultaneous_high` (for all of these at once),
    `effect_size` (the mean in standard deviations of a single run's examples), `examples`, `groups`,
    `missing`; by level: `seeds`. A difference other than 0 that is the same everywhere has no interval (NaN).
    equivalence: the smallest difference of interest, by default that of the spec of an experiment; where
    there is one, the result has `p_equivalence` (of two one-sided tests by the same intervals), corrected as
    `p_equivalence_adjusted`, and `verdict`: "no difference larger than 0.02", "different", "different, but
    smaller than 0.02", "undecided" (by the corrected p values; "" where nothing was measured). Reads two
    cells at a time, layers by blocks. resamples, seed: of former intervals, without effect.
    """
    paired = contrast(data, variable, factor, baseline, level)
    difference = paired["difference"]
    if "example" not in difference.dims:
        raise StoreError(f"{variable}: expected a variable by example, found {difference.dims}")
    groups = example_groups(difference)
    smallest = smallest_difference(data, variable, equivalence)
    options: Any = {"confidence": confidence, "share": variable in SHARES, "within": change_range(variable)}
    parts, uneven = [], False
    for own in difference.transpose("level", ...):
        blocks, spreads = [], []
        for layers in layer_blocks(own):
            runs = by_seed(*pair_values(own.isel(layer=layers) if "layer" in own.dims else own))
            blocks.append(Components.of(runs.values, groups))
            spreads.append(runs.spread)
            uneven |= runs.uneven
        like = without_units(own)
        axis = like.dims.index("layer") if "layer" in like.dims else None
        found = Components.join(blocks, axis or 0)
        size = standardised(found, np.concatenate(spreads, axis) if axis is not None else spreads[0])
        check_values(found.mean, variable)
        parts.append(summary(found, size, like, axis, **options))
        if smallest is not None:
            columns = one_sided(found, smallest, axis, options["share"])
            parts[-1] = parts[-1].merge(labelled(like, columns))
    result = by_level(parts, difference["level"])
    words = add_adjusted(result, "p_value", correction)
    tost = f"; {add_verdict(result, smallest, correction, confidence)}" if smallest is not None else ""
    for name in ("difference", *BOUNDS):
        result[name].attrs.update(difference.attrs)
    result.attrs |= paired.attrs | {
        "method": f"{paired.attrs['method'].removesuffix('.')}; mean over {units(result)} "
        f"and {seeds_of(result)}{UNEVEN * uneven}, {intervals(result, confidence, grouped(result))}"
        f"{FLOOR * (variable in SHARES)}; two-sided p values by the same intervals, {words}{tost}; "
        f"{int(result['missing'].sum())} values missing."
    }
    most_seeds(result, "level")
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


def pair_values(paired: xr.DataArray) -> tuple[Floats, pd.MultiIndex]:
    """Read differences as [pair, example, *rest], with the other factors and the seed of each pair."""
    return paired.transpose("pair", "example", ...).values, paired.indexes["pair"]


def without_units(paired: xr.DataArray) -> xr.DataArray:
    """Return the dims and coordinates (of one pair and example) that results by layer and position have."""
    return paired.isel(pair=0, example=0, drop=True)


def summary(
    found: Components, size: Floats, like: xr.DataArray, family: int | None, **options: Any
) -> xr.Dataset:
    """Return mean, interval, test and effect size of differences, with the labels of `like`.

    family: the axis along which they are tested together, before other outcomes join them.
    """
    own = inferred(found, family=family, **options)
    columns = {
        "difference": (own.mean, "", ""),
        "low": (own.low, "", ""),
        "high": (own.high, "", ""),
        "simultaneous_low": (own.simultaneous_low, "", ""),
        "simultaneous_high": (own.simultaneous_high, "", ""),
        "p_value": (own.p, "1", "p value, two-sided"),
        FAMILY: (own.p_family, "1", "p value, variances between seeds shared"),
        "effect_size": (size, "1", STANDARDISED),
        "seeds": (own.seeds, "1", SEEDS),
        "examples": (own.examples, "1", EXAMPLES),
        "groups": (own.groups, "1", GROUPS),
        "missing": (own.missing, "1", MISSING),
    }
    return labelled(like, columns)


def _moved(pairs: Pairs) -> str:
    return f"; {' and '.join(pairs.moving)} moves with {pairs.factor}" if pairs.moving else ""
