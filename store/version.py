"""The version of a store's layout: one number in `store.json`, set when the store is made.

1: before there was such a file. 2: arrays with checksums, and done records that say which row and which
files are theirs. A store of an older version is read and written as it is; `store.migrate` brings it up.
"""

import os
from pathlib import Path

from store.errors import StoreError
from store.files import read_json, write_json

LAYOUT = 2
_CONTENTS = ("experiments", "ledger", "results.zarr")


def layout_version(root: str | os.PathLike[str]) -> int | None:
    """Return the version of the store at `root`, None where there is none yet.

    StoreError when a later version of this program made it, for what that changed is unknown here.
    """
    try:
        found = read_json(Path(root) / "store.json").get("layout")
    except FileNotFoundError:
        return 1 if any((Path(root) / name).exists() for name in _CONTENTS) else None
    if type(found) is not int or found < 1:
        raise StoreError(f"{root}/store.json: layout: expected a whole number from 1 on, found {found!r}")
    if found > LAYOUT:
        raise StoreError(
            f"{root}: a store of layout {found}, made by a later version of this program; "
            f"this one reads up to layout {LAYOUT}: update ablation-engine"
        )
    return found


def mark_new(root: Path) -> None:
    """Give a store that is about to get its first content the present version."""
    if layout_version(root) is None:
        write_json(root / "store.json", {"layout": LAYOUT})
