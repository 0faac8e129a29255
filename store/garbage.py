"""Garbage: what no experiment of a store reaches any more, and what killed processes have left behind."""

import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from store.claims import live_claims
from store.errors import StoreError
from store.files import locked, read_json
from store.ledger import Ledger
from store.manifests import read_manifests
from store.results import RESULTS

UNREACHED = "no experiment names it"
FINISHED = "its training is finished"
LEFT = "left by a process that was killed"
# A file still being written is younger.
STRAY_AGE = 3600.0
DOOMED = ".garbage"  # suffix of a group's folder that is about to be removed


@frozen
class Garbage:
    """Files or folders that can go together."""

    what: str
    """A path in the store; of an array's row `results.zarr/STAGE/FAMILY: row KEY`."""
    why: str
    paths: tuple[Path, ...]
    bytes: int = field()

    @bytes.default
    def _measured(self) -> int:
        return sum(_size(path) for path in self.paths)


@frozen
class Reach:
    """The stage keys that experiments, and specs named by a person, reach."""

    keys: Mapping[str, Collection[str]]
    data_known: bool
    """Whether every manifest says which data it uses; older ones do not."""

    def has(self, stage: str, key: str) -> bool:
        """Tell whether a key is reached, or may be."""
        return key in self.keys.get(stage, ()) or (stage == "data" and not self.data_known)


def find_garbage(root: Path, keep: Mapping[str, Collection[str]] | None = None) -> list[Garbage]:
    """Return all garbage of a store, of which nothing is touched; `keep` are further keys to spare, by stage.

    StoreError where no experiment is left that could reach anything: then the store itself is to be deleted.
    """
    reach = _reach(root, keep or {})
    ledger = Ledger(root)
    done = {stage: ledger.done(stage) for stage in _names(root / "ledger")}
    found = [*_records(root, reach), *_progress(root, reach, done)]
    for stage in RESULTS:
        found += _folders(root, stage, reach, done.get(stage, set()))
    for stage in _names(root / "results.zarr"):
        found += _arrays(root, stage, reach, ledger)
    return [*found, *_strays(root)]


def delete_garbage(root: Path, keep: Mapping[str, Collection[str]] | None = None) -> list[Garbage]:
    """Find and delete all garbage; return what went.

    A kill in the midst of it leaves less garbage and nothing half: records go before what they describe.
    StoreError while another process is at work in the store, which may count on what it found there;
    one that starts meanwhile waits, for it registers its experiment under the lock that is held here.
    """
    if at_work := live_claims(root):
        raise StoreError(
            f"{root}: in use: {at_work[0]}; gc deletes nothing while a process is at work in the store"
        )
    with locked(root):
        found = find_garbage(root, keep)
        for garbage in found:
            for path in garbage.paths:
                _remove(path)
    return found


def _reach(root: Path, keep: Mapping[str, Collection[str]]) -> Reach:
    manifests = read_manifests(root)
    if not manifests and not keep:
        raise StoreError(f"{root}: no experiment is left in this store; delete the folder, or name a spec")
    keys = {stage: set(named) for stage, named in keep.items()}
    for manifest in manifests.values():
        keys.setdefault("data", set()).update(manifest.get("data", ()))
        for cell in manifest["cells"]:
            for stage, key in cell["keys"].items():
                keys.setdefault(stage, set()).add(key)
    return Reach(keys, all("data" in manifest for manifest in manifests.values()))


def _records(root: Path, reach: Reach) -> Iterator[Garbage]:
    for stage in _names(root / "ledger"):
        for name in _names(root / "ledger" / stage):
            if name.endswith(".json") and not reach.has(stage, name.partition(".")[0]):
                yield _garbage(root, root / "ledger" / stage / name, UNREACHED)


