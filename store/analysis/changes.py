"""What a factor's levels change: paired differences, and their means with intervals and tests."""

from typing import Any

import numpy as np
import xarray as xr

from store.analysis.multiplicity import NAMES, Correction, adjust
from store.analysis.nodes import DERIVED, Data, group_seeds, layer_blocks, stage_node
from store.analysis.pairs import Pairs, differences, find_pairs
from store.analysis.resampling import CONFIDENCE, RESAMPLES, Floats, d_z, mean_interval
from store.analysis.wording import described, spell_count
from store.errors import StoreError

EVALUATED = frozenset({*DERIVED, "label_logprob"})


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
    found.attrs["factor"], found.attrs["baseline"] = factor, str(pairs.baseline)
    found.attrs["method"] = (
        f"Differences in {variable} between levels of {factor} and {pairs.baseline}, paired by seed, example "
        f"and all other factors ({counts.sum()} pairs of cells){_moved(pairs)}."
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
    differences), `examples` and `missing` (counts). Reads two cells at a time and layers by blocks.
    """
    paired = contrast(data, variable, factor, baseline, level)
    difference = paired["difference"]
    if "example" not in difference.dims:
        raise StoreError(f"{variable}: expected a variable by example, found {difference.dims}")
    found, seeds = [], set()
    for number in range(difference.sizes["level"]):
        blocks = []
        own = difference.isel(level=number)
        for part in layer_blocks(own):
            block = own.isel(layer=part) if "layer" in own.dims else own
            values, names = by_seed(block)
            seeds.add(len(names))
            blocks.append(_summary(values, block, resamples, seed, confidence))
        found.append(xr.concat(blocks, "layer") if len(blocks) > 1 else blocks[0])
    result = xr.concat(found, "level").assign_coords(level=difference["level"])
    across = "layer" if "layer" in result.dims else "level"
    p = result["p_value"]
    result["p_adjusted"] = p.copy(data=adjust(p.values, p.dims.index(across), correction))
    result["p_adjusted"].attrs.update(units="1", long_name=f"p value, {NAMES[correction]} across {across}s")
    for name in ("difference", "low", "high"):
        result[name].attrs.update(difference.attrs)
    result.attrs = {k: v for k, v in paired.attrs.items() if k != "method"}
    result.attrs["method"] = (
        f"{paired.attrs['method'].removesuffix('.')}; mean over {_range(result['examples'])} examples and "
        f"{spell_count(min(seeds), 'seed')}, {described(min(seeds), resamples, seed, confidence)}; "
        f"two-sided t tests, {NAMES[correction]} across {across}s; {int(result['missing'].sum())} values missing."
    )
    return result


def relative_entropy(data: Data, factor: str, baseline: Any = None, **options: Any) -> xr.Dataset:
    """Return the lens entropy relative to a baseline (condition minus baseline, nat) per layer and position.

    This is `change` of the variable `entropy`, with its result and its options; it is a difference of
    entropies, not a Kullback-Leibler divergence.
    """
    return change(data, "entropy", factor, baseline, **options)


def stage_of(variable: str) -> str:
    """Return the stage that holds a variable."""
    return "evaluate" if variable in EVALUATED else "probe"


def by_seed(paired: xr.DataArray) -> tuple[Floats, list[Any]]:
    """Return paired values (pair, example, *rest) as [seed, example, *rest], other factors averaged.

    Seeds that lack a combination of the other factors which another seed has are left out, so that
    every seed stands for the same thing.
    """
    values = paired.transpose("pair", "example", ...).values
    there = np.isfinite(values).reshape(len(values), -1).any(axis=1)
    if not there.any():
        raise StoreError(f"{paired.name}: not one value in {len(values)} pairs of cells")
    return group_seeds(values[there], paired.indexes["pair"][there])


def _summary(values: Floats, like: xr.DataArray, resamples: int, seed: int, confidence: float) -> xr.Dataset:
    found, low, high = mean_interval(values, resamples, seed, confidence)
    template = like.isel(pair=0, example=0, drop=True)
    dims = tuple(dim for dim in like.dims if dim not in ("pair", "example"))
    columns = {
        "difference": (found.mean, "", ""),
        "low": (low, "", ""),
        "high": (high, "", ""),
        "p_value": (found.t_test(), "1", "p value, two-sided"),
        "effect_size": (d_z(values.mean(axis=0)), "1", "Cohen's d_z over examples"),
        "examples": (found.examples, "1", "examples with a value in every seed"),
        "missing": (values.shape[1] - found.examples, "1", "examples left out for a missing value"),
    }
    variables = {
        name: (dims, column, {"units": units, "long_name": title})
        for name, (column, units, title) in columns.items()
    }
    return xr.Dataset(variables, {n: c for n, c in template.coords.items() if c.dims and n in dims})


def _moved(pairs: Pairs) -> str:
    return f"; {' and '.join(pairs.moving)} moves with {pairs.factor}" if pairs.moving else ""


def _range(counts: xr.DataArray) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low}" if low == high else f"{low}–{high}"
