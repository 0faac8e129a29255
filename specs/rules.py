"""`[rules]`, `only_when` and `[[contrasts]]`: names of factors and levels to their places on the axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import combinations
from typing import Any

from attrs import field, frozen

from specs.axes import Axis
from specs.common.spelling import nearest, one_of
from specs.errors import Problem
from specs.toml import keys
from specs.toml.describe import found
from specs.toml.describe import value as spell
from specs.toml.keys import join

# (axis, levels) pairs; a cell matches when every axis has one of its levels.
Pattern = tuple[tuple[int, frozenset[int]], ...]


@frozen
class ContrastPair:
    """`[[contrasts]]`, resolved: levels of an axis, each compared with the baseline."""

    axis: int
    baseline: int
    levels: tuple[int, ...]


@frozen
class Scope:
    """`[[interventions]]`, resolved: the cells that one is done to, and the levels of its donor by axis."""

    cells: Pattern
    donor: tuple[tuple[int, int], ...]  # empty: no other cell


@frozen
class ResolvedRules:
    """The resolved rules; `conditions` (from `only_when`) in an order in which each finds its own decided."""

    conditions: tuple[tuple[int, Pattern], ...] = ()
    exclude: tuple[Pattern, ...] = ()
    include: tuple[Pattern, ...] = ()
    zips: tuple[tuple[int, ...], ...] = ()
    comparisons: tuple[ContrastPair, ...] = field(default=())
    scopes: tuple[Scope, ...] = field(default=())  # in the order of the interventions
    references: tuple[tuple[tuple[int, int], ...], ...] = ()  # of `probe.against`, by axis; empty: base


def read_rules(raw: Mapping[str, Any], axes: Sequence[Axis]) -> tuple[ResolvedRules, list[Problem]]:
    """The rules on these axes, and every name in them that leads nowhere."""
    reader = _RuleReader(axes)
    rules = ResolvedRules(
        conditions=reader.conditions(),
        exclude=reader.patterns(raw, "exclude"),
        include=reader.patterns(raw, "include"),
        zips=reader.zips(keys.dig(raw, ("rules", "zip"), list)),
        comparisons=reader.comparisons(keys.dig(raw, ("contrasts",), list)),
        scopes=reader.scopes(keys.dig(raw, ("interventions",), list)),
        references=reader.references(keys.dig(raw, ("probe", "against"), list)),
    )
    for index, pattern in enumerate(rules.include):
        if pattern in rules.exclude:
            other = rules.exclude.index(pattern)
            reader.add(("rules", "include", index), f"the same pattern as exclude[{other}]: a contradiction")
    return rules, reader.problems


class _RuleReader:
    """Looks factors and levels up, collecting the problems on the way."""

    def __init__(self, axes: Sequence[Axis]) -> None:
        self.axes = axes
        self.names = [axis.name for axis in axes]
        # By type as well: 1, 1.0 and true are three different levels.
        self.indices = [{(type(x.label), x.label): i for i, x in enumerate(axis.levels)} for axis in axes]
        self.problems: list[Problem] = []

    def add(self, at: keys.Path, message: str, hint: str = "") -> None:
        self.problems.append(Problem(None, join(at), message, hint))

    def _axis(self, name: Any, at: keys.Path) -> int | None:
        if name in self.names:
            return self.names.index(name)
        if isinstance(name, str):  # else the type check has said so
            self.add(
                at, f"unknown factor {spell(name)}; expected {one_of(self.names)}", nearest(name, self.names)
            )
        return None

    def _level(self, axis: int, label: Any, at: keys.Path) -> int | None:
        scalar = isinstance(label, str | int | float)
        index = self.indices[axis].get((type(label), label)) if scalar else None
        labels = [level.label for level in self.axes[axis].levels]
        if index is None and labels:  # a factor without levels has its own problem
            wanted = one_of(spell(label) for label in labels)
            hint = nearest(str(label), [label for label in labels if isinstance(label, str)])
            self.add(
                at, f"unknown level of `{self.names[axis]}`: expected {wanted}, found {found(label)}", hint
            )
        return index

    def _pattern(self, table: Mapping[str, Any], at: keys.Path) -> Pattern:
        pattern: list[tuple[int, frozenset[int]]] = []
        for name, labels in table.items():
            axis = self._axis(name, (*at, name))
            if axis is None:
                continue
            if labels == [] and isinstance(labels, list):
                self.add((*at, name), "expected at least one level, found an empty list")
            named = enumerate(labels) if isinstance(labels, list) else [(None, labels)]
            indices = {
                self._level(axis, label, (*at, name) if i is None else (*at, name, i)) for i, label in named
            }
            pattern.append((axis, frozenset(index for index in indices if index is not None)))
        return tuple(sorted(pattern, key=lambda entry: entry[0]))

    def patterns(self, raw: Mapping[str, Any], rule: str) -> tuple[Pattern, ...]:
        patterns = []
        for index, table in enumerate(keys.dig(raw, ("rules", rule), list)):
            at = ("rules", rule, index)
            if isinstance(table, Mapping):
                patterns.append(self._pattern(table, at))
            if table == {}:
                self.add(at, "expected factors and their levels; an empty pattern matches every cell")
        return tuple(patterns)

    def conditions(self) -> tuple[tuple[int, Pattern], ...]:
        patterns: dict[int, Pattern] = {}
        for axis, factor in enumerate(self.axes):
            at = ("factors", factor.name, "only_when")
            if factor.name in factor.only_when:
                self.add((*at, factor.name), "a factor cannot depend on itself")
            others = {
                name: labels[0] if len(labels) == 1 and not isinstance(labels[0], list) else list(labels)
                for name, labels in factor.only_when.items()
                if name != factor.name
            }
            if others:
                patterns[axis] = self._pattern(others, at)
        graph = {axis: [other for other, _ in pattern] for axis, pattern in patterns.items()}
        try:
            order = list(TopologicalSorter(graph).static_order())
        except CycleError as error:
            cycle = [self.names[axis] for axis in error.args[1]]
            self.add(("factors", cycle[-1], "only_when"), f"a cycle: {' → '.join(reversed(cycle))}")
            return ()
        return tuple((axis, patterns[axis]) for axis in order if axis in patterns)

    def zips(self, groups: Sequence[Any]) -> tuple[tuple[int, ...], ...]:
        zips: list[tuple[int, ...]] = []
        taken: dict[int, int] = {}
        for i_group, group in enumerate(groups):
            at = ("rules", "zip", i_group)
            if not isinstance(group, list):
                continue
            members: list[int] = []
            for i_name, name in enumerate(group):
                axis = self._axis(name, (*at, i_name))
                if axis is None:
                    continue
                if axis in taken:
                    self.add((*at, i_name), f"`{name}` is zipped already, in zip[{taken[axis]}]")
                taken[axis] = i_group
                members.append(axis)
            if len(group) < 2:
                self.add(at, f"expected at least 2 factors, found {len(group)}")
            self._check_lengths(members, at)
            zips.append(tuple(members))
        return tuple(zips)

    def _check_lengths(self, members: Sequence[int], at: keys.Path) -> None:
        sizes = {self.names[axis]: len(self.axes[axis].levels) for axis in members}
        if len(set(sizes.values())) > 1:
            lengths = ", ".join(f"`{name}` has {size}" for name, size in sizes.items())
            self.add(at, f"expected factors with equally many levels: {lengths}")

    def comparisons(self, tables: Sequence[Any]) -> tuple[ContrastPair, ...]:
        comparisons = []
        for index, table in enumerate(tables):
            at = ("contrasts", index)
            if not (isinstance(table, Mapping) and {"factor", "baseline"} <= set(table)):
                continue
            axis = self._axis(table["factor"], (*at, "factor"))
            if axis is None:
                continue
            if self.names[axis] == "seed":
                self.add((*at, "factor"), "seeds are repetitions, not conditions; expected a factor")
            comparisons.append(self._comparison(table, axis, at))
        self._check_repeated(comparisons)
        return tuple(comparisons)

    def _comparison(self, table: Mapping[str, Any], axis: int, at: keys.Path) -> ContrastPair:
        baseline = self._level(axis, table["baseline"], (*at, "baseline"))
        every = range(len(self.axes[axis].levels))
        if not isinstance(table.get("levels"), list):
            return ContrastPair(axis, baseline or 0, tuple(level for level in every if level != baseline))
        levels = []
        for index, label in enumerate(table["levels"]):
            level = self._level(axis, label, (*at, "levels", index))
            if level is not None and level == baseline:
                self.add((*at, "levels", index), f"{spell(label)} is the baseline itself")
            levels.append(level or 0)
        return ContrastPair(axis, baseline or 0, tuple(levels))

    def scopes(self, tables: Sequence[Any]) -> tuple[Scope, ...]:
        scopes = []
        for index, table in enumerate(tables):
            at = ("interventions", index)
            cells = self._pattern(keys.dig(table, ("cells",), dict), (*at, "cells"))
            donor = self._single(keys.dig(table, ("donor",), dict), (*at, "donor"))
            scopes.append(Scope(cells, donor))
        return tuple(scopes)

    def references(self, entries: Sequence[Any]) -> tuple[tuple[tuple[int, int], ...], ...]:
        references = []
        for index, entry in enumerate(entries):
            at = ("probe", "against", index)
            if entry == {}:
                self.add(at, 'expected a factor and its level, or "base"; found an empty table')
            references.append(self._single(entry, at) if isinstance(entry, Mapping) else ())
            if entry in entries[:index]:
                self.add(at, f"the same as against[{entries.index(entry)}]")
        for axis in self.axes:
            for level in axis.levels:
                for key in level.overrides:
                    if keys.split(key)[:2] == ("probe", "against"):
                        message = f"the level {spell(level.label)} sets it; expected it in [probe] alone"
                        self.add(("probe", "against"), message)
        return tuple(references)

    def _single(self, table: Mapping[str, Any], at: keys.Path) -> tuple[tuple[int, int], ...]:
        """Levels of some axes, one of each."""
        pattern = self._pattern(table, at)
        for axis, levels in pattern:
            if len(levels) > 1:
                self.add((*at, self.names[axis]), f"expected one level, found {len(levels)}")
        return tuple((axis, min(levels)) for axis, levels in pattern if levels)

    def _check_repeated(self, comparisons: Sequence[ContrastPair]) -> None:
        for (_, first), (i_second, second) in combinations(enumerate(comparisons), 2):
            same = first.axis == second.axis and first.baseline == second.baseline
            if same and set(first.levels) & set(second.levels):
                self.add(("contrasts", i_second), "compares what another contrast compares already")