def _progress(root: Path, reach: Reach, done: Mapping[str, Collection[str]]) -> Iterator[Garbage]:
    for name in _names(root / "progress"):
        key = name.removesuffix(".json")
        if name.endswith(".json"):
            if any(key in keys for keys in done.values()):
                yield _garbage(root, root / "progress" / name, LEFT)
            elif not any(reach.has(stage, key) for stage in (*reach.keys, *done) if stage != "data"):
                yield _garbage(root, root / "progress" / name, UNREACHED)


def _folders(root: Path, stage: str, reach: Reach, done: Collection[str]) -> Iterator[Garbage]:
    for key in _names(root / stage):
        folder = root / stage / key
        if not reach.has(stage, key):
            yield _garbage(root, folder, UNREACHED)
            continue
        for name in _names(folder):
            if key in done and name.startswith("checkpoints"):
                yield _garbage(root, folder / name, FINISHED)
            elif key in done and name == "adapter.damaged":
                yield _garbage(root, folder / name, "it has been made again")
            elif name.endswith(".partial") and _is_old(folder / name):
                yield _garbage(root, folder / name, LEFT)


def _arrays(root: Path, stage: str, reach: Reach, ledger: Ledger) -> Iterator[Garbage]:
    for family in _names(root / "results.zarr" / stage):
        folder = root / "results.zarr" / stage / family
        if family.endswith(DOOMED):
            yield _garbage(root, folder, LEFT)
        elif (folder / "zarr.json").is_file():
            yield from _rows(root, folder, reach, ledger)


def _rows(root: Path, folder: Path, reach: Reach, ledger: Ledger) -> Iterator[Garbage]:
    """Yield the rows of one group that nothing reaches; the group itself where that is all of them."""
    stage = folder.parent.name
    names: list[Any] = read_json(folder / "zarr.json").get("attributes", {}).get("keys", [])
    rows = {row for row, name in enumerate(names) if not _is_reached(row, str(name), stage, reach, ledger)}
    if names and len(rows) == len(names):
        yield _garbage(root, folder, UNREACHED)
        return
    files: dict[int, list[Path]] = {}
    for array in _names(folder):
        for name in _names(folder / array):
            chunk, row = folder / array / name, name.split(".")[1] if name.startswith("c.") else ""
            if name.endswith(".partial"):
                if _is_old(chunk):
                    yield _garbage(root, chunk, LEFT)
            elif row.isdecimal() and int(row) in rows:
                files.setdefault(int(row), []).append(chunk)
    where = folder.relative_to(root)
    for number, chunks in sorted(files.items()):
        yield Garbage(f"{where}: row {number}, {names[number]}", UNREACHED, tuple(chunks))


def _is_reached(row: int, name: str, stage: str, reach: Reach, ledger: Ledger) -> bool:
    """Tell whether a row belongs to a reachable key: as its done record says, or, unfinished, by its name."""
    key, _, former = name.partition("~")
    if not reach.has(stage, key):
        return False
    if ledger.has(stage, key):
        return bool(ledger.record(stage, key).get("row", row if not former else None) == row)
    return not former


def _strays(root: Path) -> Iterator[Garbage]:
    """Yield the halves of small files that were never moved into their places."""
    for top in ("experiments", "ledger", "progress", "claims", "."):
        pattern = ".*.tmp" if top == "." else "**/.*.tmp"
        for path in sorted((root / top).glob(pattern)):
            if _is_old(path):
                yield _garbage(root, path, LEFT)


def _garbage(root: Path, path: Path, why: str) -> Garbage:
    return Garbage(str(path.relative_to(root)), why, (path,))


def _names(folder: Path) -> list[str]:
    """Return the names in a folder; none where it is missing, or not a folder of the store itself."""
    if folder.is_symlink() or not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir())


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.lstat().st_mtime > STRAY_AGE
    except FileNotFoundError:
        return False


def _size(path: Path) -> int:
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size if path.exists() else 0
    return sum(map(_size, path.iterdir()))


def _remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    if path.parent.parent.name == "results.zarr" and path.suffix != DOOMED:
        path = path.rename(path.with_name(path.name + DOOMED))  # a group half deleted could be written to
    shutil.rmtree(path)
