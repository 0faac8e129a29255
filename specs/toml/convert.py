"""The one converter between plain dicts and the typed spec: strict, and it reports every mistake at once."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import attrs
from cattrs import Converter
from cattrs.cols import list_structure_factory
from cattrs.errors import (
    AttributeValidationNote,
    BaseValidationError,
    ForbiddenExtraKeysError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn, mapping_structure_factory
from msgspec import Meta

from specs.common.spelling import nearest
from specs.errors import Problem
from specs.tables.design import Factor
from specs.toml.describe import expected, found, members, named, split_annotated, value
from specs.toml.keys import Path, join, split
from specs.toml.known_keys import unknown_key
from specs.toml.parse import MAX_INTEGER

T = TypeVar("T")
Hook = Callable[[Any, Any], Any]


class MismatchError(ValueError):
    """A value of the wrong type, or out of its bounds."""

    def __init__(self, type_: Any, raw: Any, hint: str = "", limit: str = "") -> None:
        super().__init__(
            f"{' '.join(filter(None, ['expected', expected(type_), limit]))}, found {found(raw)}"
        )
        self.raw = raw
        self.hint = hint
        self.limit = limit


def _scalar(type_: type) -> Hook:
    # Exact types: True is no integer. Only an integer may stand for a number.
    accepted = (int, float) if type_ is float else (type_,)

    def structure_scalar(raw: Any, _: Any) -> Any:
        if type(raw) not in accepted:
            raise MismatchError(type_, raw)
        try:
            value = type_(raw)
        except OverflowError:  # an integer beyond all floats
            raise MismatchError(type_, raw) from None
        if type_ is float and not math.isfinite(value):
            raise MismatchError(type_, raw)
        if type_ is str and "\0" in value:
            raise MismatchError(type_, raw, limit="without NUL characters")
        if type_ is int and abs(value) > MAX_INTEGER:
            raise MismatchError(type_, raw, limit=f"within ±{MAX_INTEGER}")
        return value

    return structure_scalar


def _literal(type_: Any, _: Converter) -> Hook:
    choices = get_args(type_)

    def structure_literal(raw: Any, _: Any) -> Any:
        for choice in choices:
            if type(raw) is type(choice) and raw == choice:
                return choice
        hint = nearest(raw, [c for c in choices if isinstance(c, str)]) if isinstance(raw, str) else ""
        raise MismatchError(type_, raw, hint)

    return structure_literal


def _accepts(member: Any, raw: Any) -> bool:
    """Whether `member` is the alternative that a value of this kind can be meant for."""
    bare, _ = split_annotated(member)
    if get_origin(bare) is Literal:
        return any(type(choice) is type(raw) for choice in get_args(bare))
    kind = get_origin(bare) or (dict if attrs.has(bare) else bare)
    if kind is float:
        return type(raw) in (int, float)
    return isinstance(raw, Mapping) if kind is dict else type(raw) is kind


def _union(type_: Any, converter: Converter) -> Hook:
    alternatives = [(member, converter.get_structure_hook(member)) for member in members(type_)]

    def structure_union(raw: Any, _: Any) -> Any:
        meant = [(member, hook) for member, hook in alternatives if _accepts(member, raw)]
        if not meant:
            raise MismatchError(type_, raw)
        member, hook = meant[0]
        try:
            return hook(raw, member)
        except MismatchError as error:
            raise MismatchError(type_, raw, error.hint, error.limit) from None

    return structure_union


def _breaks(value: Any, meta: Meta) -> bool:
    return (
        (meta.ge is not None and value < meta.ge)
        or (meta.gt is not None and value <= meta.gt)
        or (meta.le is not None and value > meta.le)
        or (meta.lt is not None and value >= meta.lt)
        or (meta.min_length is not None and len(value) < meta.min_length)
        or (meta.pattern is not None and re.fullmatch(meta.pattern, value) is None)
    )


def _annotated(type_: Any, converter: Converter) -> Hook:
    bare, metas = split_annotated(type_)
    names = named(type_) if bare is str else None
    inner = converter.get_structure_hook(bare)

    def structure_annotated(raw: Any, _: Any) -> Any:
        try:
            value = inner(raw, bare)
        except MismatchError as error:
            raise MismatchError(
                type_, raw, error.hint, error.limit
            ) from None  # now with the bounds in its words
        if any(_breaks(value, meta) for meta in metas):
            raise MismatchError(type_, raw)
        if names is not None and value not in names:
            raise MismatchError(type_, raw, names.nearest(value))
        return value

    return structure_annotated


def _only(kind: type, factory: Callable[[Any, Converter], Hook]) -> Callable[[Any, Converter], Hook]:
    """`factory`'s hook for values of this kind only; cattrs by itself takes whatever it can iterate."""

    def guarded(type_: Any, converter: Converter) -> Hook:
        inner = factory(type_, converter)

        def structure_container(raw: Any, _: Any) -> Any:
            if not isinstance(raw, kind):
                raise MismatchError(type_, raw, limit=_as_table(type_, raw))
            return inner(raw, type_)

        return structure_container

    return guarded


