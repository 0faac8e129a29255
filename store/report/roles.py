"""What an experiment's factors stand for, as its spec says, and parts of it at some of their levels."""

from itertools import product
from typing import Any

import xarray as xr
from attrs import frozen

from store.analysis.nodes import factors, levels
from store.backend.records import Json


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
    paths = {name: paths_of(factor) for name, factor in spec.get("factors", {}).items() if name in known}
    tested = [
        name for name, of_factor in paths.items() if any(p.startswith("evaluate.data") for p in of_factor)
    ]
    trained = [name for name, of_factor in paths.items() if any(p.startswith("data") for p in of_factor)]
    pairs = [
        (a, b)
        for a, b in product(trained, tested)
        if a != b and set(levels(summary, a)) & set(levels(summary, b))
    ]
    train, test = pairs[0] if pairs else (None, None)
    if "train" in named and "test" in named:
        train, test = named["train"], named["test"]
    rated = [
        name for name, of_factor in paths.items() if any(p.endswith("data.dimension") for p in of_factor)
    ]
    dimension = next((name for name in (*tested, *rated) if name in rated), None)
    return Roles(train, test, named.get("dimension", dimension))


def paths_of(factor: Json) -> list[str]:
    """Return the keys of a spec that a factor sets, as dotted paths."""
    if "path" in factor:
        return [str(factor["path"])]
    return list(dict.fromkeys(path for level in factor.get("levels", {}).values() for path in _dotted(level)))


def _dotted(table: Any, before: str = "") -> list[str]:
    if not isinstance(table, dict):
        return [before]
    return [path for key, value in table.items() for path in _dotted(value, f"{before}.{key}".lstrip("."))]
