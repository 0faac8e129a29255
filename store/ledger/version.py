"""The version of a store's layout: one number in `store.json`, set when the store is made."""

from store.backend.locate import place_of
from store.backend.location import Place, Root
from store.backend.records import create_json, parse_record, read_file
from store.errors import MEND, DamagedError, StoreError

LAYOUT = 3
STORE = "store.json"
_CONTENTS = ("experiments", "results.zarr")  # they are filled after `store.json` is there


def has_store(root: Root) -> bool:
    """Tell whether there is a store at `root`.

    StoreError where another version of this program made it, for what that wrote is unknown here;
    DamagedError where its `store.json` cannot be read, or is missing though the rest is there.
    """
    place = place_of(root)
    path = f"{place}/{STORE}"
    try:
        text = read_file(place, STORE)
    except FileNotFoundError as error:
        if not any(map(place.names, _CONTENTS)):
            return False
        try:
            text = read_file(place.now(), STORE)  # made meanwhile
        except FileNotFoundError:
            raise DamagedError(f"{path}: missing; {MEND}") from error
    layout = parse_record(text, path).get("layout")
    if type(layout) is not int or layout < 1:
        raise DamagedError(f"{path}: layout: expected a whole number from 1 on, found {layout!r}; {MEND}")
    if layout != LAYOUT:
        raise StoreError(
            f"{root}: a store of layout {layout}, made by another version of ablation-engine; this version "
            f"reads layout {LAYOUT}: install the version that made it"
        )
    return True


def check_store(root: Root) -> None:
    """Raise StoreError where there is no store."""
    place = place_of(root)
    if absence := place.absence():
        raise StoreError(f"{place}: {absence}")
    if not has_store(place):
        raise StoreError(f"{place}: not a store: expected a folder 'experiments' in it")


def mark_new(place: Place) -> None:
    """Give a store that is about to get its first content the present version."""
    if not has_store(place):
        create_json(place, STORE, {"layout": LAYOUT})
