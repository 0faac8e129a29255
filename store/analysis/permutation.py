"""Permutation tests of paired differences: every exchangeable unit may change its sign."""

from typing import Any, Literal

import numpy as np
import xarray as xr

from store.analysis.changes import by_seed, contrast
from store.analysis.multiplicity import NAMES, Correction, adjust
from store.analysis.nodes import Data
from store.analysis.resampling import Floats
from store.analysis.wording import spell_count
from store.errors import StoreError

Unit = Literal["auto", "seed", "example"]
PERMUTATIONS = 4999


def signs(units: int, permutations: int = PERMUTATIONS, seed: int = 0) -> tuple[Floats, bool]:
    """Return sign flips [permutations, units] and whether they are all there are; the first is the data's own.

    All 2^units are enumerated when they are no more than `permutations` + 1.
    """
    if 2**units <= permutations + 1:
        bits = np.arange(2**units)[:, None] >> np.arange(units)
        return np.where(bits & 1, -1.0, 1.0), True
    rng = np.random.default_rng(seed)
    drawn = rng.choice([-1.0, 1.0], size=(permutations, units))
    return np.concatenate([np.ones((1, units)), drawn]), False


def share_at_least(null: Floats) -> Floats:
    """Return the share of null statistics [permutations, *rest] that reach the first one, itself included.

    That is the exact p value of a full enumeration, and (k + 1) / (n + 1) of n random permutations (Phipson
    & Smyth, 2010). Sums in another order differ in the last digits; those count as ties.
    """
    tolerance = 1e-9 * np.abs(null).max(axis=0, initial=0)
    return (null >= null[0] - tolerance).mean(axis=0)  # type: ignore[no-any-return]


def sign_flip_p(differences: Floats, permutations: int = PERMUTATIONS, seed: int = 0) -> Floats:
    """Return two-sided p values of paired differences [unit, *rest]: every unit's sign is exchangeable.

    Missing units count as 0, whatever their sign.
    """
    flips, _ = signs(len(differences), permutations, seed)
    flat = np.nan_to_num(differences).reshape(len(differences), -1)
    return share_at_least(np.abs(flips @ flat)).reshape(differences.shape[1:])


def sign_flip(
    data: Data,
    variable: str,
    factor: str,
    baseline: Any = None,
    level: Any = None,
    *,
    unit: Unit = "auto",
    correction: Correction = "holm",
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> xr.Dataset:
    """Test paired differences by flipping their signs: `difference`, `p_value`, `p_adjusted` (level, layer, …).

    unit: what is exchangeable under the null. "seed": whole trainings, so the result speaks of new trainings;
    with n seeds no p is below 2^(1-n). "example": test examples, so it speaks of new examples for these very
    models. "auto": seeds when there are at least 6 of them, the fewest with which p can fall below 0.05.
    """
    found, used, counts = [], set(), set()
    paired = contrast(data, variable, factor, baseline, level)
    for number in range(paired.sizes["level"]):
        values, template, chosen = units_of(paired["difference"].isel(level=number), unit)
        p = sign_flip_p(values, permutations, seed)
        used.add(chosen)
        counts.add(len(values))
        columns = {"difference": np.nanmean(values, axis=0), "p_value": p}
        found.append(columns_like(template, columns))
    result = xr.concat(found, "level").assign_coords(level=paired["level"])
    result["difference"].attrs.update(paired["difference"].attrs)
    _adjusted(result, correction)
    kind = "all" if 2 ** max(counts) <= permutations + 1 else f"{permutations} random"
    result.attrs["method"] = (
        f"{paired.attrs['method'].removesuffix('.')}; two-sided sign-flip permutation test, {kind} flips of "
        f"{spell_count(max(counts), ' or '.join(sorted(used)))} (random seed {seed}){covered(used)}; "
        f"{result['p_adjusted'].attrs['long_name'].removeprefix('p value, ')}."
    )
    return result


def units_of(difference: xr.DataArray, unit: Unit) -> tuple[Floats, xr.DataArray, str]:
    """Return differences [unit, *rest], an array with the rest's coordinates, and the unit."""
    values, seeds = by_seed(difference)
    chosen = ("seed" if len(seeds) >= 6 else "example") if unit == "auto" else unit
    if chosen not in ("seed", "example"):
        raise StoreError(f"unit {unit!r}: expected auto, seed or example")
    like = difference.transpose("pair", "example", ...).isel(pair=0, example=0, drop=True)
    if chosen == "example":
        return values.mean(axis=0), like, chosen
    complete = np.isfinite(values).all(axis=0)
    with np.errstate(invalid="ignore"):
        by_seed_means = np.where(complete, np.nan_to_num(values), 0).sum(axis=1) / complete.sum(axis=0)
    return by_seed_means, like, chosen


def columns_like(like: xr.DataArray, columns: dict[str, Any]) -> xr.Dataset:
    coordinates = {name: c for name, c in like.coords.items() if c.dims and name in like.dims}
    return xr.Dataset({name: (like.dims, column) for name, column in columns.items()}, coordinates)


def covered(units: set[str]) -> str:
    return "" if units == {"seed"} else ", for these models (the variation between trainings is not covered)"


def _adjusted(result: xr.Dataset, correction: Correction) -> None:
    across = "layer" if "layer" in result.dims else "level"
    p = result["p_value"]
    p.attrs.update(units="1", long_name="p value, two-sided")
    result["p_adjusted"] = p.copy(data=adjust(p.values, p.dims.index(across), correction))
    result["p_adjusted"].attrs["long_name"] = f"p value, {NAMES[correction]} across {across}s"
