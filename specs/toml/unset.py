"""Keys that a file or `--set` takes back: `key = { unset = true }`, `--set key=null`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from specs.toml.keys import Path, exists, leaf

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


def pruned(tree: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return a tree without the key at a path, nor the tables that would be empty without it."""
    rest = without(tree, path)
    above = path[:-1]
    return pruned(rest, above) if above and leaf(rest, above) == {} else rest


def nothing_to_take_back(base: Mapping[str, Any], changes: Mapping[str, Any]) -> list[Path]:
    """Return the path of every key that changes take back and that the base does not have."""
    return [path for path in taken_back(changes) if not exists(base, path)]
