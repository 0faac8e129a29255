"""Panels of the report that installed packages add, by entry points of the group `ablation_engine.panels`."""

import math
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points
from numbers import Integral, Real

import xarray as xr
from attrs import frozen

from specs.common.plugin_names import PREFIX, package_of
from store.backend.location import Root
from store.backend.records import Json
from store.errors import FAULTS
from store.report.stages import Places

GROUP = PREFIX + "panels"


@frozen
class ReportSource:
    """One experiment, as sections of the report are made from it."""

    root: Root
    name: str
    node: xr.DataTree  # as `open_store` gives it
    spec: Json  # every default filled in
    places: Places  # condition → its place in the report
    budget: int = 0  # bytes that samples may take


@frozen
class PanelTable:
    """What a panel shows: a text and a table, either of which may be empty."""

    text: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str | int | float | None]] = ()


@frozen
class Panel:
    """One section of the report, behind the engine's own.

    Where `make` raises StoreError, its message says what the store lacks.
    """

    title: str
    make: Callable[[ReportSource], PanelTable]


def panels(source: ReportSource) -> list[Json]:
    """Return the panels of all plug-ins in the order of their names; what fails says so in its place."""
    return [
        _panel(point, source) for point in sorted(entry_points(group=GROUP), key=lambda point: point.name)
    ]


def _panel(point: EntryPoint, source: ReportSource) -> Json:
    owner = package_of(point)
    said = {"name": point.name, "title": point.name, "from": owner}
    try:
        panel = point.load()
        if not isinstance(panel, Panel):
            raise TypeError(f"expected a Panel (store.report.panels), found a {type(panel).__name__}")
        said["title"] = panel.title
        made = panel.make(source)
        if not isinstance(made, PanelTable) or any(len(row) != len(made.columns) for row in made.rows):
            raise TypeError("expected a PanelTable whose rows are as long as its columns")
    except FAULTS:
        raise
    except Exception as error:  # whatever a foreign module raises, the rest of the report stands
        return said | {"missing": f'{error} (plug-in "{point.name}" of {owner}: {point.value})'}
    rows = [[_plain(value) for value in row] for row in made.rows]
    return said | {"text": made.text, "columns": list(made.columns), "rows": rows}


def _plain(value: object) -> str | int | float | None:
    """Return a number that JSON has, or text."""
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    return None if value is None else str(value)
