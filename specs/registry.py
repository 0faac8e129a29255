"""Names that stand for code: what the engine has itself, and what installed packages add by entry points.

A registry's `home` is the module of the engine that adds the built-in entries; like the module of an entry
point it is named as text, and imported when a name is looked up. Entry points of the group
`ablation_engine.GROUP` are listed by the metadata of installed packages alone: a plug-in is imported when a
spec uses it. So names can be checked, and plans made, without torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from attrs import define, field, frozen

from specs.common.plugin_names import PREFIX, described, package_of
from specs.common.spelling import alike, nearest, one_of
from specs.errors import PluginError

T = TypeVar("T")
PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]*"  # of plug-ins' names


@define(eq=False)
class Registry:
    """One kind of thing that a spec names."""

    group: str  # entry points: ablation_engine.GROUP
    what: str  # in a message
    home: str
    _own: dict[str, object] = field(factory=dict)
    _loaded: dict[EntryPoint, object] = field(factory=dict)

    def add(self, name: str, entry: object) -> None:
        """Add a built-in entry; ValueError for a name that there is already."""
        if self._own.setdefault(name, entry) is not entry:
            raise ValueError(f'there are two built-in entries "{name}" of {PREFIX}{self.group}')

    @property
    def built_in(self) -> tuple[str, ...]:
        """The names that need no plug-in, in the order of the code."""
        import_module(self.home)
        return tuple(self._own)

    @property
    def plugins(self) -> dict[str, list[EntryPoint]]:
        """The entry points of installed packages by name, but for those with the name of a built-in entry."""
        return {name: points for name, points in self._points().items() if name not in self.built_in}

    def namesakes(self) -> list[EntryPoint]:
        """List the entry points that have the name of a built-in entry, which is not to be used then."""
        return [point for name, points in self._points().items() if name in self.built_in for point in points]

    def _points(self) -> dict[str, list[EntryPoint]]:
        points: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=PREFIX + self.group):
            if re.fullmatch(PATTERN, point.name):
                points.setdefault(point.name, []).append(point)
        return points

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self.built_in or name in self.plugins)

    def __iter__(self) -> Iterator[str]:
        yield from self.built_in
        yield from self.plugins

    def get(self, name: str, shape: type[T]) -> T:
        """Give what a name stands for. PluginError for an unknown name, or a plug-in that does not serve.

        shape: the class of entries, or `object` where it is out of reach: that of the built-in ones holds.
        """
        if name in self.built_in:
            entry = self._own[name]
        else:
            point = self._point(name)
            if point not in self._loaded:
                self._loaded[point] = _imported(point)
            entry = self._loaded[point]
            wanted = type(next(iter(self._own.values())))
            if not isinstance(entry, wanted):
                raise PluginError(
                    f"{described(point)}: expected an object of the class {wanted.__name__} "
                    f"({wanted.__module__}), found one of the class {type(entry).__name__}"
                )
        assert isinstance(entry, shape), name
        return entry

    def plugin(self, name: str) -> str:
        """Say which plug-in a name is of, for messages; "" for a built-in."""
        return "" if name in self.built_in else described(self._point(name))

    def identity(self, name: str) -> str:
        """Identify a plug-in by name, its own version, and its package's name and version; "": built in."""
        if name in self.built_in:
            return ""
        return "{kind} {name} {version} of {package}".format(**self.description(name))

    def description(self, name: str) -> dict[str, str]:
        """Describe a plug-in: its kind, name and version, and its package."""
        version = str(getattr(self.get(name, object), "version", ""))
        return {
            "kind": self.group,
            "name": name,
            "version": version,
            "package": package_of(self._point(name)),
        }

    def _point(self, name: str) -> EntryPoint:
        points = self.plugins.get(name, [])
        if not points:
            near = nearest(name, self)
            hint = f'did you mean "{near}"?' if near else f"expected {one_of(self)}"
            raise PluginError(f'no {self.what} "{name}" is built in or installed; {hint}')
        if len(points) > 1:
            owners = one_of(map(package_of, points)).replace(" or ", " and ")
            raise PluginError(
                f'the {self.what} "{name}" is in several installed packages, {owners}; expected it in one: '
                "uninstall the others"
            )
        return points[0]


