"""Verification: does a store hold, whole and unchanged, all that its records say?

Every chunk of every done row is read, so that its checksum is compared; every record, all metadata and every
other file of a stage's results are held against their checksums. What an unfinished stage has on disk is
none of this: no reader sees it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import zarr
from attrs import field, frozen

from store.arrays.groups import ArrayGroup, any_group
from store.arrays.layout import chunk_files, group_name, row_content, row_files
from store.arrays.shards import ShardReader
from store.backend.locate import place_of
from store.backend.location import Place, Root
from store.backend.records import Json, read_file, read_json
from store.backend.result_files import file_trouble, result_file, result_name
from store.errors import DamagedError, StoreError, UnreachableError
from store.ledger.history import damaged, gap, histories, noted_gaps
from store.ledger.ledger import Ledger, progress_name, record_name
from store.ledger.lost_records import lost_data, lost_records
from store.ledger.manifests import (
    is_foreign,
    manifest_names,
    read_manifest,
    read_manifests,
    unnamed,
)
from store.ledger.row_keys import group_keys
from store.ledger.version import STORE, has_store
from store.ledger.vocabulary import read_vocabulary, vocabulary_name
from store.upkeep.metadata import group_troubles, top_troubles
from store.upkeep.notes import foreign_files, unnamed_stages
from store.upkeep.own_names import families_of, is_digest, is_note, stages_of
from store.upkeep.problems import Trouble, reason

_ROWS = 2**31  # more than any group has


@frozen
class Verified:
    """What a verification has read and found."""

    records: int
    troubles: list[Trouble]
    notes: list[str]


@frozen
class OpenedRows:
    """The groups of arrays that were opened, and their rows that done records name."""

    groups: dict[tuple[str, str], ArrayGroup | Trouble] = field(factory=dict)  # by stage and family
    done: dict[tuple[str, str], dict[int, str]] = field(factory=dict)  # row → key


def verify(root: Root) -> Verified:
    """Read all of a store; StoreError where it is none, or of another version of this program."""
    with place_of(root).fresh() as place:
        troubles = _version(place)
        ledger, rows, records = Ledger(place, check=False), OpenedRows(), 0
        troubles += [*_lock(place), *_manifests(ledger), *_history(place), *_vocabularies(ledger)]
        for stage in ledger.stages():
            for key in sorted(ledger.done(stage)):
                records += 1
                troubles += _stage(ledger, stage, key, rows)
            troubles += _other_records(ledger, stage)
        troubles += [*_lost(ledger), *_progress(ledger), *top_troubles(place)]
        for stage, family in _groups(place):
            done, running = rows.done.get((stage, family), {}), bool(ledger.running(stage))
            begun = bool(ledger.failed(stage) or place.names(f"claims/{stage}"))
            troubles += group_troubles(place, stage, family, done, running=running, begun=begun)
        return Verified(
            records,
            troubles,
            [
                *unnamed_stages(ledger),
                *noted_gaps(place),
                *_leftovers(ledger, rows),
                *foreign_files(place),
            ],
        )


def _version(place: Place) -> list[Trouble]:
    """Return what is wrong with the file that tells the layout; StoreError where there is no store."""
    try:
        if not has_store(place):
            raise StoreError(f"{place}: not a store: expected a folder 'experiments' in it")
    except DamagedError as error:
        message, remedy = reason(error, f"{place}/{STORE}"), "`engine verify STORE --fix` writes it again"
        return [Trouble("", "", f"{place}/{STORE}", message, remedy, "version", (STORE,))]
    return []


def _lock(place: Place) -> Iterator[Trouble]:
    """Yield what is wrong with the file by which processes keep each other out."""
    if ".lock" in place.names(""):
        try:
            read_file(place, ".lock")
        except (FileNotFoundError, DamagedError):
            remedy = "`engine verify STORE --fix` removes it; it is made again when it is needed"
            yield Trouble("", "", f"{place}/.lock", "no file", remedy, mend="remove", names=(".lock",))


def _history(place: Place) -> Iterator[Trouble]:
    """Yield the records of experiments' histories that are not as they were written."""
    for name, file, error in damaged(place):
        path, remedy = f"{place}/{file}", "`engine verify STORE --fix` puts it aside; nothing makes it again"
        yield Trouble("", name, path, reason(error, path), remedy, "aside", (file,))
    for name in sorted({*histories(place), *manifest_names(place)}):
        if message := gap(place, name):
            path, _, message = message.rpartition(": ")
            remedy = "`engine verify STORE --fix` notes that in the history; nothing makes the record again"
            yield Trouble("", name, path, message, remedy, "history", (f"history/{name}",))


