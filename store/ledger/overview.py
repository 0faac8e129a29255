"""One look at a store: what a reader of its state needs of it, in a few round trips where it is far away."""

from __future__ import annotations

from collections.abc import Iterable

from store.backend.locate import seen
from store.backend.location import Place, Root
from store.backend.records import is_plain
from store.ledger.ledger import record_name
from store.ledger.manifests import manifest_names
from store.ledger.version import STORE

CLAIMS, FAMILIES = "claims", "families"
_FEW = 32  # families of a stage, which are asked for before it is known which of them are read


def overview(root: Root, experiment: str | None = None, stages: Iterable[str] = ()) -> Place:
    """Return a store's place as it is found now, its manifests read, its records and claims listed.

    Args:
        root: the store.
        experiment: the only one whose manifest is read.
        stages: those whose records are asked for before it is known whether there are any.
    """
    place = seen(root)
    if place is place.now():  # what is at hand is read when it is needed
        return place
    known = [f"ledger/{stage}" for stage in stages]
    place.fetch([STORE], ["", "experiments", "history", "ledger", "progress", *known], [CLAIMS, FAMILIES])
    names = [name for name in manifest_names(place) if experiment in (None, name)]
    listed = [f"ledger/{stage}" for stage in place.names("ledger") if is_plain(stage)]
    place.fetch([f"experiments/{name}.json" for name in names] + _claims(place), listed)
    return place


def fetch_records(place: Place, keys: Iterable[tuple[str, str]]) -> None:
    """Ask at once for done records, by stage and key, and for those of their stages' families."""
    named = list(keys)
    families = {stage: place.names(f"{FAMILIES}/{stage}") for stage in {s for s, _ in named} if place.distant}
    few = [f"{FAMILIES}/{s}/{name}" for s, names in families.items() if len(names) <= _FEW for name in names]
    place.fetch([record_name(stage, key, "done") for stage, key in named] + few)


def _claims(place: Place) -> list[str]:
    """Return the newest claims of all keys."""
    files = []
    for stage in filter(is_plain, place.names(CLAIMS)):
        for key in filter(is_plain, place.names(f"{CLAIMS}/{stage}")):
            folder = f"{CLAIMS}/{stage}/{key}"
            numbers = [name.removesuffix(".json") for name in place.names(folder)]
            if newest := max((int(number) for number in numbers if number.isdecimal()), default=0):
                files.append(f"{folder}/{newest}.json")
    return files
