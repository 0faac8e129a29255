"""The names of a plan's cells that stand for code: built-in entries and plug-ins."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from engine.data.sources import sources
from engine.planning.data_read import test_data
from engine.planning.key_parts import Cell
from specs import Matrix
from specs.registry import DATA_SETS, EXECUTORS, PUBLIC_SETS, Registry
from specs.tables.experiment import TABLE_STAGES
from specs.toml.describe import named
from specs.toml.known_keys import field_types


@frozen
class UsedName:
    """One name, and the key of the spec that has it for a cell."""

    key: str
    cell: Cell
    registry: Registry
    name: str


def used_names(matrix: Matrix) -> Iterator[UsedName]:
    """Yield all names that a matrix uses; one that several settings have comes several times."""
    for table in TABLE_STAGES:
        for cell in matrix.distinct(table):
            settings = matrix.table(table, cell)
            cls: type = type(settings)
            for field, type_ in field_types(cls).items():
                value = getattr(settings, field)
                if (known := named(type_)) is None or value is None:
                    continue
                for name in map(known.name, value if isinstance(value, list) else [value]):
                    if name is not None:
                        yield UsedName(f"{table}.{field}", cell, known.registry, name)
    for cell in matrix.distinct("data", "evaluate"):
        for data in (matrix.table("data", cell), test_data(matrix, cell)):
            for source in sources(data):
                if source.data_set is not None:
                    yield UsedName("data.source", cell, DATA_SETS, source.data_set)
                elif source.public:
                    yield UsedName("data.source", cell, PUBLIC_SETS, source.public)
    yield UsedName("executor.kind", matrix.cells[0], EXECUTORS, matrix.experiment.executor.kind)


def used_plugins(matrix: Matrix) -> list[dict[str, str]]:
    """List the plug-ins that a matrix uses: kind, name, version and package of each."""
    described_plugins = {
        (used.registry.group, used.name): used.registry.description(used.name)
        for used in used_names(matrix)
        if used.name in used.registry and used.registry.plugin(used.name)
    }
    return [described_plugins[key] for key in sorted(described_plugins)]