def _manifests(ledger: Ledger) -> Iterator[Trouble]:
    """Yield the manifests that cannot be read, or that there is none for the results that are there."""
    if not manifest_names(ledger.place) and (message := unnamed(ledger.place)):
        path, remedy = f"{ledger.place}/experiments", "`engine execute` of its spec writes a manifest again"
        yield Trouble("", "", path, reason(StoreError(message), str(ledger.place)), remedy, mend="nothing")
    for name in manifest_names(ledger.place):
        file = f"experiments/{name}.json"
        try:
            read_manifest(ledger.place, name)
        except DamagedError as error:
            if is_foreign(ledger.place, name):
                continue
            path = f"{ledger.place}/{file}"
            message = f"not a manifest: {reason(error, path)}"
            remedy = (
                "`engine verify STORE --fix` puts it aside, and `engine execute` of its spec writes it again"
            )
            yield Trouble("", name, path, message, remedy, mend="aside", names=(file,))


def _vocabularies(ledger: Ledger) -> Iterator[Trouble]:
    """Yield the vocabularies that are missing or torn; one of the probes that name each makes it again."""
    place, named = ledger.place, dict[str, tuple[str, str]]()
    for stage in ledger.stages():
        for key in ledger.done(stage):
            try:
                attributes = ledger.record(stage, key).get("attributes", {})
            except UnreachableError:
                raise
            except StoreError:  # found with its stage
                continue
            if name := attributes.get("vocabulary"):
                named[str(name)] = min(named.get(str(name), (stage, key)), (stage, key))
    known = {name.removesuffix(".json") for name in place.names("vocabulary") if name.endswith(".json")}
    for key in sorted(set(filter(is_digest, known)) | named.keys()):
        file = vocabulary_name(key)
        try:
            if read_vocabulary(place, key) is not None:
                continue
            message = "missing"
        except DamagedError as error:
            message = reason(error, f"{place}/{file}")
        stage, user = named.get(key, ("", key))
        yield Trouble(
            stage, user, f"{place}/{file}", message, mend="again" if stage else "remove", names=(file,)
        )


def _stage(ledger: Ledger, stage: str, key: str, rows: OpenedRows) -> Iterator[Trouble]:
    """Yield what is wrong with the results of a done stage."""
    place, name = ledger.place, record_name(stage, key, "done")
    try:
        record = ledger.record(stage, key)
    except UnreachableError:
        raise
    except StoreError as error:
        yield Trouble(stage, key, f"{place}/{name}", reason(error, f"{place}/{name}"), names=(name,))
        return
    yield from _files(place, stage, key, record)
    if "family" in record:
        row_or_trouble = _row(place, stage, key, record, rows.groups)
        if isinstance(row_or_trouble, Trouble):
            yield row_or_trouble
        row = record.get("row") if isinstance(row_or_trouble, Trouble) else row_or_trouble
        if isinstance(row, int):
            rows.done.setdefault((stage, str(record["family"])), {})[row] = key


def _lost(ledger: Ledger) -> Iterator[Trouble]:
    """Yield the done records of experiments' stages that are missing."""
    try:
        manifests = read_manifests(ledger.place).values()
    except DamagedError:  # found with the manifests, or with store.json
        return
    lost = [*lost_records(ledger, (cell for manifest in manifests for cell in manifest["cells"]))]
    lost += [("data", key) for manifest in manifests for key in lost_data(ledger, manifest)]
    for stage, key in dict.fromkeys(lost):
        path = f"{ledger.place}/{record_name(stage, key, 'done')}"
        yield Trouble(stage, key, path, "missing, though its results are there")


def _other_records(ledger: Ledger, stage: str) -> Iterator[Trouble]:
    """Yield the records of failures that cannot be read."""
    for key in sorted(ledger.failed(stage)):
        name = record_name(stage, key, "failed")
        try:
            ledger.record(stage, key, "failed")
        except UnreachableError:
            raise
        except StoreError as error:
            path = f"{ledger.place}/{name}"
            yield Trouble(stage, key, path, reason(error, path), mend="remove", names=(name,))


def _progress(ledger: Ledger) -> Iterator[Trouble]:
    """Yield the notes of progress that cannot be read."""
    place = ledger.place
    for file in sorted(place.names("progress")):
        if not is_note(place, file):
            continue
        name = progress_name(file.removesuffix(".json"))
        try:
            read_json(place, name)
        except FileNotFoundError:
            message = "leads nowhere"
        except DamagedError as error:
            message = reason(error, f"{place}/{name}")
        else:
            continue
        remedy = "`engine verify STORE --fix` removes it: its stage begins anew"
        yield Trouble("", file.removesuffix(".json"), f"{place}/{name}", message, remedy, "remove", (name,))


