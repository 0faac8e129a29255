"""Permutation tests of paired differences: every exchangeable unit may change its sign."""

from typing import Any, Literal

import numpy as np
import xarray as xr

from store.analysis.changes import contrast, pair_values, without_units
from store.analysis.components import Floats
from store.analysis.families import Family, add_adjusted
from store.analysis.multiplicity import Correction
from store.analysis.nodes import Data
from store.analysis.results import by_level, count, labelled
from store.analysis.runs import by_seed, check_values, example_groups, over_groups, over_seeds
from store.errors import StoreError

Unit = Literal["auto", "seed", "example"]
PERMUTATIONS = 4999
FEWEST_SEEDS = 6  # with which a p value can fall below 0.05
CHUNK = 250  # permutations drawn at a time where each is as long as all examples


def sign_flip(
    data: Data,
    variable: str,
    factor: str,
    baseline: Any = None,
    level: Any = None,
    *,
    unit: Unit = "auto",
    correction: Correction = "holm",
    family: Family = "contrast",
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> xr.Dataset:
    """Test paired differences by flipping their signs: `difference`, `p_value`, `p_adjusted`, `missing`.

    By (level, layer, position, …).

    Args:
        unit: what is exchangeable under the null. "seed": whole trainings, so the result speaks of new
            trainings on these very examples; with n seeds no p is below 2^(1-n), so that it takes 6 for one
            below 0.05. "example": test examples, or their groups, so it speaks of new examples for these
            trained models and of no others. "auto": seeds; examples where there is but one seed. (`change`
            covers new seeds and new examples.)
        correction: as in `change`.
        family: as in `change`.
    """
    paired = contrast(data, variable, factor, baseline, level)
    parts, used = [], set()
    for of_level in paired["difference"].transpose("level", ...):
        values, units, chosen = units_of(of_level, unit)
        used.add((len(units), chosen))
        columns = {
            "difference": (_mean(values), "", ""),
            "p_value": (sign_flip_p(units, permutations, seed), "1", "p value, two-sided"),
            "missing": (np.isnan(values).sum(axis=0), "1", f"{chosen}s left out for a missing value"),
        }
        parts.append(labelled(without_units(of_level), columns))
    result = by_level(parts, paired["level"])
    result["difference"].attrs.update(paired["difference"].attrs)
    words = add_adjusted(result, "p_value", correction, factor, family=family)
    result.attrs = paired.attrs | {
        "method": f"{paired.attrs['method'].removesuffix('.')}; two-sided sign-flip permutation test, "
        f"{flips_in_words(used, permutations, seed)}; {words}; {int(result['missing'].sum())} values missing."
    }
    return result


def signs(units: int, permutations: int = PERMUTATIONS, seed: int = 0) -> Floats:
    """Return sign flips [permutations, units], the first the data's own.

    All 2^units are enumerated when they are no more than `permutations` + 1.
    """
    if 2**units <= permutations + 1:
        bits = np.arange(2**units)[:, None] >> np.arange(units)
        return np.where(bits & 1, -1.0, 1.0)
    drawn = np.random.default_rng(seed).choice([-1.0, 1.0], size=(permutations, units))
    return np.concatenate([np.ones((1, units)), drawn])


def share_at_least(null: Floats) -> Floats:
    """Return the share of null statistics [permutations, *rest] that reach the first one, itself included.

    That is the exact p value of a full enumeration, and (k + 1) / (n + 1) of n random permutations (Phipson
    & Smyth, 2010). Sums in another order differ in the last digits; those count as ties.
    """
    tolerance = 1e-9 * np.abs(null).max(axis=0, initial=0)
    return np.asarray((null >= null[0] - tolerance).mean(axis=0))


def sign_flip_p(differences: Floats, permutations: int = PERMUTATIONS, seed: int = 0) -> Floats:
    """Return two-sided p values [*rest] of paired differences [unit, *rest]; a missing one counts as 0.

    NaN where all are missing.
    """
    flat = np.nan_to_num(differences).reshape(len(differences), -1)
    null = np.abs(signs(len(differences), permutations, seed) @ flat)
    p = share_at_least(null).reshape(differences.shape[1:])
    return np.where(np.isfinite(differences).any(axis=0), p, np.nan)


def units_of(difference: xr.DataArray, unit: Unit) -> tuple[Floats, Floats, str]:
    """Return differences (pair, example, *rest) as means, as what is exchanged, and what that is.

    Means: by example or seed. What is exchanged: seeds, or sums over the groups of examples.
    """
    values, index = pair_values(difference)
    check_values(values, str(difference.name))
    runs = by_seed(values, index)
    chosen = ("seed" if len(runs.seeds) > 1 else "example") if unit == "auto" else unit
    if chosen not in ("seed", "example"):
        raise StoreError(f"unit {unit!r}: expected auto, seed or example")
    if chosen == "example":
        means, groups = over_seeds(runs.values), example_groups(difference)
        return means, over_groups(means, groups), "example" if groups is None else "group of examples"
    finite = np.isfinite(runs.values)
    complete = (finite | ~np.asarray(finite.any(axis=1))[:, None]).all(
        axis=0
    )  # every seed on the same examples
    by_run = _mean(np.where(complete, runs.values, np.nan).swapaxes(0, 1))
    by_run = by_run[np.isfinite(by_run).reshape(len(by_run), -1).any(axis=1)]
    return by_run, by_run, chosen


def flips_in_words(used: set[tuple[int, str]], permutations: int, seed: int) -> str:
    """Return what was flipped how often, for a method sentence."""
    number, unit = max(used)
    every = 2**number <= permutations + 1
    flips = f"all {2**number} flips" if every else f"{permutations} random flips (random seed {seed})"
    if unit != "seed":
        what = count(number, unit) if unit == "example" else f"{number} groups of examples"
        return f"{flips} of {what}, for these trained models (the variation between trainings is not covered)"
    few = "" if number >= FEWEST_SEEDS else f" (no p value of {number} seeds is below {2.0 ** (1 - number)})"
    return f"{flips} of {count(number, unit)}, for these examples{few}"


def _mean(values: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        valid = np.isfinite(values)
        return np.asarray(np.where(valid, values, 0).sum(axis=0) / valid.sum(axis=0))