def _as_table(cls: Any, raw: Any) -> str:
    """How the table is written that a plain value may be meant for; "" where that cannot be told."""
    if cls is Factor and isinstance(raw, list):
        return 'such as { path = "lora.r", values = [8, 16] }'
    first = next(iter(attrs.fields(cls)), None) if attrs.has(cls) else None
    if first is None or first.default is not attrs.NOTHING or not isinstance(raw, str):
        return ""
    return f"such as {{ {first.name} = {value(raw)} }}"


def _make_converter() -> Converter:
    converter = Converter(forbid_extra_keys=True, detailed_validation=True)
    for scalar in (int, float, str, bool):
        converter.register_structure_hook(scalar, _scalar(scalar))
    factories: list[tuple[Callable[[Any], bool], Callable[[Any, Converter], Hook]]] = [
        (lambda t: get_origin(t) is Literal, _literal),
        (lambda t: get_origin(t) in (Union, UnionType), _union),
        (lambda t: get_origin(t) is list, _only(list, list_structure_factory)),
        (lambda t: get_origin(t) is dict, _only(Mapping, mapping_structure_factory)),
        (
            attrs.has,
            _only(Mapping, lambda cls, c: make_dict_structure_fn(cls, c, _cattrs_forbid_extra_keys=True)),
        ),
        (lambda t: get_origin(t) is Annotated, _annotated),
    ]
    for predicate, factory in factories:
        converter.register_structure_hook_factory(predicate, factory)
    return converter


_CONVERTER = _make_converter()


def structure(raw: Any, cls: type[T], at: str = "") -> tuple[T | None, list[Problem]]:
    """The typed object, or None and everything that is wrong with `raw`; `at` is the key path of `raw`."""
    try:
        return _CONVERTER.structure(raw, cls), []
    except (BaseValidationError, MismatchError) as error:
        return None, list(_problems(error, split(at) if at else ()))


def unstructure(obj: Any) -> dict[str, Any]:
    """Plain dicts and lists, without the keys that are None: what `structure` takes back."""
    plain: dict[str, Any] = _without_none(_CONVERTER.unstructure(obj))
    return plain


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value


def _problems(error: Exception, path: Path) -> list[Problem]:
    if isinstance(error, BaseValidationError):
        return [problem for inner in error.exceptions for problem in _problems(inner, path + _step(inner))]
    if isinstance(error, ForbiddenExtraKeysError):
        return [unknown_key(error.cl, (*path, str(key))) for key in sorted(error.extra_fields)]
    if isinstance(error, KeyError):
        return [Problem(None, join(path), "missing; this key is required")]
    if isinstance(error, MismatchError):
        return [Problem(None, join(path), str(error), error.hint)]
    raise error


def _step(error: Exception) -> Path:
    """Where in its table or array an error belongs."""
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return (note.name,)
        if isinstance(note, IterableValidationNote):
            return (note.index,)
    return ()
