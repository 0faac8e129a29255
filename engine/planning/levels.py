"""Levels as a person writes them: "target=label, seed=0"."""

from __future__ import annotations

import re
from typing import Any

from store.ledger.levels import level_text

# A comma parts two levels where a factor's name and "=" follow it; any other is of a level's own text.
_BETWEEN = re.compile(r"\s*,\s*(?=(?:[A-Za-z][A-Za-z0-9_-]*\s*=|$))")


def parted(text: str) -> list[str]:
    """Give the "FACTOR=LEVEL" of a text that may hold several."""
    return [part.strip() for part in _BETWEEN.split(text) if part.strip()]


def is_level(level: Any, text: Any) -> bool:
    """Tell whether a text names a level: as TOML writes it (true), or as Python does (True)."""
    return str(text) in (level_text(level), str(level))


def describe(levels: dict[str, object]) -> str:
    """Give a cell's levels on one line: target=label, seed=0."""
    return ", ".join(f"{name}={'-' if level is None else level}" for name, level in levels.items())
