"""`[evaluate.data]`: keys laid over `[data]`, so that a transfer study writes only what differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from specs.errors import Problem
from specs.toml import keys

OVERLAY: keys.Path = ("evaluate", "data")


def exists(raw: Mapping[str, Any]) -> bool:
    """Whether the spec writes an overlay."""
    return keys.exists(raw, OVERLAY)


def expand(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """`raw` with the whole of `[data]` under the overlay."""
    if not (exists(raw) and isinstance(raw["evaluate"]["data"], Mapping)):
        return raw
    whole = keys.merge(raw.get("data", {}), raw["evaluate"]["data"])
    return {**raw, "evaluate": {**raw["evaluate"], "data": whole}}


def written(raw: Mapping[str, Any], problems: Iterable[Problem]) -> list[Problem]:
    """The problems without those that the overlay only repeats from `[data]`."""
    return [
        problem
        for problem in problems
        if not problem.key.startswith("evaluate.data.") or keys.exists(raw, keys.split(problem.key))
    ]
