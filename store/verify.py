"""Verification: does a store hold, whole and unchanged, all that its records say?

Every chunk of every done row is read, so that its checksum is compared; every other file of a stage's results
is hashed. What an unfinished stage has on disk is none of this: no reader sees it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import zarr
from attrs import frozen
from safetensors import SafetensorError, safe_open

from store.errors import StoreError
from store.files import Json, hash_file, read_json
from store.layout import group_path, open_array, row_files
from store.ledger import Ledger
from store.results import RESULTS, result_path
from store.version import LAYOUT, layout_version

AGAIN = "`engine verify STORE --fix`, then `engine execute`, makes it again"


@frozen
class Trouble:
    """Something that is not as it should be."""

    stage: str
    key: str
    path: Path
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


def verify(root: Path) -> Verified:
    """Read all of a store; StoreError where it is none, or of a later version of this program."""
    version = layout_version(root)
    if version is None:
        raise StoreError(f"{root}: not a store: expected a folder 'experiments' in it")
    notes = []
    if version < LAYOUT:
        notes.append(
            f"layout {version}: arrays without checksums, whose damage is seen only where they cannot be "
            "decoded; `engine migrate STORE` adds them"
        )
    troubles = list(_manifests(root))
    ledger, records = Ledger(root), 0
    rows: dict[tuple[str, str], set[int]] = {}  # of done records, by stage and family
    groups: dict[Path, zarr.Group] = {}
    for stage in _stages(root):
        for key in sorted(ledger.done(stage)):
            records += 1
            try:
                record = ledger.record(stage, key)
            except StoreError as error:
                path = root / "ledger" / stage / f"{key}.done.json"
                troubles.append(Trouble(stage, key, path, str(error).removeprefix(f"{path}: ")))
                continue
            troubles += _files(root, stage, key, record)
            if "family" in record:
                found = _row(root, stage, key, record, groups)
                troubles += [found] if isinstance(found, Trouble) else []
                if isinstance(found, int):
                    rows.setdefault((stage, str(record["family"])), set()).add(found)
    notes += _leftovers(root, rows, ledger)
    return Verified(records, troubles, notes)


def fix(root: Path, troubles: list[Trouble]) -> list[str]:
    """Mark broken stages as to be done again; return what was done. Results that are whole stay as they are.

    A damaged adapter is moved to `adapter.damaged`, for a training would otherwise take it for its own.
    """
    ledger, said = Ledger(root), []
    for stage, key in dict.fromkeys((t.stage, t.key) for t in troubles if t.fixable):
        if ledger.start(stage, key) is None:
            said.append(f"{stage} {key}: left alone: another process is at work on it")
            continue
        try:
            adapter = result_path(root, stage, key) if stage == "train" else None
            if adapter is not None and adapter.exists() and _is_damaged(troubles, stage, key, adapter):
                aside = adapter.with_name("adapter.damaged")
                number = 1
                while aside.exists():
                    number += 1
                    aside = adapter.with_name(f"adapter.damaged-{number}")
                adapter.rename(aside)
            ledger.clear(stage, key)
        finally:
            ledger.release(stage, key)
        said.append(f"{stage} {key}: to be done again")
    return said


def _is_damaged(troubles: list[Trouble], stage: str, key: str, adapter: Path) -> bool:
    return any(
        (t.stage, t.key) == (stage, key) and (t.path == adapter or adapter in t.path.parents)
        for t in troubles
    )


def _stages(root: Path) -> list[str]:
    folder = root / "ledger"
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _manifests(root: Path) -> Iterator[Trouble]:
    """Yield the manifests that cannot be read."""
    for path in sorted((root / "experiments").glob("*.json")):
        if path.name.startswith("."):
            continue
        try:
            cells = read_json(path)["cells"]
            if any(not isinstance(cell["keys"], dict) or "levels" not in cell for cell in cells):
                raise KeyError("keys")
        except (StoreError, KeyError, TypeError) as error:
            remedy = "`engine execute` of its spec writes it again"
            yield Trouble("", path.stem, path, f"not a manifest: {error}", remedy, fixable=False)


def _files(root: Path, stage: str, key: str, record: Json) -> Iterator[Trouble]:
    """Yield what is wrong with the files of a stage's results."""
    top = result_path(root, stage, key)
    recorded: Mapping[str, Any] = record.get("files", {})
    for name, known in recorded.items():
        path = root / stage / key / name
        if ".." in Path(name).parts or Path(name).is_absolute():
            yield Trouble(stage, key, path, "the record names a file outside of the stage's folder")
        elif not path.is_file():
            yield Trouble(stage, key, path, "missing")
        elif (size := path.stat().st_size) != known["bytes"]:
            yield Trouble(stage, key, path, f"{size:,} bytes, expected {known['bytes']:,}")
        elif hash_file(path) != known["blake2b"]:
            yield Trouble(stage, key, path, "its content has changed since it was made")
    # An untrained model has neither adapter nor curves.
    if not recorded and top is not None and (stage != "train" or "family" in record):
        yield from _unrecorded(stage, key, top)


