"""Main effects and interactions of a factorial design."""

from collections.abc import Sequence
from itertools import combinations, product
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import xarray as xr
from attrs import frozen
from numpy.typing import NDArray

from store.analysis.changes import BOUNDS, stage_of, summary
from store.analysis.components import Components, Floats
from store.analysis.families import STARTS, Family, add_adjusted, together
from store.analysis.inference import CONFIDENCE, Estimate, Range, among
from store.analysis.monitoring import Looks, Monitoring
from store.analysis.multiplicity import Correction
from store.analysis.nodes import (
    SEED,
    Data,
    check_level,
    layer_blocks,
    levels,
    numbers,
    seed_values,
    spell,
    stage_node,
    variable,
)
from store.analysis.results import (
    EXAMPLES,
    SCORE,
    SKEWED,
    UNEVEN,
    grouped,
    intervals,
    level_coordinate,
    most_seeds,
    seeds_of,
    units,
)
from store.analysis.runs import SeedValues, by_seed, example_groups, standardised
from store.analysis.value_ranges import change_range, is_share, value_range
from store.errors import StoreError
from store.ledger.levels import level_text


@frozen
class Term:
    """One effect: `levels` of some factors against their baselines, averaged over the other factors."""

    name: str
    levels: dict[str, Any]
    bases: dict[str, Any]


def effects(
    data: Data,
    response: str,
    factors: Sequence[str],
    baselines: dict[str, Any] | None = None,
    *,
    order: int | None = None,
    correction: Correction = "holm",
    family: Family = "contrast",
    looks: Looks = None,
    confidence: float = CONFIDENCE,
) -> xr.Dataset:
    """Return every main effect and interaction of the factors on a response, in the response's units.

    A main effect is a level less its baseline (default: the factor's first level), averaged over the levels
    of the other factors with equal weight; an interaction is a difference of such differences. That is effect
    coding: in a balanced design all terms are orthogonal to the mean.

    Each term is a contrast score of every seed and example, analysed with both as crossed random factors: the
    mixed model with all random slopes, which in a balanced design needs no iteration (Clark, 1973; Barr et
    al., 2013, J. Memory and Language 68). For 0/1 outcomes it is a linear probability model: effects are
    differences of shares.

    Args:
        order: the most factors in one term.
        family: as in `change`.
        looks: as in `change`.

    Returns:
        Result, by (term, layer, …): `effect`, `low`, `high`, `simultaneous_low`, `simultaneous_high`,
            `p_value`, `p_adjusted`, `effect_size` (as in `change`), `seeds`, `examples`, `groups`, `missing`;
            coordinate `order` (term; 0 for the mean of all).

    Raises:
        StoreError: when a combination of levels is not there.
    """
    if isinstance(factors, str):
        raise StoreError(f"factors: expected a list of names, found the string {factors!r}; as [{factors!r}]")
    dataset = stage_node(data, stage_of(response), response)
    terms = design(dataset, factors, baselines or {}, order or len(factors))
    values = variable(dataset, response).transpose("cell", "example", ...)
    like = values.isel(cell=0, example=0, drop=True)
    axis = like.dims.index("layer") if "layer" in like.dims else None
    scores: dict[str, list[SeedValues]] = {term.name: [] for term in terms}
    for layers in layer_blocks(values):
        block = numbers(values.isel(layer=layers) if "layer" in values.dims else values)
        for term in terms:
            scores[term.name].append(_scores(block, term))
    groups = example_groups(values)
    monitoring, share = Monitoring.of(looks), is_share(response, values)
    effects = [
        _estimated(scores[term.name], term, response, axis, groups, monitoring, share=share) for term in terms
    ]
    effects = list(
        zip(among([estimate for estimate, _ in effects]), [size for _, size in effects], strict=True)
    )
    divided = together(
        [estimate.p_family() for estimate, _ in effects[1:]], family, axis, correction, 1 - confidence
    )
    parts = [
        _labelled(estimate, size, term, like, confidence, by)
        for (estimate, size), term, by in zip(effects, terms, [_away(divided), *divided], strict=True)
    ]
    result = xr.concat(parts, "term").assign_coords(
        term=level_coordinate([term.name for term in terms], "effect", "term"),
        order=(
            "term",
            [len(term.levels) for term in terms],
            {"units": "1", "long_name": "factors in the effect"},
        ),
    )
    words = add_adjusted(result, "p_value", correction, ", ".join(factors), family=family)
    for name in ("effect", *BOUNDS):
        result[name].attrs.update(units=values.attrs.get("units", ""), long_name=f"effect on {response}")
    conditions = len({*_combinations(dataset.indexes["cell"], factors)})
    linear = " in a linear probability model" if share else ""
    skewed = f"{SCORE} in main effects" if share else SKEWED
    uneven = any(run.uneven for runs in scores.values() for run in runs)
    result.attrs["method"] = (
        f"Effects of {', '.join(factors)} on {response} in effect coding, {conditions} "
        f"conditions, {units(result)} and {seeds_of(result)}{UNEVEN * uneven}; contrast scores of "
        f"seeds and examples (all random slopes){linear}, "
        f"{intervals(result, confidence, grouped(result), withheld=True)}{skewed}; "
        f"two-sided p values by the same intervals, {words}"
        f"{monitoring.described(result['seeds'].values)}; "
        f"{int(result['missing'].isel(term=0).sum())} values missing."
    )
    most_seeds(result, "term")
    return result


