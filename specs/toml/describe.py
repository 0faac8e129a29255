"""Types and values in words, for error messages and the reference: `an integer >= 1`, `the string "8"`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, time
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import attrs
from msgspec import Meta

from specs.common.spelling import one_of
from specs.registry import Named
from specs.toml.keys import join, quote

_SCALARS: dict[Any, tuple[str, str]] = {
    int: ("an integer", "integers"),
    float: ("a number", "numbers"),
    str: ("a string", "strings"),
    bool: ("true or false", "booleans"),
}
_LONGEST = 60


def split_annotated(type_: Any) -> tuple[Any, list[Meta]]:
    """The bare type and the `Meta`s around it."""
    if get_origin(type_) is not Annotated:
        return type_, []
    bare, *notes = get_args(type_)
    return bare, [note for note in notes if isinstance(note, Meta)]


def named(type_: Any) -> Named | None:
    """The registry whose names a text, or the texts of a list, are of; the text may be left out."""
    if get_origin(type_) is Annotated:
        bare, *notes = get_args(type_)
        return next((note for note in notes if isinstance(note, Named)), None) or named(bare)
    alternatives = members(type_)
    if alternatives != [type_]:
        return named(alternatives[0]) if len(alternatives) == 1 else None
    return named(get_args(type_)[0]) if get_origin(type_) is list else None


def members(type_: Any) -> list[Any]:
    """The alternatives of a union without None, or the type itself."""
    if get_origin(type_) in (Union, UnionType):
        return [member for member in get_args(type_) if member is not NoneType]
    return [type_]


def bounds(metas: list[Meta]) -> str:
    """`>= 1 and < 8`, or "" where there are no bounds."""
    signs = (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))
    limits = ((sign, getattr(meta, name)) for meta in metas for name, sign in signs)
    return " and ".join(f"{sign} {limit}" for sign, limit in limits if limit is not None)


def expected(type_: Any) -> str:
    """What a value of this type has to be."""
    bare, metas = split_annotated(type_)
    if bare is str and (names := named(type_)):
        of_plugins = f"{quote(names.prefix + 'NAME')} of a plug-in" if names.prefix else "a plug-in's name"
        open_names = [quote(f"{start}…") for start in names.starts]
        return one_of([*map(value, names.built_in), *open_names, of_plugins])
    alternatives = members(bare)
    if len(alternatives) > 1:
        return one_of(expected(member) for member in alternatives)
    if alternatives != [bare]:
        return expected(Annotated[alternatives[0], *metas]) if metas else expected(alternatives[0])
    if get_origin(bare) is Literal:
        return one_of(value(choice) for choice in get_args(bare))
    limits = bounds(metas)
    return " ".join(filter(None, [_kind(bare, metas), limits]))


def in_words(meta: Meta) -> str:
    """What a pattern says of a text: in the words that stand beside it, or as it is."""
    return str((meta.extra or {}).get("words") or f"matching {meta.pattern}")


def _kind(bare: Any, metas: list[Meta]) -> str:
    if bare in _SCALARS:
        patterns = [in_words(meta) for meta in metas if meta.pattern is not None]
        filled = _is_filled(bare, metas) and not patterns
        kind = "a non-empty string" if filled else _SCALARS[bare][0]
        return " ".join([kind, *patterns])
    if get_origin(bare) is list:
        fewest = max((meta.min_length or 0 for meta in metas), default=0)
        items = plural(get_args(bare)[0])
        return (
            f"a list of at least {fewest} {items}"
            if fewest > 1
            else f"{'a non-empty' if fewest else 'a'} list of {items}"
        )
    if get_origin(bare) is dict or attrs.has(bare):
        return "a table"
    return "a value"


def _is_filled(bare: Any, metas: list[Meta]) -> bool:
    return bare is str and any(meta.min_length for meta in metas)


def plural(type_: Any) -> str:
    """Several things of this type, as in `a list of integers`."""
    bare, metas = split_annotated(type_)
    if bare is str and named(type_):
        return expected(type_)
    if bare in _SCALARS:
        filled = "non-empty" if _is_filled(bare, metas) else ""
        return " ".join(filter(None, [filled, _SCALARS[bare][1], bounds(metas)]))
    if get_origin(bare) is list:
        return "lists of " + plural(get_args(bare)[0])
    if get_origin(bare) is dict or attrs.has(bare):
        return "tables"
    return "values" if bare is Any else expected(bare)


def value(raw: Any) -> str:
    """A value as TOML spells it, on one line: what a person may paste behind `KEY =` or `--set KEY=`."""
    if isinstance(raw, bool):
        return "true" if raw else "false"
    if isinstance(raw, Mapping):
        inner = ", ".join(f"{join((str(key),))} = {value(item)}" for key, item in raw.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(raw, list | tuple):
        return f"[{', '.join(map(value, raw))}]"
    return quote(raw) if isinstance(raw, str) else str(raw)


def found(raw: Any) -> str:
    """What a value is, and which."""
    if isinstance(raw, bool):
        return value(raw)
    for kind, name in ((int, "the integer"), (float, "the number"), (str, "the string")):
        if isinstance(raw, kind):
            text = value(raw)
            return f"{name} {text if len(text) <= _LONGEST else text[:_LONGEST] + '…'}"
    if isinstance(raw, Mapping):
        return "a table" if raw else "an empty table"
    if isinstance(raw, list):
        return f"a list of {len(raw)}" if raw else "an empty list"
    return f"the date or time {raw}" if isinstance(raw, date | time) else f"a {type(raw).__name__}"
