"""How callers follow what takes long: how much of it is done, and what comes next."""

from __future__ import annotations

from collections.abc import Callable

Follow = Callable[[int, int, str], None]  # told: parts done, parts in all, the next part


def ignored(_done: int, _total: int, _part: str) -> None:
    """Follow nothing."""
