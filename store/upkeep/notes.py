"""What a verification says beside problems: what is there and needs nothing done."""

from __future__ import annotations

from collections.abc import Iterator

from store.backend.location import Place
from store.errors import DamagedError
from store.ledger.ledger import Ledger
from store.ledger.manifests import stages_named
from store.upkeep.own_names import foreign


def foreign_files(place: Place) -> Iterator[str]:
    """Say which files and folders are not the store's."""
    if names := foreign(place):
        listed = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        yield f"{place}: {len(names)} files or folders that are not the store's ({listed}): left alone"


def unnamed_stages(ledger: Ledger) -> Iterator[str]:
    """Say how many finished stages belong to no experiment."""
    place = ledger.place
    try:
        named = stages_named(place)
    except DamagedError:  # found with the manifests
        return
    lost = [
        f"{stage} {key}"
        for stage in ledger.stages()
        for key in sorted(ledger.done(stage) - named.get(stage, set()))
        if stage != "data" or "data" in named
    ]
    if lost:
        yield (
            f"{place}: {len(lost)} finished stages that no experiment names ({lost[0]}, …); "
            "`engine execute` of their spec names them again, `engine gc` lists them"
        )
