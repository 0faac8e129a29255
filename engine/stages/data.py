"""The data stage: the examples of a cell, prepared once for all cells that have the same."""

from __future__ import annotations

from engine.data import prepare
from engine.data.sources import sources
from engine.errors import DataError
from engine.planning.plan import PlannedCell
from engine.planning.stage_keys import data_key
from engine.stages.context import Context
from specs.toml.paths import no_such


def run(context: Context, cell: PlannedCell, *, test: bool) -> None:
    """Run the data stage of a cell's training or test data."""
    key = cell.keys["test_data" if test else "data"]
    with context.committing("data", key) as record:
        data, labels = context.data(cell, test=test), context.settings("evaluate", cell).labels
        missing = [source for source in sources(data) if source.missing]
        if missing:
            table = "data" if key == cell.keys["data"] else "evaluate.data"
            told = no_such(str(missing[0]), more=", and examples are to be made of it; finished results stay")
            raise DataError(f"{table}.source: {told}")
        if data_key(data, labels, context.plan.remembered) != key:
            raise DataError(f"data.source: {data.source} has changed since the plan was made; run it again")
        home = context.home("data", key)
        record |= context.ranks.lead(lambda: prepare.prepare(data, labels, home))
