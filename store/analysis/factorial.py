"""Main effects and interactions of a factorial design."""

from collections.abc import Sequence
from itertools import combinations, product
from typing import Any

import numpy as np
import xarray as xr
from attrs import frozen

from store.analysis.changes import stage_of
from store.analysis.multiplicity import NAMES, Correction, adjust
from store.analysis.nodes import (
    Data,
    check_level,
    group_seeds,
    layer_blocks,
    levels,
    numbers,
    stage_node,
    variable,
)
from store.analysis.resampling import CONFIDENCE, RESAMPLES, Floats, d_z, mean_interval
from store.analysis.wording import described, spell_count
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
    own = list(zip(*(index.get_level_values(name) for name in factors), strict=True))
    blocks = []
    for part in layer_blocks(values):
        block = values.isel(layer=part) if "layer" in values.dims else values
        means = _means(block, own, index, terms)
        blocks.append(_estimates(means, terms, block, resamples, seed, confidence))
    result = xr.concat(blocks, "layer") if len(blocks) > 1 else blocks[0]
    p = result["p_value"]
    across = "layer" if "layer" in p.dims else "term"
    adjusted = adjust(p.values, p.dims.index(across), correction)
    result["p_adjusted"] = p.copy(data=adjusted)
    result["p_adjusted"].attrs["long_name"] = f"p value, {NAMES[correction]} across {across}s"
    for name in ("effect", "low", "high"):
        result[name].attrs.update(units=values.attrs.get("units", ""), long_name=f"effect on {response}")
    seeds = int(result["seeds"])
    result.attrs["method"] = (
        f"Effects of {', '.join(factors)} on {response} in effect coding, {len(set(own))} conditions, "
        f"{int(result['examples'].max())} examples and {spell_count(seeds, 'seed')}; contrast scores with random seeds and "
        f"examples (all random slopes){_linear(response)}, {described(seeds, resamples, seed, confidence)}; "
        f"two-sided t tests, {NAMES[correction]} across {across}s; {int(result['missing'].sum())} values missing."
    )
    return result


def design(dataset: xr.Dataset, factors: Sequence[str], baselines: dict[str, Any], order: int) -> list[Term]:
    """Return the mean and all terms of a full factorial design, their weights by combination of levels."""
    known = {name: levels(dataset, name) for name in factors}
    for name in baselines.keys() - known.keys():
        raise StoreError(f"baselines: {name!r} is none of the factors {', '.join(factors)}")
    base = {n: check_level(dataset, n, baselines[n]) if n in baselines else known[n][0] for n in factors}
    index = dataset.indexes["cell"]
    there = {*zip(*(index.get_level_values(name) for name in factors), strict=True)}
    combos = list(product(*known.values()))
    if missing := [combo for combo in combos if combo not in there]:
        lacking = ", ".join(f"{n}={v}" for n, v in zip(factors, missing[0], strict=True))
        raise StoreError(
            f"the design is not complete: no cell has {lacking} ({len(missing)} of {len(combos)} lack)"
        )
    terms = [Term("mean", {}, dict.fromkeys(combos, 1 / len(combos)))]
    for size in range(1, order + 1):
        for chosen in combinations(factors, size):
            others = [[v for v in known[name] if v != base[name]] for name in chosen]
            for picked in product(*others):
                at = dict(zip(chosen, picked, strict=True))
                name = " × ".join(f"{factor}[{level}]" for factor, level in at.items())
                terms.append(
                    Term(
                        name,
                        at,
                        {c: _weight(dict(zip(factors, c, strict=True)), at, base, known) for c in combos},
                    )
                )
    return terms


def _weight(
    combo: dict[str, Any], at: dict[str, Any], base: dict[str, Any], known: dict[str, list[Any]]
) -> float:
    weight = 1.0
    for factor, level in combo.items():
        if factor not in at:
            weight /= len(known[factor])
        elif level == at[factor]:
            weight *= 1
        elif level == base[factor]:
            weight *= -1
        else:
            return 0.0
    return weight


def _means(
    block: xr.DataArray, own: list[tuple[Any, ...]], index: Any, terms: list[Term]
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
    block: xr.DataArray,
    resamples: int,
    seed: int,
    confidence: float,
) -> xr.Dataset:
    columns: dict[str, list[Any]] = {}
    for term in terms:
        scores = sum(weight * means[combo] for combo, weight in term.weights.items() if weight)
        scores = np.asarray(scores)
        found, low, high = mean_interval(scores, resamples, seed, confidence)
        p = found.t_test() if term.levels else np.full(found.mean.shape, np.nan)
        size = d_z(scores.mean(axis=0)) if term.levels else np.full(found.mean.shape, np.nan)
        row = (found.mean, low, high, p, size, found.examples, scores.shape[1] - found.examples)
        names = ("effect", "low", "high", "p_value", "effect_size", "examples", "missing")
        for name, value in zip(names, row, strict=True):
            columns.setdefault(name, []).append(value)
    titles = {
        "p_value": "p value, two-sided", "effect_size": "Cohen's d_z over examples",
        "examples": "examples with a value in every seed and condition",
        "missing": "examples left out for a missing value",
    }  # fmt: skip
    dims = ("term", *(dim for dim in block.dims if dim not in ("cell", "example")))
    coordinates = {n: c for n, c in block.coords.items() if n in dims}
    result = xr.Dataset(coords=coordinates).assign_coords(
        term=("term", np.array([term.name for term in terms], object)),
        order=("term", [len(term.levels) for term in terms]),
    )
    for name, rows in columns.items():
        result[name] = (dims, np.stack(rows), {"units": "1", "long_name": titles.get(name, name)})
    result["seeds"] = ((), len(next(iter(means.values()))), {"units": "1", "long_name": "seeds"})
    return result


def _linear(response: str) -> str:
    return " in a linear probability model" if response.endswith("correct") else ""
