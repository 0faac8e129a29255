"""The entry points by which installed packages add to the engine, and the words for them in messages."""

from __future__ import annotations

from importlib.metadata import EntryPoint

PREFIX = "ablation_engine."
"""Before the kind, in the name of a group of entry points."""


def package_of(point: EntryPoint) -> str:
    """Name the package and version that an entry point is of."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "a package without metadata"


def described(point: EntryPoint) -> str:
    """Name a plug-in's package and entry point."""
    return f'plug-in "{point.name}" of {package_of(point)} (entry point {point.group}: {point.value})'
