"""A family's group as readers meet it: its arrays, and the values of its coordinates.

Both come from the family's record, so that nothing which is damaged in the group changes what a reader sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr
import zarr
from attrs import frozen

from store.arrays.families import FamilyRecord, family_name, read_coordinate, read_family
from store.arrays.layout import group_name
from store.backend.location import Place
from store.errors import MEND, DamagedError, StoreError, UnreachableError
from store.ledger.row_keys import GROUP
from store.ledger.version import LAYOUT


@frozen(eq=False)
class ArrayGroup:
    """One family's arrays of results, by name, and its coordinates."""

    folder: str
    label: str
    stacks: Mapping[str, zarr.Array[Any]]
    coordinates: Mapping[str, xr.Variable]


def open_group(place: Place, stage: str, family: str, rows: int) -> ArrayGroup:
    """Open a family's group, of whose arrays so many rows are to be read.

    DamagedError where what it is made of cannot be read; StoreError for another version of the layout.
    """
    folder, path = group_name(stage, family), f"{place}/{family_name(stage, family)}"
    try:
        record = read_family(place, stage, family)
    except FileNotFoundError as error:
        raise DamagedError(f"{path}: missing; {MEND}") from error
    if (layout := record.attributes.get("layout")) != LAYOUT:
        raise StoreError(f"{path}: found layout {layout}; this version of the program reads layout {LAYOUT}")
    home = place.zarr_path(folder)
    stacks = {name: record.array(home, name, rows) for name in record.stacks}
    coordinates = {name: _recorded(record, name) for name in record.coordinates}
    return ArrayGroup(folder, str(record.attributes["label"]), stacks, coordinates)


def any_group(place: Place, stage: str, family: str, rows: int) -> ArrayGroup:
    """Open a group by its family's record, or, where that is damaged, by its own metadata."""
    try:
        return open_group(place, stage, family, rows)
    except DamagedError:
        folder = group_name(stage, family)
        return _as_it_is(zarr_group(place, folder), folder, f"{place}/{folder}")


def zarr_group(place: Place, folder: str) -> zarr.Group:
    """Open a group by its own metadata; DamagedError where these cannot be read."""
    try:
        group = place.group(folder)
        group.attrs["keys"]
    except UnreachableError:
        raise
    except FileNotFoundError as error:
        raise DamagedError(f"{place}/{folder}: missing, though the ledger names it; {MEND}") from error
    except Exception as error:  # torn or changed metadata, in zarr's many words
        raise DamagedError(f"{place}/{folder}: its metadata cannot be read ({error!r}); {MEND}") from error
    return group


def _recorded(record: FamilyRecord, name: str) -> xr.Variable:
    metadata = record.metadata[f"{name}/{GROUP}"]
    return xr.Variable(metadata["dimension_names"], record.values(name), attrs=metadata["attributes"])


def _as_it_is(group: zarr.Group, folder: str, path: str) -> ArrayGroup:
    stacks, coordinates = dict[str, zarr.Array[Any]](), {}
    try:
        for name, array in group.arrays():
            if "variables" in array.attrs:
                stacks[name] = array
            else:
                dims = array.metadata.dimension_names  # type: ignore[union-attr]
                coordinates[name] = xr.Variable(dims, read_coordinate(array, path), attrs=dict(array.attrs))
        label = str(group.attrs["label"])
    except (StoreError, UnreachableError):
        raise
    except Exception as error:  # an array's metadata
        raise DamagedError(f"{path}: its metadata cannot be read ({error!r}); {MEND}") from error
    return ArrayGroup(folder, label, stacks, coordinates)
