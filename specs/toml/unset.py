"""Keys that a file or `--set` takes back: `key = { unset = true }`, `--set key=null`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from specs.toml.keys import Path

UNSET = {"unset": True}


def taken_back(tree: Mapping[str, Any], at: Path = ()) -> Iterator[Path]:
    """Yield the path of every key that is taken back."""
    for key, value in tree.items():
        if value == UNSET and value["unset"] is True:
            yield (*at, key)
        elif isinstance(value, Mapping):
            yield from taken_back(value, (*at, key))


def without(tree: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return a tree without the key at a path (table keys only)."""
    key, *rest = path
    if not rest:
        return {name: value for name, value in tree.items() if name != key}
    inner = tree.get(str(key))
    return {**tree, str(key): without(inner, tuple(rest))} if isinstance(inner, Mapping) else dict(tree)
