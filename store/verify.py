"""Verification: does a store hold, whole and unchanged, all that its records say?

Every chunk of every done row is read, so that its checksum is compared; every other file of a stage's results
is hashed. What an unfinished stage has on disk is none of this: no reader sees it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import zarr
from attrs import field, frozen
from safetensors import SafetensorError, safe_open

from store.errors import DamagedError, StoreError, UnreachableError
from store.files import Json, read_json
from store.layout import group_name, open_array, row_files
from store.ledger import Ledger
from store.manifests import manifest_names
from store.places import Place, Root, place_of
from store.results import RESULTS, file_trouble, result_name
from store.version import LAYOUT, layout_version

AGAIN = "`engine verify STORE --fix`, then `engine execute`, makes it again"


@frozen
class Trouble:
    """Something that is not as it should be."""

    stage: str
    key: str
    path: str
    message: str
    remedy: str = AGAIN
    fixable: bool = True
    """Whether marking the stage as to be done again is the remedy."""


@frozen
class Verified:
    """What a verification has read and found."""

    records: int
    troubles: list[Trouble]
    notes: list[str]


def verify(root: Root) -> Verified:
    """Read all of a store; StoreError where it is none, or of a later version of this program."""
    with place_of(root).fresh() as place:
        version = layout_version(place)
        if version is None:
            raise StoreError(f"{place}: not a store: expected a folder 'experiments' in it")
        notes = []
        if version < LAYOUT:
            notes.append(
                f"layout {version}: arrays without checksums, whose damage is seen only where they cannot be "
                "decoded; `engine migrate STORE` adds them"
            )
        ledger, rows = Ledger(place), Rows()
        troubles, records = list(_manifests(place)), 0
        for stage in sorted(place.names("ledger")):
            for key in sorted(ledger.done(stage)):
                records += 1
                troubles += _stage(ledger, stage, key, rows)
        return Verified(records, troubles, [*notes, *_leftovers(ledger, rows.done)])


@frozen
class Rows:
    """The groups of arrays that were opened, and their rows that done records name."""

    groups: dict[str, zarr.Group] = field(factory=dict)
    done: dict[str, set[int]] = field(factory=dict)  # by group


def _stage(ledger: Ledger, stage: str, key: str, rows: Rows) -> Iterator[Trouble]:
    """Yield what is wrong with the results of a done stage."""
    place = ledger.place
    try:
        record = ledger.record(stage, key)
    except UnreachableError:
        raise
    except StoreError as error:
        path = f"{place}/ledger/{stage}/{key}.done.json"
        yield Trouble(stage, key, path, str(error).removeprefix(f"{path}: "))
        return
    yield from _files(place, stage, key, record)
    if "family" in record:
        found = _row(place, stage, key, record, rows.groups)
        if isinstance(found, Trouble):
            yield found
        else:
            rows.done.setdefault(group_name(stage, str(record["family"])), set()).add(found)


def fix(root: Root, troubles: list[Trouble]) -> list[str]:
    """Mark broken stages as to be done again; return what was done. Results that are whole stay as they are.

    A damaged adapter is put aside, for a training would otherwise take it for its own; so are damaged data.
    """
    ledger, said = Ledger(root), []
    for stage, key in dict.fromkeys((t.stage, t.key) for t in troubles if t.fixable):
        if ledger.start(stage, key) is None:
            said.append(f"{stage} {key}: left alone: another process is at work on it")
            continue
        try:
            name = result_name(stage, key)
            if name is not None and _is_damaged(troubles, stage, key, f"{ledger.place}/{name}"):
                ledger.place.put_aside(name)
            ledger.clear(stage, key)
        finally:
            ledger.release(stage, key)
        said.append(f"{stage} {key}: to be done again")
    return said


def _is_damaged(troubles: list[Trouble], stage: str, key: str, path: str) -> bool:
    return any(
        (t.stage, t.key) == (stage, key) and (t.path == path or t.path.startswith(f"{path}/"))
        for t in troubles
    )


def _manifests(place: Place) -> Iterator[Trouble]:
    """Yield the manifests that cannot be read."""
    for name in manifest_names(place):
        file = f"experiments/{name}.json"
        try:
            cells = read_json(place, file)["cells"]
            if any(not isinstance(cell["keys"], dict) or "levels" not in cell for cell in cells):
                raise KeyError("keys")
        except UnreachableError:
            raise
        except (StoreError, KeyError, TypeError) as error:
            remedy = "`engine execute` of its spec writes it again"
            yield Trouble("", name, f"{place}/{file}", f"not a manifest: {error}", remedy, fixable=False)


def _files(place: Place, stage: str, key: str, record: Json) -> Iterator[Trouble]:
    """Yield what is wrong with the files of a stage's results."""
    name, recorded = result_name(stage, key), record.get("files", {})
    # An untrained model has neither adapter nor curves.
    if name is None or (not recorded and stage == "train" and "family" not in record):
        return
    try:
        top = place.local(name)
    except (FileNotFoundError, DamagedError) as error:
        yield Trouble(stage, key, f"{place}/{name}", "missing" if isinstance(error, OSError) else str(error))
        return
    if not recorded:
        yield from _unrecorded(stage, key, top, f"{place}/{name}")
    for file, known in recorded.items():
        where = f"{place}/{stage}/{key}/{file}"
        if ".." in (parts := PurePosixPath(file).parts) or PurePosixPath(file).is_absolute():
            yield Trouble(stage, key, where, "the record names a file outside of the stage's folder")
            continue
        # Below `top`, whatever its name is on this machine.
        if trouble := file_trouble(top.joinpath(*parts[1:]), known):
            yield Trouble(stage, key, where, trouble)