def design(dataset: xr.Dataset, factors: Sequence[str], baselines: dict[str, Any], order: int) -> list[Term]:
    """Return the mean and all terms of a full factorial design."""
    known = {name: levels(dataset, name) for name in factors}
    for name in baselines.keys() - known.keys():
        raise StoreError(f"baselines: {name!r} is none of the factors {', '.join(factors)}")
    base = {n: check_level(dataset, n, baselines[n]) if n in baselines else known[n][0] for n in factors}
    present = set(_combinations(dataset.indexes["cell"], factors))
    combos = list(product(*known.values()))
    if missing := [combo for combo in combos if combo not in present]:
        lacking = spell(factors, missing[0])
        raise StoreError(
            f"the design is not complete: {len(missing)} of {len(combos)} conditions lack, as {lacking}"
        )
    terms = [Term("mean", {}, base)]
    for size in range(1, order + 1):
        for chosen in combinations(factors, size):
            for picked in product(*([v for v in known[name] if v != base[name]] for name in chosen)):
                at = dict(zip(chosen, picked, strict=True))
                name = " × ".join(f"{factor}[{level_text(level)}]" for factor, level in at.items())
                terms.append(Term(name, at, base))
    return terms


def _combinations(index: pd.MultiIndex, factors: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return the levels of the factors in each cell."""
    return list(zip(*(index.get_level_values(name) for name in factors), strict=True))


def _scores(block: xr.DataArray, term: Term) -> SeedValues:
    """Return a term's contrast scores of values (cell, example, *rest) by seed.

    There is one score for each combination of the factors outside the term in each seed that has all of its
    cells; a seed's is the mean of those that it has.
    """
    index = block.indexes["cell"]
    within, over = ([n for n in term.bases if (n in term.levels) == in_term] for in_term in (True, False))
    unnamed = [name for name in index.names if name not in term.bases and name != SEED]
    keys = [
        list(zip(*(index.get_level_values(n) for n in names), strict=True))
        for names in (within, over, unnamed)
    ]
    places: dict[tuple[Any, ...], dict[tuple[Any, ...], dict[Any, int]]] = {}
    for cell, seed in enumerate(seed_values(index)):
        corner, place, other = (levels_of[cell] if levels_of else () for levels_of in keys)
        places.setdefault((seed, place), {}).setdefault(corner, {})[other] = cell
    signs = {
        corner: (-1) ** sum(level != term.levels[name] for name, level in zip(within, corner, strict=True))
        for corner in product(*((term.bases[name], term.levels[name]) for name in within))
    }
    complete = {place: corners for place, corners in places.items() if signs.keys() <= corners.keys()}
    if not complete:
        raise StoreError(f"the design is not complete: no seed has all cells of {term.name}")
    scores = [_score(block.values, corners, signs) for corners in complete.values()]
    return by_seed(
        np.stack(scores), pd.MultiIndex.from_tuples([place[:1] for place in complete], names=[SEED])
    )


def _score(
    values: Floats, corners: dict[tuple[Any, ...], dict[Any, int]], signs: dict[tuple[Any, ...], int]
) -> Floats:
    """Return the signed sum of the corners' cells, factors outside the design averaged.

    Over the levels of these that all corners have; where there is none (they move with the term), over all.
    """
    common = set.intersection(*(set(corners[corner]) for corner in signs))
    cells = {
        corner: [c for other, c in corners[corner].items() if other in common or not common]
        for corner in signs
    }
    return np.asarray(sum(sign * values[cells[corner]].mean(axis=0) for corner, sign in signs.items()))


def _estimated(
    runs: Sequence[SeedValues],
    term: Term,
    response: str,
    axis: int | None,
    groups: NDArray[Any] | None,
    monitoring: Monitoring,
    *,
    share: bool,
) -> tuple[Estimate, Floats]:
    """Return a term's effect from the scores of each block of layers, and its size.

    A main effect on a share is a difference of shares, with the interval that `change` gives.
    """
    order = len(term.levels)
    options: Any = {"share": order == 1 and share, "within": _range(response, order, share=share)}
    components = Components.join([Components.of(run.values, groups) for run in runs], axis or 0)
    spread = runs[0].spread if axis is None else np.concatenate([run.spread for run in runs], axis)
    estimate = Estimate.of(components, axis, monitoring=monitoring, **options)
    return estimate, standardised(components, spread)


def _range(response: str, order: int, *, share: bool) -> Range:
    """Return the range of an effect of so many factors: each further one doubles that of a difference."""
    if not order:
        return value_range(response, share=share)
    low, high = change_range(response, share=share)
    return 2 ** (order - 1) * low, 2 ** (order - 1) * high


def _away(divided: list[Floats | None]) -> Floats | None:
    """Return both ends of what is not tested as wide as those of others away from 0."""
    first = divided[0] if divided else None
    return None if first is None else np.stack([first[0], first[0]])


def _labelled(
    estimate: Estimate,
    size: Floats,
    term: Term,
    like: xr.DataArray,
    confidence: float,
    divided: Floats | None,
) -> xr.Dataset:
    """Return a term's effect as `summary`; that the mean of all is 0 is no hypothesis."""
    result = summary(estimate, size, like, confidence, divided).rename(difference="effect")
    result["examples"].attrs["long_name"] = f"{EXAMPLES} and condition"
    for name in ("p_value", STARTS, "effect_size") if not term.levels else ():
        result[name] = result[name].where(False)
    return result