def _unrecorded(stage: str, key: str, top: Path) -> Iterator[Trouble]:
    """Yield what can be seen of results whose hashes an older layout did not record."""
    if not top.exists():
        yield Trouble(stage, key, top, "missing")
    elif stage == "train":
        for file in [top / "adapter_model.safetensors"]:
            try:
                with safe_open(file, "np"):
                    pass
            except (SafetensorError, OSError) as error:
                yield Trouble(stage, key, file, f"not a whole safetensors file: {error}")


def _row(root: Path, stage: str, key: str, record: Json, groups: dict[Path, zarr.Group]) -> int | Trouble:
    """Read the row of a done record; give its number, or what is wrong with it."""
    path = group_path(root, stage, str(record["family"]))
    try:
        if path not in groups:
            groups[path] = zarr.open_group(path, mode="r", use_consolidated=False)
        group = groups[path]
        names: Any = group.attrs["keys"]
    except Exception as error:  # missing, torn or changed metadata, in zarr's many words
        return Trouble(stage, key, path, f"its group of arrays cannot be opened: {error}")
    row = record.get("row", names.index(key) if key in names else None)
    if not isinstance(row, int) or not 0 <= row < len(names):
        return Trouble(stage, key, path, f"no row {row if row is not None else ''} of its own in the arrays")
    files = 0
    for name, array in group.arrays():
        if "variables" not in array.attrs:
            continue
        found = row_files(path / name, array, row)
        files += len(found)
        try:
            for block in range(0, array.shape[2], array.chunks[2]):
                array[row, :, block : block + array.chunks[2]]
        except Exception as error:  # whatever a codec makes of damaged bytes
            where = found[0] if len(found) == 1 else path / name
            return Trouble(stage, key, where, f"row {row} cannot be read: {error}")
    if files < (expected := record.get("chunks", 1)):
        return Trouble(stage, key, path, f"row {row}: {files} chunk files, expected {expected}")
    return row


def _leftovers(root: Path, rows: Mapping[tuple[str, str], set[int]], ledger: Ledger) -> Iterator[str]:
    """Say how many rows have no record: of attempts that were killed, or given up."""
    for stage in sorted(path.name for path in root.glob("results.zarr/*") if path.is_dir()):
        for path in sorted((root / "results.zarr" / stage).glob("*/zarr.json")):
            group = zarr.open_group(path.parent, mode="r", use_consolidated=False)
            names: Any = group.attrs.get("keys", [])
            known, running = rows.get((stage, path.parent.name), set()), ledger.running(stage)
            without = [
                name
                for row, name in enumerate(names)
                if row not in known
                and name not in running
                and any(row_files(path.parent / s, open_array(group, s), row) for s in _stacked(group))
            ]
            if without:
                yield (
                    f"{path.parent}: {len(without)} rows without a done record ({without[0]}, …): unfinished "
                    "or given up; `engine execute` goes on with what a spec needs, `engine gc` lists the rest"
                )


def _stacked(group: zarr.Group) -> list[str]:
    return [name for name, array in group.arrays() if "variables" in array.attrs]


assert set(RESULTS) == {"data", "train"}  # the stages that `_unrecorded` knows
