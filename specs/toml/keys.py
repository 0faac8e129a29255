"""Key paths such as `factors.target.levels."a+b"` or `rules.exclude[0]`, and the nested dicts they lead into.

A path is a tuple of table keys (str) and array indices (int).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

Path = tuple[str | int, ...]
T = TypeVar("T")

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_PART = re.compile(
    r"""\s*(?: (?P<bare>[A-Za-z0-9_-]+) | (?P<basic>"(?:[^"\\]|\\.)*") | '(?P<literal>[^']*)' )\s*"""
    r"""(?P<indices>(?:\[\d+\])*)""",
    re.VERBOSE,
)


def join(path: Path) -> str:
    """The path as TOML spells it, array indices in brackets."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if _BARE.fullmatch(part) else quote(part))
    return text


def split(key: str) -> Path:
    """The path that `key` spells; the inverse of `join`. ValueError if it spells none."""
    parts: list[str | int] = []
    position = 0
    while match := _PART.match(key, position):
        if match["bare"]:
            parts.append(match["bare"])
        else:
            parts.append(unquote(match["basic"]) if match["basic"] else match["literal"])
        parts += [int(index) for index in re.findall(r"\d+", match["indices"])]
        position = match.end()
        if position == len(key):
            return tuple(parts)
        if key[position] != ".":
            break
        position += 1
    raise ValueError(f"not a dotted key: {key!r}")


def quote(text: str) -> str:
    """A TOML basic string."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def unquote(text: str) -> str:
    """The string that a TOML string (quotes included) spells."""
    if '"' not in text and "'" not in text:
        return text
    import tomllib

    return str(tomllib.loads(f"x = {text}")["x"])


def merge(base: Any, changes: Any) -> Any:
    """`changes` laid over `base`: tables merge key by key, everything else replaces."""
    if not (isinstance(base, Mapping) and isinstance(changes, Mapping)):
        return changes
    merged = dict(base)
    for key, value in changes.items():
        merged[key] = merge(base[key], value) if key in base else value
    return merged


def nest(path: Path, value: Any) -> Any:
    """The nested dict in which `value` stands at `path` (table keys only)."""
    for part in reversed(path):
        value = {part: value}
    return value


def exists(tree: Any, path: Path) -> bool:
    """Whether `path` leads to something in `tree`."""
    for part in path:
        if isinstance(part, int):
            if not (isinstance(tree, list) and part < len(tree)):
                return False
        elif not (isinstance(tree, Mapping) and part in tree):
            return False
        tree = tree[part]
    return True


def leaf(tree: Any, path: Path) -> Any:
    """What `path` (table keys only) leads to in `tree`; None where it leads nowhere."""
    for part in path:
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree


def dig(tree: Any, path: Path, kind: type[T]) -> T:
    """What `path` leads to if it is of that kind, else an empty one: for plain data not checked yet."""
    value = leaf(tree, path)
    return value if isinstance(value, kind) else kind()


def leaves(tree: Mapping[str, Any], at: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value in `tree` that is no table, with its path."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, (*at, key))
        else:
            yield (*at, key), value
