"""Migration of a store of an older layout to the present one, in place and with equal values.

Layout 2 added a checksum behind every chunk, and in done records the row, the number of chunk files, and
size and hash of every other file; layout 3 adds a checksum to every record, and a record of every family.
Groups of layout 1 are written anew beside the old ones and then take their places; a kill at any moment
leaves a store from which the next migration goes on.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from store.arrays.families import described_by_group, family_name, with_keys, zarr_text
from store.arrays.layout import create_array, group_name, open_array, row_content, row_files
from store.backend.folder import Folder
from store.backend.locate import place_of
from store.backend.location import Place, Root
from store.backend.records import read_file, read_json, sealed, write_json
from store.backend.result_files import result_files
from store.errors import StoreError
from store.lease.claims import live_claims
from store.lease.lock import locked
from store.ledger.ledger import Ledger, progress_name
from store.ledger.row_keys import GROUP, group_keys
from store.ledger.version import LAYOUT, STORE, layout_version

NEW, OLD = ".migrated", ".layout-1"  # suffixes of a group's folder before, and behind, its successor


def migrate(root: Root) -> Iterator[str]:
    """Bring a store to the present layout; yield what has been done, step by step.

    StoreError where there is no store, a process is at work in it, or a chunk of it cannot be read.
    """
    place = place_of(root)
    version = layout_version(place)
    if version is None:
        raise StoreError(f"{place}: no such store")
    if at_work := live_claims(place):
        raise StoreError(f"{place}: in use: {at_work[0]}; a store is migrated while nobody writes to it")
    with locked(place):
        ledger = Ledger(place)
        if isinstance(place, Folder):  # stores of layout 1 were folders all
            yield from _renew_groups(place)
        for stage in ledger.stages():
            for mark in (name for name in place.names(f"ledger/{stage}") if name.endswith(".running.json")):
                place.remove(f"ledger/{stage}/{mark}")  # claims have taken their place
            renewed = [key for key in sorted(ledger.done(stage)) if _renew_record(place, ledger, stage, key)]
            if renewed:
                yield f"ledger/{stage}: {len(renewed)} records completed"
        if version < LAYOUT:
            described = sum(_describe(place, folder) for folder in _groups(place))
            if described:
                yield f"families: {described} groups described"
            if sealed_now := sum(_seal(place, name) for name in _records(place)):
                yield f"{sealed_now} records: checksums added"
            write_json(place, STORE, {"layout": LAYOUT})
            yield f"store.json: layout {version} → {LAYOUT}"


def _renew_groups(place: Folder) -> Iterator[str]:
    for folder in sorted({_home(path) for path in place.root.glob("results.zarr/*/*") if path.is_dir()}):
        if _renew_group(place, folder):
            yield f"{folder.relative_to(place.root)}: checksums added"


def _groups(place: Place) -> list[str]:
    folders = (f"results.zarr/{stage}" for stage in sorted(place.names("results.zarr")))
    groups = (f"{folder}/{family}" for folder in folders for family in sorted(place.names(folder)))
    return [group for group in groups if "." not in group.rpartition("/")[2]]


def _describe(place: Place, folder: str) -> bool:
    """Give a family its record, and then its group the present version; False where it has that."""
    _, stage, family = folder.split("/")
    if not place.exists(f"{folder}/{GROUP}"):
        return False
    content = described_by_group(place, folder)
    attributes = content["metadata"][GROUP]["attributes"]
    if attributes.get("layout") == LAYOUT or "keys" not in attributes:
        return False
    attributes["layout"] = LAYOUT
    write_json(place, family_name(stage, family), content)
    metadata = with_keys(content["metadata"][GROUP], group_keys(place, folder))
    place.write(f"{folder}/{GROUP}", zarr_text(metadata))
    return True


def _records(place: Place) -> Iterator[str]:
    """Yield the records of a store."""
    ledger = (f"ledger/{stage}" for stage in Ledger(place).stages())
    for folder in ("experiments", "progress", "vocabulary", *ledger):
        for name in sorted(place.names(folder)):
            if name.endswith(".json") and not name.startswith("."):
                yield f"{folder}/{name}"


def _seal(place: Place, name: str) -> bool:
    """Give a record its checksum; False where it has one."""
    content = read_json(place, name, checked=False)
    if read_file(place, name) == (text := sealed(content, name)):
        return False
    place.write(name, text)
    return True


def _home(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(NEW).removesuffix(OLD))


def _renew_group(place: Folder, folder: Path) -> bool:
    """Write a group anew with checksums, or finish that; False where it has them, or is no group."""
    new, old = folder.with_name(folder.name + NEW), folder.with_name(folder.name + OLD)
    if not folder.exists():  # killed between the two renames below
        new.rename(folder)
    if not (folder / "zarr.json").is_file():
        return False
    group = zarr.open_group(folder, mode="r", use_consolidated=False)
    done = "layout" in group.attrs
    if not done and "keys" in group.attrs:
        shutil.rmtree(new, ignore_errors=True)
        _copy_group(place, group, folder, new)
        folder.rename(old)
        new.rename(folder)
    if old.exists():
        shutil.rmtree(old)
    return not done


def _copy_group(place: Folder, group: zarr.Group, folder: Path, new: Path) -> None:
    attributes: dict[str, Any] = dict(group.attrs)
    done, keys = Ledger(place).done(folder.parent.name), dict(enumerate(map(str, attributes["keys"])))
    unfinished = {row: place.root / progress_name(key) for row, key in keys.items() if key not in done}
    copy = zarr.open_group(new, mode="w", zarr_format=3)
    for name, array in group.arrays():
        if "variables" in array.attrs:
            _copy_array(place, array, folder / name, copy, unfinished)
        else:
            shutil.copytree(folder / name, new / name)
    copy.attrs.update({**attributes, "layout": 2})


def _copy_array(
    place: Folder, array: zarr.Array[Any], folder: Path, copy: zarr.Group, unfinished: Mapping[int, Path]
) -> None:
    """Copy all rows but unfinished ones that cannot be read, of which the note of progress goes as well."""
    text = array.dtype.kind not in "bif"
    new = create_array(
        copy,
        array.name.rpartition("/")[2],
        shape=array.shape,
        chunks=array.chunks,
        shards=array.shards,
        dtype="string" if text else array.dtype,
        fill_value=array.fill_value,
        dimension_names=array.metadata.dimension_names,  # type: ignore[union-attr]
        attributes=dict(array.attrs),
    )
    name = folder.relative_to(place.root).as_posix()
    for row in (row for row in range(array.shape[0]) if row_files(place, name, array, row)):
        try:
            for start in range(0, array.shape[2], array.chunks[2]):
                block = (row, slice(None), slice(start, start + array.chunks[2]))
                new[block] = values = np.asarray(array[block])
                np.testing.assert_array_equal(np.asarray(new[block]), values)
        except Exception as error:  # whatever a codec makes of damaged bytes
            if row not in unfinished:
                message = f"{folder}: row {row} cannot be read ({error}); `engine verify STORE --fix` first"
                raise StoreError(message) from error
            unfinished[row].unlink(missing_ok=True)


def _renew_record(place: Place, ledger: Ledger, stage: str, key: str) -> bool:
    """Complete a done record; False where it is complete."""
    record = ledger.record(stage, key)
    added: dict[str, Any] = {}
    if "family" in record and "chunks" not in record:
        folder = group_name(stage, record["family"])
        group = place.group(folder)
        names: Any = group.attrs["keys"]
        row = record.get("row", names.index(key) if key in names else None)
        if row is None:
            raise StoreError(f"{place}/{folder}: no row of {stage} {key}; `engine verify STORE --fix` first")
        stacked = [name for name, array in group.arrays() if "variables" in array.attrs]
        files = [
            file
            for name in stacked
            for file in row_files(place, f"{folder}/{name}", open_array(group, name), row)
        ]
        added |= {"row": row, "chunks": len(files), "content": row_content(place, files)}
    if "files" not in record and (files_found := result_files(place, stage, key)):
        added["files"] = files_found
    if added:
        write_json(place, f"ledger/{stage}/{key}.done.json", record | added)
    return bool(added)
