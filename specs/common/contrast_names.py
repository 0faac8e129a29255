"""How declared contrasts are called, wherever a person names one or results do."""

from __future__ import annotations

from collections.abc import Sequence


def against(factor: str, baseline: str) -> str:
    """Return the name that tells a contrast from others of its factor."""
    return f"{factor} against {baseline}"


def contrast_names(contrasts: Sequence[tuple[str, str]]) -> list[str]:
    """Return a name for each (factor, baseline): the factor, with the baseline where a factor has several."""
    factors = [factor for factor, _ in contrasts]
    return [factor if factors.count(factor) == 1 else against(factor, base) for factor, base in contrasts]
