"""Garbage: what no experiment of a store reaches any more, and what killed processes have left behind."""

from collections.abc import Collection, Iterator, Mapping

from attrs import frozen

from store.arrays.families import family_name
from store.backend.locate import place_of
from store.backend.location import DOOMED, Place, Root
from store.backend.records import is_half
from store.backend.result_files import RESULTS
from store.errors import StoreError
from store.lease.claims import live_claims
from store.lease.lock import locked
from store.ledger.ledger import Ledger, is_record
from store.ledger.manifests import ASIDE, read_manifests
from store.ledger.row_keys import group_keys
from store.ledger.version import check_store
from store.upkeep.own_names import families_of, is_family, is_note, is_results, stages_of

UNREACHED = "no experiment names it"
FINISHED = "its training is finished"
LEFT = "left by a process that was killed"
# A file still being written is younger.
STRAY_AGE = 3600.0


@frozen
class Garbage:
    """Files or folders that can go together."""

    what: str
    """A path in the store; of an array's row `results.zarr/STAGE/FAMILY: row KEY`."""
    why: str
    names: tuple[str, ...]
    bytes: int


@frozen
class Reach:
    """The stage keys that experiments, and specs named by a person, reach."""

    keys: Mapping[str, Collection[str]]
    data_known: bool
    """Whether every manifest says which data it uses; older ones do not."""

    def has(self, stage: str, key: str) -> bool:
        """Tell whether a key is reached, or may be."""
        return key in self.keys.get(stage, ()) or (stage == "data" and not self.data_known)


def find_garbage(root: Root, keep: Mapping[str, Collection[str]] | None = None) -> list[Garbage]:
    """Return all garbage of a store, of which nothing is touched; `keep` are further keys to spare, by stage.

    StoreError where no experiment is left that could reach anything: then the store itself is to be deleted.
    """
    place = place_of(root)
    reach = _reach(place, keep or {})
    ledger = Ledger(place)
    done = {stage: ledger.done(stage) for stage in ledger.stages()}
    garbage = [*_records(place, reach), *_progress(place, reach, done)]
    for stage in RESULTS:
        garbage += _folders(place, stage, reach, done.get(stage, set()))
    for stage in sorted({*stages_of(place, "results.zarr"), *stages_of(place, "families")}):
        garbage += _arrays(ledger, stage, reach)
    return [*garbage, *_strays(place)]


def delete_garbage(root: Root, keep: Mapping[str, Collection[str]] | None = None) -> list[Garbage]:
    """Find and delete all garbage; return what went.

    A kill in the midst of it leaves less garbage and nothing half: records go before what they describe.
    StoreError while another process is at work in the store, which may count on what it found there;
    one that starts meanwhile waits, for it registers its experiment under the lock that is held here.
    """
    place = place_of(root)
    if at_work := live_claims(place):
        raise StoreError(
            f"{place}: in use: {at_work[0]}; gc deletes nothing while a process is at work in the store"
        )
    with locked(place) as check:
        all_garbage = find_garbage(place, keep)
        for garbage in all_garbage:
            for name in garbage.names:
                check()
                place.remove_all(name)
    return all_garbage


def _reach(place: Place, keep: Mapping[str, Collection[str]]) -> Reach:
    check_store(place)
    manifests = read_manifests(place)
    if aside := sorted(name for name in place.names("experiments") if name.endswith(ASIDE)):
        raise StoreError(
            f"{place}/experiments/{aside[0]}: the damaged manifest of an experiment, whose results nothing "
            "else names; expected `engine execute` of its spec, which writes it again, or its deletion"
        )
    if not manifests and not keep:
        raise StoreError(f"{place}: no experiment is left in this store; delete the folder, or name a spec")
    keys = {stage: set(named) for stage, named in keep.items()}
    for manifest in manifests.values():
        keys.setdefault("data", set()).update(manifest.get("data", ()))
        for cell in manifest["cells"]:
            for stage, key in cell["keys"].items():
                keys.setdefault(stage, set()).add(key)
    return Reach(keys, all("data" in manifest for manifest in manifests.values()))


def _records(place: Place, reach: Reach) -> Iterator[Garbage]:
    for stage in _names(place, "ledger"):
        for name in _names(place, f"ledger/{stage}"):
            if is_record(name) and not reach.has(stage, name.partition(".")[0]):
                yield _garbage(place, f"ledger/{stage}/{name}", UNREACHED)


def _progress(place: Place, reach: Reach, done: Mapping[str, Collection[str]]) -> Iterator[Garbage]:
    for name in _names(place, "progress"):
        key = name.removesuffix(".json")
        if is_note(place, name):
            if any(key in keys for keys in done.values()):
                yield _garbage(place, f"progress/{name}", LEFT)
            elif not any(reach.has(stage, key) for stage in (*reach.keys, *done) if stage != "data"):
                yield _garbage(place, f"progress/{name}", UNREACHED)