@frozen
class Named:
    """Marks a field of the typed settings whose text is a name in a registry."""

    registry: Registry
    prefix: str = ""  # before the name
    plain: tuple[str, ...] = ()  # texts that are allowed beside names
    starts: tuple[str, ...] = ()  # of texts that are allowed beside names, however they go on

    def __contains__(self, text: str) -> bool:
        return self._is_plain(text) or self.name(text) in self.registry

    def name(self, text: str) -> str | None:
        """Give the name in a text that is not plain."""
        is_name = not self._is_plain(text) and text.startswith(self.prefix)
        return text[len(self.prefix) :] if is_name else None

    def _is_plain(self, text: str) -> bool:
        is_open = any(text.startswith(start) and text != start for start in self.starts)
        return text in self.plain or (is_open and re.fullmatch(r"\w+", text, re.ASCII) is not None)

    @property
    def built_in(self) -> tuple[str, ...]:
        """The texts that need no plug-in."""
        return (*self.plain, *(self.prefix + name for name in self.registry.built_in))

    @property
    def pattern(self) -> str:
        """What a text with the name of a plug-in looks like."""
        return f"^{re.escape(self.prefix)}{PATTERN}$"

    def nearest(self, text: str) -> str:
        """Give the text that may be meant, or "": by the names alone where it has their prefix."""
        texts = (*self.plain, *(self.prefix + name for name in self.registry))
        names = {known.removeprefix(self.prefix): known for known in texts if known.startswith(self.prefix)}
        near = nearest(text.removeprefix(self.prefix), names) if text.startswith(self.prefix) else ""
        return names[near] if near else nearest(text, texts)


def _imported(point: EntryPoint) -> object:
    try:
        return point.load()
    except Exception as error:  # whatever a foreign module raises
        raise PluginError(
            f"{described(point)} cannot be imported: {type(error).__name__}: {error}; repair or uninstall it"
        ) from error


PSEUDO_EXPLANATIONS = Registry("pseudo_explanations", "pseudo-explanation", "engine.text.pseudo_explanations")
DATA_SETS = Registry("data_sets", "data set", "engine.data.graded_dialogues")
PUBLIC_SETS = Registry("public_sets", "public data set", "engine.data.public_sets")
STATISTICS = Registry("statistics", "statistic of a layer", "engine.stages.statistics")
METRICS = Registry("metrics", "metric", "engine.stages.metrics")
EXECUTORS = Registry("executors", "executor", "engine.running.executors.make")
REGISTRIES = (PSEUDO_EXPLANATIONS, DATA_SETS, PUBLIC_SETS, STATISTICS, METRICS, EXECUTORS)


def plugins() -> list[str]:
    """Name all plug-ins of installed packages, those included that no kind of plug-in has for its group."""
    namesakes = [point for registry in REGISTRIES for point in registry.namesakes()]
    groups = [*(registry.group for registry in REGISTRIES), "panels"]
    named = [
        f"{point.name} ({group}) of {package_of(point)}" + ": REFUSED, a built-in name" * (point in namesakes)
        for group in groups
        for point in sorted(entry_points(group=PREFIX + group), key=lambda point: point.name)
    ]
    for group in sorted(name for name in entry_points().groups if name.startswith(PREFIX)):
        if (kind := group.removeprefix(PREFIX)) not in groups:
            named += [
                f"{point.name} of {package_of(point)}: IGNORED, for {group} is no group of entry points; "
                f"expected {one_of(groups)}{alike(kind, groups)}"
                for point in entry_points(group=group)
            ]
    return named
