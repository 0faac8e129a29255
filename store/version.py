"""The version of a store's layout: one number in `store.json`, set when the store is made.

1: before there was such a file. 2: arrays with checksums, and done records that say which row and which
files are theirs. A store of an older version is read and written as it is; `store.migrate` brings it up.
"""

from store.errors import StoreError
from store.files import create_json, read_json
from store.places import Place, Root, place_of

LAYOUT = 2
_CONTENTS = ("experiments", "ledger", "results.zarr")


def layout_version(root: Root) -> int | None:
    """Return the version of the store at `root`, None where there is none yet.

    StoreError when a later version of this program made it, for what that changed is unknown here.
    """
    place = place_of(root)
    try:
        found = read_json(place, "store.json").get("layout")
    except FileNotFoundError:
        return 1 if {*_CONTENTS} & {*place.names("")} else None
    if type(found) is not int or found < 1:
        raise StoreError(f"{root}/store.json: layout: expected a whole number from 1 on, found {found!r}")
    if found > LAYOUT:
        raise StoreError(
            f"{root}: a store of layout {found}, made by a later version of this program; "
            f"this one reads up to layout {LAYOUT}: update ablation-engine"
        )
    return found


def mark_new(place: Place) -> None:
    """Give a store that is about to get its first content the present version."""
    if layout_version(place) is None:
        create_json(place, "store.json", {"layout": LAYOUT})
