"""Levels as a person writes them, "target=label, seed=0": one rule for all options and arguments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from engine.errors import UsageError
from specs.common.spelling import alike
from store.ledger.levels import level_text

Levels = Mapping[str, Any]
"""Factor → a level, or a list of levels."""

Wanted = Levels | str | Sequence[str]
"""Levels, or texts as the command line takes them: "target=label,seed=0"."""


def describe(levels: Mapping[str, object]) -> str:
    """Give a cell's levels on one line, as in a spec: target=label, chat=true, seed=0."""
    return ", ".join(f"{name}={level_text(level)}" for name, level in levels.items())


def is_level(level: Any, text: Any) -> bool:
    """Tell whether a text names a level: as TOML writes it (true), or as Python does (True)."""
    return str(text) in (level_text(level), str(level))


def known_levels(cells: Iterable[Levels]) -> dict[str, list[Any]]:
    """Give the levels that cells have, by factor, each once."""
    known: dict[str, dict[tuple[type, str], Any]] = {}
    for cell in cells:
        for factor, level in cell.items():
            known.setdefault(factor, {}).setdefault(_identity(level), level)
    return {factor: list(levels.values()) for factor, levels in known.items()}


def named_levels(wanted: Wanted, known: Mapping[str, Sequence[Any]], option: str) -> dict[str, list[Any]]:
    """Give the levels that are named, by factor.

    In a text, a comma behind which FACTOR= follows begins another factor, and any other a further level of
    the same one. A level whose own name has commas is meant where the text has all of it.

    Args:
        wanted: factor → a level or a list of levels; or a text, or texts.
        known: factor → the levels that there are.
        option: the option or argument, as errors name it.

    Raises:
        UsageError: for a factor or a level that there is not.
        TypeError: for what is neither.
    """
    named: dict[str, list[Any]] = {}
    if isinstance(wanted, Mapping):
        for factor, asked in wanted.items():
            levels = asked if isinstance(asked, (list, tuple)) else [asked]
            _of_factor(factor, level_text(levels[0]) if levels else "", known, option)
            named[factor] = [level for one in levels for level in _meant(factor, one, known, option)]
        return named
    texts = [wanted] if isinstance(wanted, str) else wanted
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"{option}: expected factor → level, as {{'target': 'label'}}, found {wanted!r:.80}")
    for text in texts:
        for factor, level in _pairs(text, known, option):
            named.setdefault(factor, []).append(level)
    return named


def has_levels(cell: Levels, named: Mapping[str, Sequence[Any]]) -> bool:
    """Tell whether a cell is on one of the named levels of every factor."""
    return all(
        factor in cell and _identity(cell[factor]) in map(_identity, levels)
        for factor, levels in named.items()
    )


def _pairs(text: str, known: Mapping[str, Sequence[Any]], option: str) -> Iterator[tuple[str, Any]]:
    """Yield factor and level of a text, from left to right."""
    parts, factor = text.split(","), ""
    while parts:
        name, equals, rest = parts[0].partition("=")
        begins = bool(equals) and (not factor or name.strip() in known)
        if begins:
            factor, parts[0] = name.strip(), rest
            _of_factor(factor, rest, known, option)
        elif not factor:
            raise UsageError(f"{option} {text}: expected FACTOR=LEVEL, as in target=label")
        elif parts == [""]:  # behind a comma at the end
            return
        number, levels = _longest(parts, known[factor])
        if equals and not begins and not levels:
            _of_factor(name.strip(), rest, known, option)
        yield from ((factor, level) for level in levels or _meant(factor, parts[0].strip(), known, option))
        del parts[:number]


def _longest(parts: Sequence[str], known: Sequence[Any]) -> tuple[int, list[Any]]:
    """Give how many of the first parts name a level together, at most, and the level; else 1 and none."""
    for number in range(len(parts), 0, -1):
        text = ",".join(parts[:number])
        if levels := [level for level in known if is_level(level, text) or is_level(level, text.strip())]:
            return number, levels
    return 1, []


def _meant(factor: str, asked: Any, known: Mapping[str, Sequence[Any]], option: str) -> list[Any]:
    """Give the levels of a factor that a level, or its text, names."""
    text = asked if isinstance(asked, str) else level_text(asked)
    levels = [level for level in _of_factor(factor, text, known, option) if is_level(level, text)]
    if not levels:
        texts = list(map(level_text, known[factor]))
        raise UsageError(
            f'{option} {factor}={text}: factor "{factor}" has no level "{text}"; '
            f"expected one of {', '.join(texts)}{alike(text, texts)}"
        )
    return levels


def _of_factor(factor: str, text: str, known: Mapping[str, Sequence[Any]], option: str) -> Sequence[Any]:
    """Give the levels of a factor; UsageError where there is no such factor."""
    if factor not in known:
        raise UsageError(
            f"{option} {factor}={text}: no factor {factor!r}; expected one of {', '.join(known) or 'none'}"
            f"{alike(factor, known)}"
        )
    return known[factor]


def _identity(level: Any) -> tuple[type, str]:
    """Give what tells a level from all others of its factor: 1 is not true, and not "1"."""
    return type(level), level_text(level)
