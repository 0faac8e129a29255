"""Mending: what a verification has found is set right, or marked as to be done again.

Results that are whole stay as they are. A damaged adapter is put aside, for a training would otherwise take
it for its own; so are damaged data, and manifests.
"""

from __future__ import annotations

from collections.abc import Iterable

from store.arrays.families import (
    FamilyRecord,
    described_by_group,
    family_name,
    read_family,
    with_keys,
    with_rows,
    zarr_text,
)
from store.arrays.layout import group_name
from store.backend.locate import place_of
from store.backend.location import Place, Root
from store.backend.records import read_file, read_json, sealed, write_json
from store.backend.result_files import RESULTS
from store.errors import DamagedError, StoreError, UnreachableError
from store.lease.claims import live_claims
from store.lease.lock import locked
from store.ledger.history import accept_gap
from store.ledger.ledger import Ledger
from store.ledger.row_keys import GROUP, group_keys
from store.ledger.version import LAYOUT, STORE
from store.upkeep.metadata import coordinate_trouble, metadata_trouble, top_metadata, top_troubles
from store.upkeep.problems import Trouble

LOST = "lost"  # the key of a row whose own no record names; no stage has it


def fix(root: Root, troubles: list[Trouble]) -> list[str]:
    """Mend what is wrong with a store, and mark broken stages as to be done again; return what was done."""
    place = place_of(root)
    said = [_file(place, trouble) for trouble in troubles if trouble.mend in ("remove", "aside", "version")]
    said += _histories(place, troubles)
    # From here on the store's layout is known.
    ledger = Ledger(place)
    groups = list(
        dict.fromkeys((trouble.stage, trouble.key) for trouble in troubles if trouble.mend == "rebuild")
    )
    if groups and (at_work := live_claims(place)):
        said.append(f"metadata: left alone: {at_work[0]}")
        groups = []
    for stage, family in groups:
        with locked(place):
            # The groups above may be missing because of a family that is made again only now.
            said += [*(_rebuild(ledger, stage, family) if stage else []), *_top(place)]
    again = [trouble for trouble in troubles if trouble.mend in ("again", "regroup")]
    for stage, key in dict.fromkeys((trouble.stage, trouble.key) for trouble in again):
        said.append(
            _again(
                ledger,
                stage,
                key,
                [trouble for trouble in again if (trouble.stage, trouble.key) == (stage, key)],
            )
        )
    return said


def _file(place: Place, trouble: Trouble) -> str:
    """Take a file away that is none; `store.json` is written again."""
    (name,) = trouble.names
    if trouble.mend == "aside":
        try:
            content = read_file(place, name)
        except (FileNotFoundError, DamagedError):  # a folder, a link that leads nowhere
            content = b""
        place.write(f"{name}.damaged", content)
        place.remove_all(name)
        return f"{name}: put aside as {name}.damaged"
    if name in place.names("") or trouble.mend == "remove":
        place.remove_all(name)
    if trouble.mend == "remove":
        return f"{name}: removed"
    write_json(place, STORE, {"layout": LAYOUT})
    return f"{name}: written again, layout {LAYOUT}"


def _histories(place: Place, troubles: list[Trouble]) -> list[str]:
    """Note in histories what they have lost."""
    of_history = (
        trouble for trouble in troubles if trouble.names and trouble.names[0].startswith("history/")
    )
    names = list(dict.fromkeys(trouble.key for trouble in of_history))
    for name in names:
        accept_gap(place, name)
    return [f"history/{name}: it notes that records are missing" for name in names]


def _again(ledger: Ledger, stage: str, key: str, troubles: list[Trouble]) -> str:
    """Mark a stage as to be done again."""
    place = ledger.place
    if any(trouble.mend == "regroup" and trouble.key == key for trouble in troubles) and not ledger.has(
        stage, key
    ):
        # Found with the group itself, whose key is a family.
        for name in {name for trouble in troubles for name in trouble.names}:
            place.remove_all(name)
        return f"{stage} {key}: its group of arrays is removed"
    if ledger.start(stage, key) is None:
        return f"{stage} {key}: left alone: another process is at work on it"
    try:
        for name in _damaged(troubles, place, f"{stage}/{key}") if stage in RESULTS else ():
            place.put_aside(name)
        for trouble in troubles:
            for file in trouble.names:
                place.remove_all(file)
            if trouble.mend == "regroup":
                place.remove_all(family_name(stage, trouble.names[0].rpartition("/")[2]))
        ledger.clear(stage, key)
    finally:
        ledger.release(stage, key)
    return f"{stage} {key}: to be done again"


