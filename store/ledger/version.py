"""The version of a store's layout: one number in `store.json`, set when the store is made.

1: before there was such a file. 2: arrays with checksums, and done records that say which row and which
files are theirs. 3: records with checksums, and families described by one each
(`store.arrays.families`). A store of an older version is read and written as it is; `store.upkeep.migrate`
brings it up.
"""

from store.backend.locate import place_of
from store.backend.location import Place, Root
from store.backend.records import create_json, parse_record, read_file
from store.errors import MEND, DamagedError, StoreError

LAYOUT = 3
CHECKED = 3
"""The first layout in which every record has a checksum."""
STORE = "store.json"
_CONTENTS = ("experiments", "ledger", "results.zarr")


def layout_version(root: Root) -> int | None:
    """Return the version of the store at `root`, None where there is none yet.

    StoreError when a later version of this program made it, for what that changed is unknown here;
    DamagedError when that cannot be read.
    """
    place = place_of(root)
    path = f"{place}/{STORE}"
    try:
        text = read_file(place, STORE)
    except FileNotFoundError:
        return 1 if {*_CONTENTS} & {*place.names("")} else None
    found = parse_record(text, path, checked=False).get("layout")
    if type(found) is not int or found < 1:
        raise DamagedError(f"{path}: layout: expected a whole number from 1 on, found {found!r}; {MEND}")
    if found > LAYOUT:
        raise StoreError(
            f"{root}: a store of layout {found}, made by a later version of this program; "
            f"this one reads up to layout {LAYOUT}: update ablation-engine"
        )
    if found >= CHECKED:
        parse_record(text, path, checked=True)
    return found


def checks_records(root: Root) -> bool:
    """Tell whether every record of a store has a checksum, so that one without it is damaged."""
    version = layout_version(root)
    return version is None or version >= CHECKED


def guessed_layout(place: Place) -> int:
    """Return the layout of a store whose `store.json` does not tell it, by its done records.

    The present one where they have checksums all; else 2, which the records of layout 1 belong to as well.
    """
    folders = (f"ledger/{stage}" for stage in place.names("ledger"))
    names = (f"{folder}/{name}" for folder in folders for name in place.names(folder))
    found = [_has_checksum(place, name) for name in names if name.endswith(".done.json")]
    return LAYOUT if found and any(found) and None not in found else CHECKED - 1


def _has_checksum(place: Place, name: str) -> bool | None:
    """Tell whether a record has its checksum; False where it is torn, None where it never had any."""
    try:
        text = read_file(place, name)
        parse_record(text, f"{place}/{name}", checked=False)
        parse_record(text, f"{place}/{name}", checked=True)
    except (FileNotFoundError, DamagedError) as error:
        return None if "lacks its checksum" in str(error) else False
    return True


def mark_new(place: Place) -> None:
    """Give a store that is about to get its first content the present version."""
    if layout_version(place) is None:
        create_json(place, STORE, {"layout": LAYOUT})
