"""What the types of `[analysis]` cannot say: looks that rise, and stand beside their monitoring."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from specs.errors import Problem
from specs.tables.analysis import Analysis
from specs.toml.describe import value as spell


def analysis_problems(settings: Analysis, seeds: int) -> Iterator[Problem]:
    """Everything that is wrong with the table by itself, and with the number of seeds of the spec."""
    looks = settings.looks
    if settings.monitoring == "spending" and not looks:
        yield Problem(
            None, "analysis.looks", 'expected numbers of seeds beside monitoring = "spending", found none'
        )
    if settings.monitoring != "spending" and looks:
        message = f'expected only beside monitoring = "spending", found {spell(settings.monitoring)}'
        yield Problem(None, "analysis.looks", message)
    for place, (before, look) in enumerate(pairwise(looks), 1):
        if look <= before:
            message = f"expected more seeds than at the look before ({before}), found {look}"
            yield Problem(None, f"analysis.looks[{place}]", message)
    if looks and seeds > max(looks):
        at = f"analysis.looks[{len(looks) - 1}]"
        yield Problem(None, at, f"expected at least the {seeds} `seeds` of the spec, found {looks[-1]}")
