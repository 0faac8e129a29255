"""Which tests are corrected together, and the words in which a result says so."""

from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np
import xarray as xr

from store.analysis.components import Floats
from store.analysis.multiplicity import NAMES, Correction, adjust, check, divisors
from store.errors import StoreError

Family = Literal["contrast", "layers"]
"""`contrast`: all tests of a call. `layers`: only the layers (or changes) of each level and position."""
FAMILIES = ("contrast", "layers")
STARTS = "p_family"
"""The variable from which corrections start, where it is not the p value itself."""
NOUNS = {"term": "effect", "intervention": "change"}


def check_family(family: Family) -> Family:
    """Return a family's name; StoreError for another."""
    if family not in FAMILIES:
        raise StoreError(f"family {family!r}: expected one of {', '.join(FAMILIES)}")
    return family


def together(
    p: Sequence[Floats], family: Family, axis: int | None, correction: Correction, alpha: float
) -> list[Floats | None]:
    """Return of some levels by what alpha is divided in simultaneous intervals: `divisors`.

    p: [*outcomes] of each level, of which a correction starts. axis: that of the layers; without one the
    levels stand for them. NaN is no test.
    """
    if not p:
        return []
    if check_family(family) == "layers" and axis is not None:
        return [divisors(of_level, axis, correction, alpha) for of_level in p]
    if family == "layers":
        divided = divisors(np.stack(p), 0, correction, alpha)
        return [None] * len(p) if divided is None else list(np.moveaxis(divided, 1, 0))
    divided = divisors(np.concatenate([of_level.ravel() for of_level in p]), 0, correction, alpha)
    if divided is None:
        return [None] * len(p)
    parts = np.split(divided, np.cumsum([of_level.size for of_level in p])[:-1], axis=1)
    return [part.reshape(2, *of_level.shape) for part, of_level in zip(parts, p, strict=True)]


def add_adjusted(
    result: xr.Dataset,
    name: str,
    correction: Correction,
    of: str,
    *,
    family: Family = "contrast",
    axis: str = "layer",
    start: str = STARTS,
) -> str:
    """Add `name` with p values corrected over a family, as p_adjusted or name_adjusted; return the words.

    of: what the tests are about, such as the factor. axis: the dim of the layers, or what stands for it.
    Where the result has the variable `start`, it is taken out, and what comes of it is never below `name`.
    """
    p = result[name]
    axis = axis if axis in p.dims else str(p.dims[0])
    dims = p.dims if check_family(family) == "contrast" else (axis,)
    rest = [dim for dim in p.dims if dim not in dims]
    begin = result.get(start, p).transpose(*rest, *dims)
    flat = begin.values.reshape(*begin.shape[: len(rest)], -1)
    turned = begin.copy(data=adjust(flat, flat.ndim - 1, correction).reshape(begin.shape))
    words = f"{NAMES[check(correction)]}{over(p, dims, of)}"
    if not _many(p, dims):
        words = "a single test, not corrected" if np.isfinite(p).any() else "no test"
    shared = start in result and not np.array_equal(begin.transpose(*p.dims), p, equal_nan=True)
    put_adjusted(result, name, turned.transpose(*p.dims).values, correction, words)
    if start in result:
        del result[start]
    return words + sharing(axis) * (shared and correction != "none")


def put_adjusted(
    result: xr.Dataset, name: str, corrected: Floats, correction: Correction, words: str
) -> None:
    """Put corrected p values into a result, none below that of its test alone."""
    p = result[name]
    values = p.values if correction == "none" else np.maximum(p.values, corrected)
    added = "p_adjusted" if name == "p_value" else f"{name}_adjusted"
    result[added] = p.copy(data=values).assign_attrs(units="1", long_name=f"{p.attrs['long_name']}, {words}")


def over(p: xr.DataArray, dims: Sequence[Hashable], of: str) -> str:
    """Return what a correction is over: " over the 3 levels, 2 positions and 31 layers of target"."""
    parts = [f"{number} {_noun(dim)}s" for dim, number in _many(p, dims).items()]
    each = [_noun(dim) for dim in _many(p, [dim for dim in p.dims if dim not in dims])]
    words = f" over the {' and '.join(filter(None, [', '.join(parts[:-1]), *parts[-1:]]))} of {of}"
    return words + (f", for each {' and '.join(each)}" if each else "")


def sharing(axis: str) -> str:
    """Return the words that variances between seeds are shared along an axis."""
    noun = _noun(axis)
    return f" (variances between seeds shared among {noun}s; no p below that of its {noun} alone)"


def _many(p: xr.DataArray, dims: Sequence[Hashable]) -> dict[Hashable, int]:
    """Return the entries with a test along each dim that has several."""
    known = p.notnull()
    sizes = {dim: int(known.any([other for other in p.dims if other != dim]).sum()) for dim in dims}
    return {dim: number for dim, number in sizes.items() if number > 1}


def _noun(dim: Hashable) -> str:
    return NOUNS.get(str(dim), str(dim))