def _damaged(troubles: Iterable[Trouble], place: Place, folder: str) -> set[str]:
    """Return what troubles name of a stage's folder: the files and folders right below it."""
    start = f"{place}/{folder}/"
    inside = (trouble.path.removeprefix(start) for trouble in troubles if trouble.path.startswith(start))
    return {f"{folder}/{name.partition('/')[0]}" for name in inside}


def _top(place: Place) -> list[str]:
    """Make the damaged metadata of the groups above all families again."""
    names = [name for trouble in top_troubles(place) for name in trouble.names]
    for name in names:
        _write(place, name, zarr_text(top_metadata()))
    return [f"{name}: made again" for name in names]


def _rebuild(ledger: Ledger, stage: str, family: str) -> list[str]:
    """Make a family's record again from its group, or what is damaged in the group from the record."""
    place, name, folder = ledger.place, family_name(stage, family), group_name(stage, family)
    said = []
    try:
        record = read_family(place, stage, family)
    except (FileNotFoundError, DamagedError):
        try:
            content = described_by_group(place, folder)
        except DamagedError:
            return [f"{name}: cannot be made again, for its group is damaged as well"]
        _write(place, name, sealed(content, name))
        record = read_family(place, stage, family)
        said.append(f"{name}: made again from its group")
    keys = _keys(ledger, stage, family, record)
    wanted = {
        file: with_keys(metadata, keys)
        if file == GROUP
        else with_rows(metadata, len(keys))
        if "variables" in metadata["attributes"]
        else metadata
        for file, metadata in record.metadata.items()
    }
    for file, metadata in sorted(wanted.items(), key=lambda item: item[0] == GROUP):
        path = f"{folder}/{file}"
        if metadata_trouble(place, folder, record, file) or _parsed(place, path) != metadata:
            _write(place, path, zarr_text(metadata))
            said.append(f"{path}: made again")
    for coordinate in record.coordinates:
        if coordinate_trouble(place, folder, record, coordinate):
            for file, chunk in record.chunks(coordinate).items():
                _write(place, f"{folder}/{file}", chunk)
                said.append(f"{folder}/{file}: made again")
    return said


def _keys(ledger: Ledger, stage: str, family: str, record: FamilyRecord) -> list[str]:
    """Return the names of a group's rows: as records and notes of progress have them, or as they were."""
    place, folder = ledger.place, group_name(stage, family)
    try:
        names = dict(enumerate(group_keys(place, folder)))
    except DamagedError:
        names = {}
    for array in record.stacks:
        for file in place.names(f"{folder}/{array}"):
            number = file.split(".")[1] if file.startswith("c.") else ""
            if number.isdecimal():
                names.setdefault(int(number), f"{LOST}~{number}")
    known: dict[int, str] = {}
    for file in place.names("progress"):
        note = _parsed(place, f"progress/{file}")
        if note.get("family") == family and isinstance(row := note.get("row"), int):
            known[row] = file.removesuffix(".json")
    for key in ledger.done(stage):
        try:
            done_record = ledger.record(stage, key)
        except UnreachableError:
            raise
        except StoreError:
            continue
        if done_record.get("family") == family and isinstance(done_record.get("row"), int):
            known[done_record["row"]] = key
    taken = set(known.values())
    names = {row: f"{name}~{row}" if name in taken else name for row, name in names.items()} | known
    return [names.get(row, f"{LOST}~{row}") for row in range(max(names, default=-1) + 1)]


def _parsed(place: Place, name: str) -> dict[str, object]:
    try:
        return read_json(place, name, checked=False)
    except (FileNotFoundError, DamagedError):
        return {}


def _write(place: Place, name: str, content: bytes) -> None:
    """Write a file in the place of whatever is there."""
    if not place.file_sizes([name])[0]:  # a folder, a link that leads nowhere, or nothing
        place.remove_all(name)
    place.write(name, content)