def _files(place: Place, stage: str, key: str, record: Json) -> Iterator[Trouble]:
    """Yield what is wrong with the files of a stage's results."""
    name, recorded = result_name(stage, key), record.get("files", {})
    # An untrained model has neither adapter nor curves.
    if name is None or (not recorded and stage == "train" and "family" not in record):
        return
    try:
        place.local(name)
    except (FileNotFoundError, DamagedError) as error:
        yield Trouble(stage, key, f"{place}/{name}", "missing" if isinstance(error, OSError) else str(error))
        return
    if not recorded:
        yield Trouble(stage, key, f"{place}/{name}", "its record names no files")
    for file, known in recorded.items():
        where = f"{place}/{stage}/{key}/{file}"
        if ".." in PurePosixPath(file).parts or PurePosixPath(file).is_absolute():
            yield Trouble(stage, key, where, "the record names a file outside of the stage's folder")
            continue
        try:
            trouble = file_trouble(result_file(place, stage, key, file), known)
        except (FileNotFoundError, DamagedError) as error:
            trouble = "missing" if isinstance(error, OSError) else str(error)
        if trouble:
            yield Trouble(stage, key, where, trouble)


def _row(
    place: Place, stage: str, key: str, record: Json, groups: dict[tuple[str, str], ArrayGroup | Trouble]
) -> int | Trouble:
    """Read the row of a done record; give its number, or what is wrong with it."""
    family = str(record["family"])
    folder = group_name(stage, family)
    path = f"{place}/{folder}"
    if (stage, family) not in groups:
        try:
            groups[stage, family] = any_group(place, stage, family, _ROWS)
        except DamagedError as error:
            groups[stage, family] = Trouble(stage, key, path, reason(error, path), mend="regroup")
    group = groups[stage, family]
    if isinstance(group, Trouble):
        return Trouble(stage, key, path, group.message, mend="regroup", names=(folder,))
    if (row := record.get("row")) is None:  # of a record without the writer's `placement`
        try:
            row = {name: number for number, name in enumerate(group_keys(place, folder))}.get(key)
        except DamagedError:  # found with the group
            return Trouble(stage, key, path, "no row of its own in the arrays")
    if type(row) is not int or row < 0:
        return Trouble(stage, key, path, "no row of its own in the arrays")
    files: list[str] = []
    for name, array in group.stacks.items():
        stored = row_files(place, f"{folder}/{name}", array, row)
        files += stored
        if empty := _empty(place, f"{folder}/{name}", array, row):
            return Trouble(
                stage, key, f"{place}/{empty[0]}", f"row {row}: an empty file, or none", names=empty
            )
        try:
            _read(array, row)
        except (UnreachableError, PermissionError):
            raise
        except Exception as error:  # whatever a codec makes of damaged bytes
            where = f"{place}/{stored[0]}" if len(stored) == 1 else f"{path}/{name}"
            return Trouble(stage, key, where, f"row {row} cannot be read: {error}")
    if len(files) < (expected := record.get("chunks", 1)):
        return Trouble(stage, key, path, f"row {row}: {len(files)} chunk files, expected {expected}")
    # Files of another row, or older ones, are whole by themselves.
    if "content" in record and record["content"] != row_content(place, files):
        return Trouble(stage, key, path, f"row {row}: its files are not those that were written for it")
    return row


def _empty(place: Place, folder: str, array: zarr.Array[Any], row: int) -> tuple[str, ...]:
    """Return what stands in the places of a row's chunk files and holds nothing."""
    blocks = range(-(-array.shape[2] // array.chunks[2]))
    files = [file for block in blocks for file in chunk_files(folder, array, row, block)]
    return tuple(file for file, size in zip(files, place.file_sizes(files), strict=True) if size == 0)


def _read(array: zarr.Array[Any], row: int) -> None:
    """Read all values of a row; raises where a checksum, or what it covers, has changed."""
    shards = ShardReader.of(array)
    everything = (slice(None),) * (array.ndim - 2)
    if shards is not None:
        for statistic in range(array.shape[1]):
            shards.read(np.asarray([row]), statistic, everything)
        return
    for block in range(0, array.shape[2], array.chunks[2]):
        array[row, :, block : block + array.chunks[2]]


def _groups(place: Place) -> list[tuple[str, str]]:
    """Return stage and family of all groups of arrays, by their folders and by their records."""
    return sorted(
        {
            (stage, family)
            for top in ("results.zarr", "families")
            for stage in stages_of(place, top)
            for family in families_of(place, top, stage)
        }
    )


def _leftovers(ledger: Ledger, rows: OpenedRows) -> Iterator[str]:
    """Say how many rows have no record: of attempts that were killed, or given up."""
    place = ledger.place
    for stage, family in _groups(place):
        folder, running = group_name(stage, family), ledger.running(stage)
        try:
            group, names = any_group(place, stage, family, _ROWS), group_keys(place, folder)
        except DamagedError:  # found with the stages
            continue
        without = [
            name
            for row, name in enumerate(names)
            if row not in rows.done.get((stage, family), {})
            and name not in running
            and any(
                row_files(place, f"{folder}/{stack}", array, row) for stack, array in group.stacks.items()
            )
        ]
        if without:
            yield (
                f"{place}/{folder}: {len(without)} rows without a done record ({without[0]}, …): "
                "unfinished or given up; `engine execute` goes on with what a spec needs, "
                "`engine gc` lists the rest"
            )
