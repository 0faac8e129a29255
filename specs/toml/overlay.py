"""`[evaluate.data]` and `[evaluate.prompt]`: keys laid over `[data]` and `[prompt]` for the test alone.

So a study of transfer, or of the wording of test prompts, writes only what differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from specs.errors import Problem
from specs.tables.experiment import OVERLAID
from specs.toml import keys


def path_of(table: str) -> keys.Path:
    """Where the overlay of a table is written."""
    return ("evaluate", table)


def existing(raw: Mapping[str, Any]) -> set[str]:
    """The tables that the spec writes an overlay of."""
    return {table for table in OVERLAID if keys.exists(raw, path_of(table))}


def expand(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """`raw` with the whole of each overlaid table under its overlay."""
    for table in existing(raw):
        if isinstance(overlay := raw["evaluate"][table], Mapping):
            whole = keys.merge(raw.get(table, {}), overlay)
            raw = {**raw, "evaluate": {**raw["evaluate"], table: whole}}
    return raw


def written(raw: Mapping[str, Any], problems: Iterable[Problem]) -> list[Problem]:
    """The problems without those that an overlay only repeats from its table."""
    places = tuple(f"{keys.join(path_of(table))}." for table in OVERLAID)
    return [
        problem
        for problem in problems
        if not problem.key.startswith(places) or keys.exists(raw, keys.split(problem.key))
    ]
