"""What stage keys are made of: settings without what changes no result, and parts that cells share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
from attrs import frozen

from engine.planning.identities import digest
from specs import Matrix
from specs.tables.by_name import Table
from specs.tables.experiment import TABLE_STAGES, Train
from specs.tables.interventions import Intervention
from specs.tables.probe import Probe
from specs.tables.target import Target
from specs.toml.describe import named
from specs.toml.known_keys import field_types

Cell = tuple[int, ...]


def fields_read(table: str, cls: type, stage: str) -> list[attrs.Attribute[Any]]:
    """Give the fields of a table's class that can change a stage's result."""
    fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(cls)
    return [field for field in fields if stage in field.metadata.get("stages", TABLE_STAGES[table])]


@frozen
class Part:
    """A piece of a key: the tables whose levels decide it, and its text for a cell."""

    tables: tuple[str, ...]
    compute: Callable[[Cell], str]


def table_part(matrix: Matrix, table: str, stage: str) -> Part:
    """Give the part of what a stage reads of a table."""
    return Part((table,), lambda cell: digest(settings_read(matrix.table(table, cell), table, stage)))


def joined(matrix: Matrix, *parts: Part) -> Callable[[Cell], str]:
    """Give the joined text of some parts, in their order, for any cell.

    Parts that no axis touches are computed once in all, but stand where they would stand if one did: a key
    must not hang on what else the spec varies. Texts are digests of one length, or end with a semicolon, so
    joining them loses nothing.
    """
    first = matrix.cells[0]
    fixed = ""  # parts that no axis touches, since the last that one does
    varying: list[tuple[Callable[[Cell], Cell], dict[Cell, str], Callable[[Cell], str], str]] = []
    for part in parts:
        choose = matrix.chooser(*part.tables)
        if choose(first):
            varying.append((choose, {}, part.compute, fixed))
            fixed = ""
        else:
            fixed += part.compute(first)

    def join(cell: Cell) -> str:
        text = ""
        for choose, known, compute, before in varying:
            choice = choose(cell)
            piece = known.get(choice)
            if piece is None:
                piece = known[choice] = before + compute(cell)
            text += piece
        return text + fixed

    return join if varying else lambda cell: fixed


def settings_read(settings: Table, table: str, stage: str) -> dict[str, Any]:
    """Give what a stage reads of a table, in one spelling, without what is newer than keys and unset."""
    if isinstance(settings, Probe | Target | Train):  # two spellings of one thing have one key
        settings = settings.in_one_spelling()
    values = ((field, getattr(settings, field.name)) for field in fields_read(table, type(settings), stage))
    read = {field.name: _plain(value) for field, value in values if _counts(field, value)}
    if plugins := sorted(_plugins(settings, list(read))):
        read["plug-ins"] = plugins
    return read


def done_by(settings: Intervention) -> dict[str, Any]:
    """Give what an intervention does, without the cells that it changes and those that it takes from."""
    done: dict[str, Any] = _plain(settings)
    return {name: value for name, value in done.items() if name not in ("cells", "donor")}


def _plain(value: Any) -> Any:
    """Give a value without classes; of a list, each of its items."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return attrs.asdict(value, filter=_counts) if attrs.has(type(value)) else value


def _counts(field: attrs.Attribute[Any], value: Any) -> bool:
    """Tell whether a value is part of keys: one of a newer key is not, where it is the default."""
    return not (field.metadata.get("later") and value == _default(field))


def _default(field: attrs.Attribute[Any]) -> Any:
    default: Any = field.default
    return default.factory() if isinstance(default, attrs.Factory) else default  # type: ignore[arg-type]


def _plugins(settings: Table, names: Sequence[str]) -> Iterator[str]:
    """Identify the plug-ins that some fields of a table name."""
    cls: type = type(settings)
    types = field_types(cls)
    for field in names:
        if (known := named(types[field])) is None:
            continue
        value = getattr(settings, field)
        for text in value if isinstance(value, list) else [value]:
            name = known.name(text)
            if name is not None and (plugin := known.registry.identity(name)):
                yield plugin