def _folders(place: Place, stage: str, reach: Reach, done: Collection[str]) -> Iterator[Garbage]:
    for key in _names(place, stage):
        folder = f"{stage}/{key}"
        if not reach.has(stage, key):
            if is_results(place, stage, key.removesuffix(DOOMED)):
                yield _garbage(place, folder, UNREACHED)
            continue
        for name in _names(place, folder):
            if key in done and name.startswith("checkpoint"):
                yield _garbage(place, f"{folder}/{name}", FINISHED)
            elif key in done and name.removesuffix(DOOMED).endswith(".damaged"):
                yield _garbage(place, f"{folder}/{name}", "it has been made again")
        for name in place.unpublished(folder):
            if place.age(f"{folder}/{name}") > STRAY_AGE:
                yield _garbage(place, f"{folder}/{name}", LEFT)


def _arrays(ledger: Ledger, stage: str, reach: Reach) -> Iterator[Garbage]:
    place = ledger.place
    for family in (name for name in _names(place, f"results.zarr/{stage}") if is_family(name)):
        folder = f"results.zarr/{stage}/{family}"
        if family.endswith(DOOMED):
            yield _garbage(place, folder, LEFT)
        elif place.exists(f"{folder}/zarr.json"):
            yield from _rows(ledger, folder, reach)
        elif place.age(folder) > STRAY_AGE:  # made, or removed, by halves
            yield _garbage(place, folder, LEFT)
    groups = set(place.names(f"results.zarr/{stage}"))
    for family in families_of(place, "families", stage):
        record = family_name(stage, family)
        if family not in groups and place.age(record) > STRAY_AGE:
            yield _garbage(place, record, LEFT)


def _rows(ledger: Ledger, folder: str, reach: Reach) -> Iterator[Garbage]:
    """Yield the rows of one group that nothing reaches; the group itself where that is all of them."""
    place, stage = ledger.place, folder.split("/")[1]
    names = group_keys(place, folder)
    rows = {row for row, name in enumerate(names) if not _is_reached(row, str(name), stage, reach, ledger)}
    if names and len(rows) == len(names):
        record = family_name(stage, folder.split("/")[2])
        size = place.size(folder) + place.size(record)
        yield Garbage(folder, UNREACHED, (folder, record), size)
        return
    files: dict[int, list[str]] = {}
    # Coordinates, whose names have no "-", have chunks of no row.
    for array in (name for name in _names(place, folder) if "-" in name):
        for name in _names(place, f"{folder}/{array}"):
            row = name.split(".")[1] if name.startswith("c.") and not name.endswith(".partial") else ""
            if row.isdecimal() and int(row) in rows:
                files.setdefault(int(row), []).append(f"{folder}/{array}/{name}")
    for number, chunks in sorted(files.items()):
        size = sum(map(place.size, chunks))
        yield Garbage(f"{folder}: row {number}, {names[number]}", UNREACHED, tuple(chunks), size)


def _is_reached(row: int, name: str, stage: str, reach: Reach, ledger: Ledger) -> bool:
    """Tell whether a row belongs to a reachable key: as its done record says, or, unfinished, by its name."""
    key, _, former = name.partition("~")
    if not reach.has(stage, key):
        return False
    if ledger.has(stage, key):
        return bool(ledger.record(stage, key).get("row", row if not former else None) == row)
    return not former


def _strays(place: Place) -> Iterator[Garbage]:
    """Yield the halves of small files, and of arrays' chunks and metadata, that never got to their places."""
    for folder in _folders_with_strays(place):
        for name in _names(place, folder):
            path = f"{folder}/{name}" if folder else name
            if is_half(folder, name) and place.age(path) > STRAY_AGE:
                yield _garbage(place, path, LEFT)


def _folders_with_strays(place: Place) -> Iterator[str]:
    depths = {
        "": 0,
        "experiments": 0,
        "history": 1,
        "progress": 0,
        "vocabulary": 0,
        "families": 1,
        "export": 1,
        "figures": 0,
        "ledger": 1,
        "claims": 2,
        "results.zarr": 3,
    }
    for top, depth in depths.items():
        level = [top]
        for _ in range(depth + 1):
            yield from level
            level = [f"{folder}/{name}" for folder in level for name in _names(place, folder)]


def _garbage(place: Place, name: str, why: str) -> Garbage:
    return Garbage(name, why, (name,), place.size(name))


def _names(place: Place, folder: str) -> list[str]:
    """Return the names in a folder, in order; none where it is not a folder of the store itself."""
    return sorted(place.names(folder, follow=False))
