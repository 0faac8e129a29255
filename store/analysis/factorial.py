"""Main effects and interactions of a factorial design."""

from collections.abc import Sequence
from itertools import combinations, product
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import xarray as xr
from attrs import frozen

from store.analysis.changes import stage_of, undetermined
from store.analysis.multiplicity import Correction
from store.analysis.nodes import (
    SHARES,
    Data,
    check_level,
    group_seeds,
    layer_blocks,
    levels,
    numbers,
    spell,
    stage_node,
    variable,
)
from store.analysis.resampling import CONFIDENCE, RESAMPLES, Floats, d_z, mean_interval
from store.analysis.results import (
    EXAMPLES,
    MISSING,
    add_adjusted,
    count,
    intervals,
    labelled,
    level_coordinate,
    span,
)
from store.errors import StoreError


@frozen
class Term:
    """One effect: `levels` of some factors against their baselines, averaged over the other factors."""

    name: str
    levels: dict[str, Any]
    weights: dict[tuple[Any, ...], float]
    """By combination of the factors' levels."""


def effects(
    data: Data,
    response: str,
    factors: Sequence[str],
    baselines: dict[str, Any] | None = None,
    *,
    order: int | None = None,
    correction: Correction = "holm",
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> xr.Dataset:
    """Return every main effect and interaction of the factors on a response, in the response's units.

    A main effect is a level less its baseline (default: the factor's first level), averaged over the levels
    of the other factors with equal weight; an interaction is a difference of such differences. That is effect
    coding: in a balanced design all terms are orthogonal to the mean. order: the most factors in one term.
    Result, by (term, layer, …): `effect`, `low`, `high`, `p_value`, `p_adjusted`, `effect_size` (d_z),
    `examples`, `missing`; coordinate `order` (term; 0 for the mean of all).

    Each term is a contrast score of every seed and example, analysed with both as crossed random factors:
    the mixed model with all random slopes, which in a balanced design needs no iteration (Clark, 1973; Barr
    et al., 2013, J. Memory and Language 68). For 0/1 outcomes it is a linear probability model: effects are
    differences of shares. StoreError when a combination of levels is not there.
    """
    dataset = stage_node(data, stage_of(response))
    terms = design(dataset, factors, baselines or {}, order or len(factors))
    values = variable(dataset, response).transpose("cell", "example", ...)
    index = dataset.indexes["cell"]
    blocks = []
    for layers in layer_blocks(values):
        block = values.isel(layer=layers) if "layer" in values.dims else values
        means = _means(block, _combinations(index, factors), index, terms)
        like = block.isel(cell=0, example=0, drop=True)
        blocks.append(_estimates(means, terms, like, response, resamples, seed, confidence))
    result = xr.concat(blocks, "layer", data_vars="minimal") if len(blocks) > 1 else blocks[0]
    words = add_adjusted(result, "p_value", correction, None if "layer" in result.dims else "term")
    for name in ("effect", "low", "high"):
        result[name].attrs.update(units=values.attrs.get("units", ""), long_name=f"effect on {response}")
    seeds = int(result["seeds"])
    linear = " in a linear probability model" if response in SHARES else ""
    result.attrs["method"] = (
        f"Effects of {', '.join(factors)} on {response} in effect coding, {len(terms[0].weights)} "
        f"conditions, {span(result['examples'])} examples and {count(seeds, 'seed')}; contrast scores of "
        f"seeds and examples (all random slopes){linear}, {intervals(seeds, confidence, resamples, seed)}; "
        f"two-sided t tests, {words}; {int(result['missing'].isel(term=0).sum())} values missing."
    )
    return result


def design(dataset: xr.Dataset, factors: Sequence[str], baselines: dict[str, Any], order: int) -> list[Term]:
    """Return the mean and all terms of a full factorial design, their weights by combination of levels."""
    known = {name: levels(dataset, name) for name in factors}
    for name in baselines.keys() - known.keys():
        raise StoreError(f"baselines: {name!r} is none of the factors {', '.join(factors)}")
    base = {n: check_level(dataset, n, baselines[n]) if n in baselines else known[n][0] for n in factors}
    there = set(_combinations(dataset.indexes["cell"], factors))
    combos = list(product(*known.values()))
    if missing := [combo for combo in combos if combo not in there]:
        lacking = spell(factors, missing[0])
        raise StoreError(
            f"the design is not complete: {len(missing)} of {len(combos)} conditions lack, as {lacking}"
        )
    terms = [Term("mean", {}, dict.fromkeys(combos, 1 / len(combos)))]
    for size in range(1, order + 1):
        for chosen in combinations(factors, size):
            for picked in product(*([v for v in known[name] if v != base[name]] for name in chosen)):
                at = dict(zip(chosen, picked, strict=True))
                name = " × ".join(f"{factor}[{level}]" for factor, level in at.items())
                terms.append(Term(name, at, {combo: _weight(combo, at, base, known) for combo in combos}))
    return terms


def _weight(
    combo: tuple[Any, ...], at: dict[str, Any], base: dict[str, Any], known: dict[str, list[Any]]
) -> float:
    weight = 1.0
    for (factor, levels_), level in zip(known.items(), combo, strict=True):
        if factor not in at:
            weight /= len(levels_)
        elif level != at[factor]:
            weight *= -1 if level == base[factor] else 0
    return weight


def _combinations(index: pd.MultiIndex, factors: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return the levels of the factors in each cell."""
    return list(zip(*(index.get_level_values(name) for name in factors), strict=True))


def _means(
    block: xr.DataArray, own: list[tuple[Any, ...]], index: pd.MultiIndex, terms: list[Term]
) -> dict[tuple[Any, ...], Floats]:
    """Return by combination of levels its values [seed, example, *rest], of the seeds that all have."""
    found, seeds = {}, {}
    for combo in terms[0].weights:
        cells = [cell for cell, levels_ in enumerate(own) if levels_ == combo]
        found[combo], seeds[combo] = group_seeds(numbers(block.isel(cell=cells)).values, index[cells])
    common = [seed for seed in next(iter(seeds.values())) if all(seed in names for names in seeds.values())]
    if not common:
        raise StoreError("the design is not complete: no seed has all combinations of levels")
    return {combo: found[combo][[seeds[combo].index(seed) for seed in common]] for combo in found}


def _estimates(
    means: dict[tuple[Any, ...], Floats],
    terms: list[Term],
    like: xr.DataArray,
    response: str,
    resamples: int,
    seed: int,
    confidence: float,
) -> xr.Dataset:
    parts = []
    for term in terms:
        scores = np.asarray(sum(weight * means[combo] for combo, weight in term.weights.items() if weight))
        found, low, high = mean_interval(scores, resamples, seed, confidence)
        low, high, p = undetermined(response, found, low, high)
        tested = 1.0 if term.levels else np.nan  # that the mean of all is 0 is no hypothesis
        columns = {
            "effect": (found.mean, "", ""),
            "low": (low, "", ""),
            "high": (high, "", ""),
            "p_value": (tested * p, "1", "p value, two-sided"),
            "effect_size": (tested * d_z(scores.mean(axis=0)), "1", "Cohen's d_z over examples"),
            "examples": (found.examples, "1", f"{EXAMPLES} and condition"),
            "missing": (scores.shape[1] - found.examples, "1", MISSING),
        }
        parts.append(labelled(like, columns))
    result = xr.concat(parts, "term").assign_coords(
        term=level_coordinate([term.name for term in terms], "effect", "term"),
        order=(
            "term",
            [len(term.levels) for term in terms],
            {"units": "1", "long_name": "factors in the effect"},
        ),
    )
    return result.assign(seeds=((), len(scores), {"units": "1", "long_name": "seeds"}))
