"""`[factors]` and `seeds` to the axes of the matrix, every override checked against the typed spec."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, get_args, get_origin

from attrs import field, frozen

from specs.checks.reserved_names import is_reserved
from specs.common.names import NOT_APPLICABLE
from specs.common.spelling import nearest, one_of
from specs.errors import Problem
from specs.tables.experiment import TABLE_STAGES, Experiment
from specs.toml import keys
from specs.toml.convert import structure
from specs.toml.describe import split_annotated
from specs.toml.describe import value as spell
from specs.toml.keys import join
from specs.toml.known_keys import field_types, table_class, tables, unknown_key

Label = str | int | float | bool

# How tables and figures show that a factor does not apply.


@frozen
class Level:
    """One value on an axis, and the keys that it sets (dotted path → value)."""

    label: Label
    overrides: Mapping[str, Any]


@frozen
class Axis:
    """One factor: its levels, in order, and the factor levels under which alone it applies."""

    name: str
    levels: tuple[Level, ...]
    only_when: Mapping[str, tuple[Label, ...]] = field(factory=dict)


def read_axes(raw: Mapping[str, Any]) -> tuple[list[Axis], list[Problem]]:
    """All axes in order, `seed` last, and what is wrong with them beyond their types.

    Works on data that failed the type check, too, so that one report can name every mistake.
    """
    axes: list[Axis] = []
    problems: list[Problem] = []
    owners: dict[keys.Path, str] = {}
    for name, table in keys.dig(raw, ("factors",), dict).items():
        if not isinstance(table, Mapping):
            axes.append(Axis(name, ()))
            continue
        factor = _FactorReader(name, table)
        axes.append(factor.read())
        problems += factor.problems
        problems += _contradictions(name, factor.paths, owners)
    seeds = [seed for seed in keys.dig({"seeds": [0], **raw}, ("seeds",), list) if type(seed) is int]
    problems += _repeated("seeds", seeds)
    axes.append(Axis("seed", tuple(Level(seed, {"seed": seed}) for seed in seeds)))
    return axes, problems


def _contradictions(
    name: str, paths: Mapping[keys.Path, str], owners: dict[keys.Path, str]
) -> Iterator[Problem]:
    """Keys that an earlier factor sets as well; the product would depend on which comes last."""
    for path, at in paths.items():
        for length in range(1, len(path) + 1):
            owner = owners.get(path[:length])
            if owner is not None:
                yield Problem(None, at, f"`{join(path)}` is set by factor `{owner}` too: a contradiction")
    owners.update(dict.fromkeys(paths, name))


def _repeated(at: str, labels: list[Any]) -> Iterator[Problem]:
    seen: set[tuple[type, Any]] = set()
    for index, label in enumerate(labels):
        if (type(label), label) in seen:
            yield Problem(None, f"{at}[{index}]", f"{spell(label)} is listed twice")
        seen.add((type(label), label))


@cache
def _key_type(path: keys.Path) -> Any:
    """The type that a key must have, or the `Problem` of an unknown one."""
    if path[0] not in TABLE_STAGES:
        return _no_such_table(path)
    type_: Any = Experiment
    for length, part in enumerate(path):
        bare, _ = split_annotated(type_)
        if get_origin(bare) is dict:  # a table whose keys are the spec's own
            type_ = get_args(bare)[1]
            continue
        cls = table_class(type_)
        if cls is None:
            return Problem(None, "", f"`{join(path[:length])}` holds a value, not a table")
        if part not in field_types(cls):
            return unknown_key(cls, path[: length + 1])
        type_ = field_types(cls)[str(part)]
    return type_


def _no_such_table(path: keys.Path) -> Problem:
    first = str(path[0])
    if first == "seed":
        return Problem(None, "", "the run seed is set by `seeds`, not by a factor")
    homes = [name for name in TABLE_STAGES if first in field_types(tables()[name])]
    if len(path) == 1 and homes:
        return Problem(None, "", f"expected a path such as `{homes[0]}.{first}`, found `{first}`")
    message = f"unknown table `{first}`; a factor sets keys of {one_of(TABLE_STAGES)}"
    return Problem(None, "", message, nearest(first, TABLE_STAGES))


class _FactorReader:
    """Reads one `[factors.NAME]`, collecting its problems on the way."""

    def __init__(self, name: str, table: Mapping[str, Any]) -> None:
        self.name = name
        self.table = table
        self.at: keys.Path = ("factors", name)
        self.problems: list[Problem] = []
        self.paths: dict[keys.Path, str] = {}  # every key it sets → where the spec says so

    def read(self) -> Axis:
        self._check_name()
        named = keys.dig(self.table, ("levels",), dict)
        listed = keys.dig(self.table, ("values",), list)
        path = self.table.get("path")
        if {"levels", "path", "values"} & set(self.table) not in ({"levels"}, {"path", "values"}):
            given = ", ".join(key for key in ("levels", "path", "values") if key in self.table) or "neither"
            self._add(self.at, f"expected either `levels`, or `path` and `values`; found {given}")
        elif not named and not listed:
            self._add(self.at, "expected at least one level, found none")
        if named:
            levels = [self._named(label, sets) for label, sets in named.items() if isinstance(sets, Mapping)]
        else:
            levels = self._listed(path if isinstance(path, str) else None, listed)
        only_when = keys.dig(self.table, ("only_when",), dict)
        conditions = {name: tuple(v) if isinstance(v, list) else (v,) for name, v in only_when.items()}
        return Axis(self.name, tuple(levels), conditions)

    def _add(self, at: keys.Path, message: str, hint: str = "", choices: str = "") -> None:
        self.problems.append(Problem(None, join(at), message, hint, choices=choices))

    def _check_name(self) -> None:
        if is_reserved(self.name):
            self._add(
                self.at, f"`{self.name}` is a name of the store's own; expected another for this factor"
            )
        elif not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", self.name):
            self._add(self.at, "expected a name of letters, digits, `_` and `-` that begins with a letter")

    def _named(self, label: str, sets: Mapping[str, Any]) -> Level:
        at = (*self.at, "levels", label)
        self._check_label(label, at)
        overrides: dict[str, Any] = {}
        for written, value in keys.leaves(sets):
            origin = (*at, *written)
            try:
                path = tuple(part for key in written for part in keys.split(str(key)))
            except ValueError:
                self._add(origin, f"expected a dotted path such as train.lr, found {join(written)}")
                continue
            if join(path) in overrides:
                self._add(origin, f"`{join(path)}` is set twice by this level")
            if self._known(path, origin):
                self._check_value(path, value, origin)
            overrides[join(path)] = value
        return Level(label, overrides)

    def _listed(self, key: str | None, values: list[Any]) -> list[Level]:
        path: keys.Path = ()
        known = False
        if key is not None:
            try:
                path = keys.split(key)
                known = self._known(path, (*self.at, "path"))
            except ValueError:
                self._add((*self.at, "path"), f"expected a dotted path such as train.lr, found {spell(key)}")
        labels = [_label(value) for value in values]
        self.problems += _repeated(join((*self.at, "values")), labels)
        for index, (label, value) in enumerate(zip(labels, values, strict=True)):
            at = (*self.at, "values", index)
            self._check_label(label, at)
            if isinstance(value, Mapping):
                self._add(at, "expected a value, found a table; name it as one of `levels`")
            elif known:
                self._check_value(path, value, at)
        return [Level(x, {join(path): v} if path else {}) for x, v in zip(labels, values, strict=True)]

    def _check_label(self, label: Label, at: keys.Path) -> None:
        if label in ("", NOT_APPLICABLE):
            self._add(at, f"the level name {spell(label)} is reserved; expected another")

    def _known(self, path: keys.Path, origin: keys.Path) -> bool:
        type_ = _key_type(path)
        if isinstance(type_, Problem):
            named = f"unknown key `{join(path)}`" if origin[-1] == "path" else "unknown key"
            self._add(origin, type_.message.replace("unknown key", named, 1), type_.hint, type_.choices)
        else:
            self.paths.setdefault(path, join(origin))
        return not isinstance(type_, Problem)

    def _check_value(self, path: keys.Path, value: Any, origin: keys.Path) -> None:
        _, problems = structure(value, _key_type(path), join(origin))
        self.problems += problems


def _label(value: Any) -> Label:
    """The name of a listed value's level: itself, or a list's items joined by `+`."""
    if isinstance(value, list):
        return "+".join(str(item) for item in value) or "none"
    return value if isinstance(value, str | int | float | bool) else str(value)
