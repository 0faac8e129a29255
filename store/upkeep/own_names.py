"""The names that a store's own files have. Whatever else lies in it is somebody's, and left alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from store.backend.location import Place
from store.backend.records import is_half, is_plain, read_json
from store.backend.result_files import RESULTS
from store.errors import DamagedError
from store.ledger.history import is_numbered
from store.ledger.ledger import is_record
from store.ledger.manifests import ASIDE, is_foreign, is_name
from store.ledger.row_keys import GROUP
from store.ledger.version import STORE

# What commands write for a person, and whatever a person puts there.
_OUTPUTS = ("export", "figures", "logs", "report.html", "slurm")
_OTHERS = (".lock", ".probe", "claims", "locks", STORE)
_FOLDERS = (
    "experiments",
    "families",
    "history",
    "ledger",
    "progress",
    "results.zarr",
    "vocabulary",
    *RESULTS,
)
_SCAFFOLDING = ("checkpoint", "logs")
_DIGEST = re.compile(r"(?:[0-9a-f]{16}){1,2}")  # of 8 or 16 bytes


def is_digest(name: str) -> bool:
    """Tell whether a name may be that of a family, of a vocabulary, or of a stage's results."""
    return _DIGEST.fullmatch(name) is not None


def stages_of(place: Place, top: str) -> list[str]:
    """Return the folders below `families` or `results.zarr` that hold a family, by its name."""
    stages = filter(is_plain, place.names(top))
    return sorted(stage for stage in stages if any(is_family(name) for name in place.names(f"{top}/{stage}")))


def families_of(place: Place, top: str, stage: str) -> list[str]:
    """Return the families of a stage: of `families`, or of `results.zarr`."""
    names = (
        name.removesuffix(".json") if top == "families" else name for name in place.names(f"{top}/{stage}")
    )
    return sorted(filter(is_digest, names))


def is_family(name: str) -> bool:
    """Tell whether a name is that of a group, of a family's record, or of what stands in for one."""
    return is_digest(name.partition(".")[0])


def is_results(place: Place, stage: str, key: str) -> bool:
    """Tell whether a folder holds what a stage keeps beside its arrays, by its name or by those in it."""
    prefixes = (RESULTS[stage], *_SCAFFOLDING)
    known = is_plain(key) and any(name.startswith(prefixes) for name in place.names(f"{stage}/{key}"))
    return known or is_digest(key)


def is_note(place: Place, name: str) -> bool:
    """Tell whether a file of `progress` is a note: by its name, or as it is whole."""
    key = name.removesuffix(".json")
    if not name.endswith(".json") or not is_plain(key):
        return False
    try:
        return is_digest(key) or bool(read_json(place, f"progress/{name}"))
    except (FileNotFoundError, DamagedError):
        return False


def foreign(place: Place) -> list[str]:
    """Return the files and folders in a store that are not the store's."""
    names = [name for name in place.names("") if name not in (*_OUTPUTS, *_OTHERS, *_FOLDERS)]
    for folder in _FOLDERS:
        names += (f"{folder}/{name}" for name in _foreign_in(place, folder))
    return sorted(name for name in names if not is_half(*_parted(name)))


def _parted(name: str) -> tuple[str, str]:
    folder, _, last = name.rpartition("/")
    return folder, last


def _foreign_in(place: Place, folder: str) -> Iterator[str]:
    names = place.names(folder)
    if folder == "experiments":
        yield from (name for name in names if not _is_manifest(place, name))
    elif folder == "progress":
        yield from (name for name in names if not is_note(place, name))
    elif folder == "vocabulary":
        yield from (name for name in names if not _is_family_record(name))
    elif folder in RESULTS:
        yield from (name for name in names if not is_results(place, folder, name.partition(".")[0]))
    elif folder == "history":
        for name in names:
            yield from _outside(place, folder, name, is_numbered, known=is_name(name))
    elif folder == "ledger":
        for name in names:
            yield from _outside(place, folder, name, is_record, known=is_plain(name))
    else:
        stages = {*stages_of(place, "families"), *stages_of(place, "results.zarr")}
        for name in names:
            if name != GROUP:
                known = name in stages or _is_unfinished(place, f"{folder}/{name}")
                yield from _outside(place, folder, name, _is_of_stage, known=known)


def _outside(
    place: Place, top: str, name: str, is_own: Callable[[str], bool], *, known: bool
) -> Iterator[str]:
    """Yield what has not the name of one of the store's folders, or is a file, or what is foreign in it."""
    path = f"{top}/{name}"
    if not known or place.file_sizes([path])[0]:
        yield name
    else:
        yield from (f"{name}/{inner}" for inner in place.names(path) if not is_own(inner))


def _is_unfinished(place: Place, folder: str) -> bool:
    """Tell whether a folder has the name of a stage, and nothing in it yet."""
    name = folder.rpartition("/")[2]
    return is_plain(name) and all(is_half(folder, inner) for inner in place.names(folder))


def _is_of_stage(name: str) -> bool:
    return name == GROUP or is_family(name)


def _is_manifest(place: Place, name: str) -> bool:
    if name.endswith(ASIDE):
        return True
    experiment = name.removesuffix(".json")
    return name.endswith(".json") and is_name(experiment) and not is_foreign(place, experiment)


def _is_family_record(name: str) -> bool:
    return name.endswith(".json") and is_digest(name.removesuffix(".json"))
