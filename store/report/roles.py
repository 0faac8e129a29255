"""What an experiment's factors stand for, as its spec says, and parts of it at some of their levels."""

from itertools import product
from typing import Any

import numpy as np
import xarray as xr
from attrs import frozen

from store.analysis.nodes import factors, levels
from store.files import Json


@frozen
class Roles:
    """Factors by what they set; None where there is no such factor."""

    train: str | None
    test: str | None
    dimension: str | None
    """The factor of the rated dimension tested on."""


def roles(spec: Json, summary: xr.Dataset) -> Roles:
    """Return what the spec's `[signatures]` names; else find the factors whose keys say so.

    The pair of training and test factors that is found must share levels.
    """
    known = factors(summary)
    named = {role: name for role, name in spec.get("signatures", {}).items() if name in known}
    paths = {name: paths_of(own) for name, own in spec.get("factors", {}).items() if name in known}
    tested = [name for name, own in paths.items() if any(p.startswith("evaluate.data") for p in own)]
    trained = [name for name, own in paths.items() if any(p.startswith("data") for p in own)]
    pairs = [
        (a, b)
        for a, b in product(trained, tested)
        if a != b and set(levels(summary, a)) & set(levels(summary, b))
    ]
    train, test = pairs[0] if pairs else (None, None)
    if "train" in named and "test" in named:
        train, test = named["train"], named["test"]
    rated = [name for name, own in paths.items() if any(p.endswith("data.dimension") for p in own)]
    dimension = next((name for name in (*tested, *rated) if name in rated), None)
    return Roles(train, test, named.get("dimension", dimension))


def baselines(spec: Json, summary: xr.Dataset) -> list[tuple[str, Any]]:
    """Return the factor and baseline level of each contrast of the spec; without any, each factor's first."""
    declared = [(own["factor"], own.get("baseline")) for own in spec.get("contrasts", [])]
    varying = [(name, None) for name in factors(summary) if len(levels(summary, name)) > 1]
    return [(name, _level(summary, name, baseline)) for name, baseline in declared or varying]


def _level(summary: xr.Dataset, factor: str, baseline: Any) -> Any:
    """Return the level that a spec means: there it may be a number, here text, or the reverse."""
    return next((own for own in levels(summary, factor) if str(own) == str(baseline)), baseline)


def other_levels(dataset: xr.Dataset, taken: list[str]) -> list[dict[str, Any]]:
    """Return the combinations of levels that occur of the factors beside `taken`; [{}] without others."""
    names = [name for name in factors(dataset) if name not in taken]
    index = dataset.indexes["cell"]
    columns = [index.get_level_values(name) for name in names]
    return [dict(zip(names, own, strict=True)) for own in dict.fromkeys(zip(*columns, strict=True))] or [{}]


def at(dataset: xr.Dataset, chosen: dict[str, Any]) -> xr.Dataset:
    """Return the cells at the chosen levels, their index whole."""
    index = dataset.indexes["cell"]
    keep = np.ones(len(index), bool)
    for name, level in chosen.items():
        keep &= index.get_level_values(name) == level
    return dataset.isel(cell=np.flatnonzero(keep))


def paths_of(factor: Json) -> list[str]:
    """Return the keys of a spec that a factor sets, as dotted paths."""
    if "path" in factor:
        return [str(factor["path"])]
    return list(dict.fromkeys(path for own in factor.get("levels", {}).values() for path in _dotted(own)))


def _dotted(table: Any, before: str = "") -> list[str]:
    if not isinstance(table, dict):
        return [before]
    return [path for key, own in table.items() for path in _dotted(own, f"{before}.{key}".lstrip("."))]
