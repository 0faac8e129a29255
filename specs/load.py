"""TOML files to a `Spec`: read, follow `extends`, lay over them what `--set` says, check, build."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
from attrs import field, frozen

from specs.axes import read_axes
from specs.checks.settings import settings_problems
from specs.common.spelling import nearest
from specs.errors import Problem, SpecError
from specs.rules import read_rules
from specs.tables.experiment import Experiment
from specs.toml import keys, overlay
from specs.toml.convert import structure
from specs.toml.describe import found
from specs.toml.known_keys import is_key, key_like
from specs.toml.locate import Places, doubled, locate, positions
from specs.toml.overrides import read_overrides
from specs.toml.parse import TooLargeError, parse, words
from specs.toml.paths import from_here
from specs.toml.text import absolute, is_there, read_text
from specs.toml.unset import nothing_to_take_back, pruned, taken_back, without


@frozen(slots=False)
class SpecFile:
    """One file of a spec, as written."""

    file: Path
    text: str = field(repr=False)
    raw: dict[str, Any] = field(repr=False)
    folder: Path
    """To which the paths in it are relative: its own; of standard input and pipes the current one."""

    @cached_property
    def places(self) -> Places:
        """Where every key of the file stands."""
        return positions(self.text)

    def problem(self, key: str, message: str, hint: str = "") -> Problem:
        """A problem of this file, with its place."""
        line, column = locate(self.places, keys.split(key)) or (None, None)
        return Problem(self.file, key, message, hint, line, column)


@frozen
class Spec:
    """A checked spec: its keys as plain data, its typed form, and what wrote them."""

    path: Path
    raw: dict[str, Any] = field(repr=False)
    experiment: Experiment
    sources: tuple[SpecFile, ...] = field(repr=False)
    arguments: Mapping[keys.Path, str] = field(repr=False)

    def place(self, problem: Problem) -> Problem:
        """Return a problem with the file, line and column, or the `--set`, that it comes from.

        Args:
            problem: one that names its key alone.
        """
        return _place(problem, self.sources, self.arguments)

    def folder(self, key: keys.Path) -> Path:
        """Return the folder to which a path in the spec is relative: that of the file in which it stands.

        Args:
            key: where the path stands; what `--set` sets stands in the spec itself.
        """
        overridden = any(key[: len(other)] == other[: len(key)] for other in self.arguments)
        holders = (source for source in self.sources if keys.exists(source.raw, key) and not overridden)
        holder = next(holders, self.sources[0] if self.sources else None)
        return self.path.parent if holder is None else holder.folder

    @property
    def store(self) -> str:
        """Folder or URL of the store; a folder as it is spelled from the current one, if it lies there."""
        written = self.experiment.store
        if written is not None and "://" in written:
            return written
        folder = self.folder(("store",))
        return str(from_here(folder, written or f"stores/{self.experiment.name}"))

    def anchored(self) -> Spec:
        """The same spec for a process that runs in another folder."""
        sources = tuple(attrs.evolve(source, folder=absolute(source.folder)) for source in self.sources)
        return attrs.evolve(self, path=absolute(self.path), sources=sources)


def load_spec(path: str | Path, overrides: Sequence[str] = ()) -> Spec:
    """The spec in `path` with overrides, `KEY=VALUE` or `--unset KEY`; SpecError names all that is wrong."""
    changes, arguments, problems = read_overrides(overrides)
    try:
        sources = _read_chain(Path(path))
    except SpecError as error:  # without the whole text, any further problem would be a guess
        raise SpecError([*problems, *error.problems]) from None
    raw: dict[str, Any] = {}
    for source in reversed(sources):
        child = source.raw
        for path_of in nothing_to_take_back(raw, child):
            message = "there is nothing to unset: no file that this one extends sets this key"
            hint = "" if is_key(path_of) else key_like(path_of, raw)
            problems.append(source.problem(keys.join(path_of), message, hint))
            child = pruned(child, path_of)
        raw = _extend(raw, child)
    for path_of in nothing_to_take_back(raw, changes):
        known = is_key(path_of)
        message = "the spec does not set this key" + (", whose default holds" if known else "")
        hint = key_like(path_of, raw)
        problems.append(Problem(None, "", f"{arguments[path_of]}: {message}", "" if known else hint))
        changes = pruned(changes, path_of)
    raw = _laid_over(raw, changes)
    experiment, structural = structure(overlay.expand(raw), Experiment)
    if experiment is not None and not problems:
        return Spec(Path(path), raw, experiment, tuple(sources), arguments)
    axes, of_factors = read_axes(raw)
    _, of_rules = read_rules(raw, axes)
    of_settings = settings_problems(overlay.expand(raw))
    semantic = [*overlay.written(raw, structural), *of_factors, *of_rules, *of_settings]
    raise SpecError([*problems, *(_place(problem, sources, arguments) for problem in semantic)])


def read_table(file: Path, cls: type) -> dict[str, Any]:
    """The keys of a file that holds one table alone; SpecError names all that is wrong with it."""
    source = _read(file)
    _, problems = structure(source.raw, cls)
    if problems:
        raise SpecError([source.problem(problem.key, problem.message, problem.hint) for problem in problems])
    return source.raw


def _read_chain(
    path: Path, children: tuple[Path, ...] = (), known: dict[Path, list[SpecFile]] | None = None
) -> list[SpecFile]:
    """The file and all that it extends, nearest first: of several parents the last, with what it extends.

    `known` holds the chains that were read before: the ways to a file can be many more than the files.
    """
    known = {} if known is None else known
    if absolute(path) in known:
        return known[absolute(path)]
    child = _read(path)
    chain = (*children, absolute(path))
    sources = [child]
    for key, parent in reversed(_parents(child)):
        file = child.file.parent / parent
        if absolute(file) in chain:
            cycle = " → ".join(part.name for part in (*chain[chain.index(absolute(file)) :], file))
            raise SpecError([child.problem(key, f"a cycle: {cycle}")])
        if not is_there(file):
            raise SpecError([child.problem(key, f"no such file: {file}", _nearest_file(Path(parent), file))])
        sources += _read_chain(file, chain, known)
    # What two parents both extend lies below both.
    last = {absolute(source.file): source for source in reversed(sources)}
    known[absolute(path)] = list(reversed(last.values()))
    return known[absolute(path)]


def _parents(child: SpecFile) -> list[tuple[str, str]]:
    """Each file that a file extends, with the key that names it."""
    written = child.raw.get("extends", [])
    if isinstance(written, str):
        return [("extends", written)]
    if not isinstance(written, list):
        raise SpecError([child.problem("extends", f"expected a string or a list, found {found(written)}")])
    parents = [(f"extends[{place}]", parent) for place, parent in enumerate(written)]
    for key, parent in parents:
        if not isinstance(parent, str):
            raise SpecError([child.problem(key, f"expected a string, found {found(parent)}")])
    return parents


def _read(file: Path) -> SpecFile:
    text = read_text(file, "" if is_there(file) else _nearest_file(file, file))
    try:
        return SpecFile(file, text, parse(text), file.parent if file.is_file() else Path())
    except tomllib.TOMLDecodeError as error:
        problems = _syntax_problems(file, text, error)
    except TooLargeError as error:
        problems = [Problem(file, "", str(error), line=error.line)]
    raise SpecError(problems)


def _syntax_problems(file: Path, text: str, error: tomllib.TOMLDecodeError) -> list[Problem]:
    place = re.search(r"\(at line (\d+), column (\d+)\)$", str(error))
    line, column = (int(place[1]), int(place[2])) if place else (text.count("\n") + 1, None)
    first = Problem(file, "", f"not TOML: {words(error)}", line=line, column=column)
    if not re.match("Cannot (overwrite|declare|mutate)|Duplicate", str(error)):
        return [first]
    twice = doubled(text)
    told = [
        Problem(
            file,
            "",
            f"not TOML: {_stands_often(path, lines)}",
            line=lines[-1],
            column=column if lines[-1] == line else None,
        )
        for path, lines in twice.items()
    ]
    return told if any(line in lines for lines in twice.values()) else [first, *told]


def _stands_often(path: keys.Path, lines: Sequence[int]) -> str:
    *others, last = lines
    places = f"{', '.join(map(str, others))} and {last}"
    return f"`{keys.join(path)}` stands in lines {places}; expected each key and table once"


def _nearest_file(spelled: Path, file: Path) -> str:
    """The TOML file in the same folder that may be meant, spelled the same way."""
    name = nearest(file.name, [other.name for other in file.parent.glob("*.toml") if other.is_file()])
    return str(spelled.with_name(name)) if name else ""


def _laid_over(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Keys over others, without those that are taken back."""
    for path in list(taken_back(changes)):
        base, changes = without(base, path), without(changes, path)
    merged: dict[str, Any] = keys.merge(base, changes)
    return merged


