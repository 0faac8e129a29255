"""Zarr's metadata and the coordinates of a store's groups, compared with their families' records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from store.arrays.families import FamilyRecord, family_name, read_family, with_keys, with_rows
from store.arrays.groups import zarr_group
from store.arrays.layout import group_name
from store.backend.location import Place
from store.backend.records import Json, parse_json, read_file
from store.errors import DamagedError, UnreachableError
from store.ledger.row_keys import GROUP, group_keys
from store.upkeep.own_names import stages_of
from store.upkeep.problems import Trouble, reason

TOP = "results.zarr"
MISSING = "missing"
REMEDY = "`engine verify STORE --fix` makes it again, and nothing else needs to be done again"


def top_troubles(place: Place) -> Iterator[Trouble]:
    """Yield what is wrong with the metadata of the groups above all families."""
    for name in top_names(place):
        try:
            metadata = parse_json(read_file(place, name), f"{place}/{name}")
            if {file: value for file, value in metadata.items() if value is not None} == top_metadata():
                continue
            message = "not the metadata of a group"
        except FileNotFoundError:
            message = MISSING
        except DamagedError as error:
            message = reason(error, f"{place}/{name}")
        yield Trouble("", "", f"{place}/{name}", message, REMEDY, "rebuild", (name,))


def top_names(place: Place) -> list[str]:
    """Return the metadata files of the groups above all families."""
    if not place.names(TOP):
        return []
    return [f"{TOP}/{GROUP}", *(f"{TOP}/{stage}/{GROUP}" for stage in stages_of(place, TOP))]


def top_metadata() -> Json:
    """Return the metadata of a group without attributes."""
    return {"attributes": {}, "zarr_format": 3, "node_type": "group"}


def group_troubles(
    place: Place, stage: str, family: str, done: Mapping[int, str], *, running: bool, begun: bool
) -> Iterator[Trouble]:
    """Yield what is wrong with a family's record, and with its group; `done`: finished rows and keys.

    begun: whether somebody has begun a row, and may have been stopped before it got its name.
    """
    name, folder = family_name(stage, family), group_name(stage, family)

    def trouble(path: str, message: str) -> Trouble:
        return Trouble(stage, family, f"{place}/{path}", message, REMEDY, "rebuild", (path,))

    try:
        record = read_family(place, stage, family)
    except (FileNotFoundError, DamagedError) as error:
        lost = isinstance(error, FileNotFoundError)
        if not done and (damaged := _useless(place, folder, name, torn=not lost)):
            remedy = "`engine verify STORE --fix` removes it: no finished stage needs it"
            message = "nothing can be read of it" if lost else reason(error, f"{place}/{name}")
            yield Trouble(stage, family, f"{place}/{damaged}", message, remedy, "remove", (damaged,))
            return
        try:
            if lost:
                zarr_group(place, folder)
        except DamagedError as torn:  # neither of them, so the one cannot be made from the other
            if done:
                message = reason(torn, f"{place}/{folder}")
                yield Trouble(stage, family, f"{place}/{folder}", message, mend="regroup", names=(folder,))
            return
        yield trouble(name, MISSING if lost else reason(error, f"{place}/{name}"))
        return
    # Without it a group has never been whole: its next writer makes what is missing.
    whole = bool(done) or GROUP in place.names(folder)
    for file in record.metadata:
        message = metadata_trouble(place, folder, record, file)
        if message and (whole or message != MISSING):
            yield trouble(f"{folder}/{file}", message)
    for coordinate in record.coordinates:
        message = coordinate_trouble(place, folder, record, coordinate)
        if message and (whole or message != MISSING):
            (chunk,) = record.chunks(coordinate)
            yield trouble(f"{folder}/{chunk}", message)
    begun = begun or not done
    if not running and (message := _rows_trouble(place, folder, record, done, begun=begun)):
        yield trouble(f"{folder}/{GROUP}", message)


def _useless(place: Place, folder: str, record: str, *, torn: bool) -> str:
    """Return what nothing can be made of, of a family without finished rows, "" where there is none.

    That is a torn record without a group, or a group without a record whose own metadata cannot be read.
    """
    if not place.names(folder):
        return record if torn else ""
    try:
        zarr_group(place, folder)
    except DamagedError:
        return "" if torn else folder
    return ""


def metadata_trouble(place: Place, folder: str, record: FamilyRecord, file: str) -> str:
    """Say what is wrong with a metadata file but its rows, "" where nothing is."""
    path = f"{place}/{folder}/{file}"
    try:
        metadata = parse_json(read_file(place, f"{folder}/{file}"), path)
    except FileNotFoundError:
        return MISSING
    except DamagedError as error:
        return reason(error, path)
    try:
        plain = _without_rows(metadata, file, record)
    except (KeyError, TypeError, IndexError):
        return "not the metadata of this family"
    return "" if plain == record.metadata[file] else "its content has changed since it was made"


def _without_rows(metadata: Json, file: str, record: FamilyRecord) -> Json:
    """Return metadata as they are with no row."""
    if file == GROUP:
        return with_keys(metadata, [])
    stacked = "variables" in record.metadata[file]["attributes"]
    return with_rows(metadata, 0) if stacked else metadata


def coordinate_trouble(place: Place, folder: str, record: FamilyRecord, name: str) -> str:
    """Say what is wrong with a coordinate's values in the group, "" where nothing is."""
    ((file, expected),) = record.chunks(name).items()
    try:
        if read_file(place, f"{folder}/{file}") == expected:
            return ""
    except FileNotFoundError:
        return MISSING
    except DamagedError as error:
        return reason(error, f"{place}/{folder}/{file}")
    try:  # another release of the compressor makes other bytes of the same values
        array = record.array(place.zarr_path(folder), name, len(record.coordinates[name]))
        if np.array_equal(np.asarray(array[:], record.values(name).dtype), record.values(name)):
            return ""
    except UnreachableError:
        raise
    except Exception as error:  # whatever a codec makes of damaged bytes
        return f"cannot be read: {error}"
    return "its content has changed since it was made"


def _rows_trouble(
    place: Place, folder: str, record: FamilyRecord, done: Mapping[int, str], *, begun: bool
) -> str:
    """Say what is wrong with the names of a group's rows, and with their number in its arrays."""
    try:
        lengths = [_length(place, folder, name) for name in record.stacks]
        keys = group_keys(place, folder)
    except (FileNotFoundError, DamagedError):  # found with the metadata
        return ""
    for row, key in sorted(done.items()):
        if row >= len(keys) or keys[row] != key:
            return f"row {row} is not named {key}, as its record says"
    if any(length < len(keys) or (length > len(keys) and not begun) for length in lengths):
        return f"names {len(keys)} rows, but its arrays have {', '.join(map(str, lengths))}"
    return ""


def _length(place: Place, folder: str, name: str) -> Any:
    path = f"{folder}/{name}/{GROUP}"
    try:
        return parse_json(read_file(place, path), f"{place}/{path}")["shape"][0]
    except (KeyError, TypeError, IndexError) as error:
        raise DamagedError(f"{place}/{path}: no shape") from error
