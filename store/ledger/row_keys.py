"""The names of a group's rows, which `engine status` reads without zarr."""

from __future__ import annotations

from store.backend.location import Place
from store.backend.records import parse_json, read_file
from store.errors import MEND, DamagedError

GROUP = "zarr.json"  # a group's own metadata, by its name in the group's folder


def group_keys(place: Place, folder: str) -> list[str]:
    """Return the names of a group's rows: stage keys; DamagedError where its metadata cannot be read."""
    path = f"{place}/{folder}/{GROUP}"
    try:
        keys = parse_json(read_file(place, f"{folder}/{GROUP}"), path)["attributes"]["keys"]
        if isinstance(keys, list) and all(isinstance(key, str) for key in keys):
            return keys
        present: object = type(keys).__name__
    except FileNotFoundError:
        present = "no such file"
    except (KeyError, TypeError) as error:
        present = repr(error)
    raise DamagedError(f"{path}: expected the keys of its rows, found {present}; {MEND}")