def _extend(parent: dict[str, Any], child: Mapping[str, Any]) -> dict[str, Any]:
    """The child's keys over the parent's; a factor is replaced whole, for half of its levels is no axis.

    A factor that the child sets to false is none.
    """
    merged = _laid_over(parent, {key: child[key] for key in child if key != "extends"})
    for path in list(taken_back(child)):
        parent, child = without(parent, path), without(child, path)
    if isinstance(merged.get("factors"), Mapping):
        inherited = keys.dig(parent, ("factors",), dict)
        factors = {**inherited, **keys.dig(child, ("factors",), dict)}
        merged["factors"] = {
            name: table for name, table in factors.items() if table is not False or name not in inherited
        }
    return merged


def _place(problem: Problem, sources: Sequence[SpecFile], arguments: Mapping[keys.Path, str]) -> Problem:
    path = keys.split(problem.key) if problem.key else ()
    for key, argument in arguments.items():
        if path[: len(key)] == key:
            return _from_argument(problem, argument)
    for length in range(len(path), -1, -1):  # what is missing belongs to the table that should have held it
        for source in sources:
            if keys.exists(source.raw, path[:length]):
                line, column = locate(source.places, path[:length]) or (None, None)
                return attrs.evolve(problem, file=source.file, line=line, column=column)
        for key, argument in arguments.items():
            if path[:length] == key[:length]:
                return _from_argument(problem, argument)
    return problem


def _from_argument(problem: Problem, argument: str) -> Problem:
    return attrs.evolve(problem, message=f"{problem.message} (from {argument})")