def _unrecorded(stage: str, key: str, top: Path, where: str) -> Iterator[Trouble]:
    """Yield what can be seen of results whose hashes an older layout did not record."""
    if not top.exists():
        yield Trouble(stage, key, where, "missing")
    elif stage == "train":
        try:
            with safe_open(top / "adapter_model.safetensors", "np"):
                pass
        except (SafetensorError, OSError) as error:
            message = f"not a whole safetensors file: {error}"
            yield Trouble(stage, key, f"{where}/adapter_model.safetensors", message)


def _row(place: Place, stage: str, key: str, record: Json, groups: dict[str, zarr.Group]) -> int | Trouble:
    """Read the row of a done record; give its number, or what is wrong with it."""
    folder = group_name(stage, str(record["family"]))
    path = f"{place}/{folder}"
    try:
        if folder not in groups:
            groups[folder] = place.group(folder)
        group = groups[folder]
        names: Any = group.attrs["keys"]
    except UnreachableError:
        raise
    except Exception as error:  # missing, torn or changed metadata, in zarr's many words
        return Trouble(stage, key, path, f"its group of arrays cannot be opened: {error}")
    row = record.get("row", names.index(key) if key in names else None)
    if not isinstance(row, int) or not 0 <= row < len(names):
        return Trouble(stage, key, path, f"no row {row if row is not None else ''} of its own in the arrays")
    files = 0
    for name, array in group.arrays():
        if "variables" not in array.attrs:
            continue
        found = row_files(place, f"{folder}/{name}", array, row)
        files += len(found)
        try:
            for block in range(0, array.shape[2], array.chunks[2]):
                array[row, :, block : block + array.chunks[2]]
        except UnreachableError:
            raise
        except Exception as error:  # whatever a codec makes of damaged bytes
            where = f"{place}/{found[0]}" if len(found) == 1 else f"{path}/{name}"
            return Trouble(stage, key, where, f"row {row} cannot be read: {error}")
    if files < (expected := record.get("chunks", 1)):
        return Trouble(stage, key, path, f"row {row}: {files} chunk files, expected {expected}")
    return row


def _leftovers(ledger: Ledger, rows: Mapping[str, set[int]]) -> Iterator[str]:
    """Say how many rows have no record: of attempts that were killed, or given up."""
    place = ledger.place
    stages = sorted(set(place.names("results.zarr")) - {"zarr.json"})
    for stage in stages:
        running = ledger.running(stage)
        for folder in (
            f"results.zarr/{stage}/{name}" for name in sorted(place.names(f"results.zarr/{stage}"))
        ):
            if not place.exists(f"{folder}/zarr.json"):
                continue
            group = place.group(folder)
            names: Any = group.attrs.get("keys", [])
            without = [
                name
                for row, name in enumerate(names)
                if row not in rows.get(folder, set())
                and name not in running
                and any(row_files(place, f"{folder}/{s}", open_array(group, s), row) for s in _stacked(group))
            ]
            if without:
                yield (
                    f"{place}/{folder}: {len(without)} rows without a done record ({without[0]}, …): "
                    "unfinished or given up; `engine execute` goes on with what a spec needs, "
                    "`engine gc` lists the rest"
                )


def _stacked(group: zarr.Group) -> list[str]:
    return [name for name, array in group.arrays() if "variables" in array.attrs]


assert set(RESULTS) == {"data", "train", "lens"}  # `_unrecorded` knows the first two; the last is newer
