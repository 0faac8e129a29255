"""Every key that a spec may have, and what a key is told that is none of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, get_type_hints

import attrs

from specs.common.spelling import nearest, one_of
from specs.errors import Problem
from specs.tables.experiment import OVERLAID, Experiment
from specs.toml.describe import members, split_annotated
from specs.toml.keys import Path, join
from specs.toml.other_names import MEASURED_IN, NOT_HERE, OTHER_NAMES


@cache
def field_types(cls: type) -> dict[str, Any]:
    """The annotated type of every key of a table, in order."""
    return get_type_hints(cls, include_extras=True)


def table_class(type_: Any) -> type | None:
    """The attrs class behind a key that holds a table (optional or not), else None."""
    bare, _ = split_annotated(type_)
    classes = [member for member in members(bare) if attrs.has(member)]
    return classes[0] if classes else None


@cache
def tables() -> dict[str, type]:
    """Every table with fixed keys, by key path; "" is the top level."""
    known: dict[str, type] = {"": Experiment}

    def visit(cls: type, at: str) -> None:
        for name, type_ in field_types(cls).items():
            inner = table_class(type_)
            if inner is not None:
                known[at + name] = inner
                visit(inner, f"{at}{name}.")

    visit(Experiment, "")
    return known


def _overlays() -> set[str]:
    """The tables that repeat the keys of another, with those in them."""
    places = tuple(f"evaluate.{table}" for table in OVERLAID)
    return {name for name in tables() if name.startswith(places)}


def is_key(path: Path) -> bool:
    """Whether a spec may have a key at this path, of a name that is the same in every spec."""
    cls: type | None = Experiment
    for part in path[:-1]:
        cls = table_class(field_types(cls)[str(part)]) if cls and part in field_types(cls) else None
    return cls is not None and path[-1] in field_types(cls)


def key_like(path: Path, tree: Mapping[str, Any]) -> str:
    """Another key of a tree, or of any spec, that is spelled most like `path`, or "" if none comes near.

    A single name is held against the last names of keys, for the rest of a long key may be like anything.
    """
    spelled = join(path)
    known = [key for key in (*map(join, _every_key(tree, ())), *_fixed_keys()) if key != spelled]
    if len(path) > 1:
        return nearest(spelled, [key for key in known if "." in key])
    last = {key.rpartition(".")[2]: key for key in reversed(known)}
    return last.get(nearest(spelled, last, 0.7), "")


def _every_key(tree: Mapping[str, Any], at: Path) -> Iterator[Path]:
    for key, value in tree.items():
        yield (*at, key)
        if isinstance(value, Mapping):
            yield from _every_key(value, (*at, key))


def _fixed_keys() -> list[str]:
    return [f"{name}.{key}" if name else key for name, cls in tables().items() for key in field_types(cls)]


def unknown_key(cls: type, path: Path) -> Problem:
    """The problem of a key that `cls` lacks: where it belongs, or how it may be meant."""
    key = str(path[-1])
    spelled = key.lower().replace("-", "_")
    own_keys = field_types(cls)
    if other := next((other for other in (f"{key}s", key.removesuffix("s")) if other in own_keys), None):
        return Problem(None, join(path), "unknown key", other)
    if spelled in own_keys:
        return Problem(None, join(path), "unknown key", spelled)
    placed = f"{path[-2] if len(path) > 1 else ''}.{spelled}"
    for name in (placed, spelled):
        if (other := OTHER_NAMES.get(name)) is not None:
            measure = f", {MEASURED_IN[name]}" if name in MEASURED_IN else ""
            return Problem(None, join(path), f"unknown key; here it is called `{other}`{measure}")
    if (reason := _why_not_here(placed)) is not None:
        return Problem(None, join(path), f"unknown key; {reason}")
    homes = [
        f"[{name}]" if name else "the top level"
        for name, table in tables().items()
        if spelled in field_types(table) and table is not cls and name not in _overlays()
    ]
    if homes:
        return Problem(None, join(path), f"unknown key; `{spelled}` belongs to {one_of(homes)}")
    if (reason := _why_not_here(spelled)) is not None:
        return Problem(None, join(path), f"unknown key; {reason}")
    hint = nearest(key, own_keys)
    return Problem(None, join(path), "unknown key", hint, choices="" if hint else ", ".join(own_keys))


def _why_not_here(name: str) -> str | None:
    """Why the engine has nothing like a key of another trainer; None for a key of none."""
    for reason, names in NOT_HERE.items():
        if any(_stands_for(other, name) for other in names.split()):
            return reason
    return None


def _stands_for(other: str, name: str) -> bool:
    return name.startswith(other[:-1]) if other.endswith("*") else name == other
