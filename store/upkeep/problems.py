"""What a verification finds wrong, and how that is mended."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from store.errors import MEND

Mending = Literal["again", "remove", "aside", "version", "rebuild", "regroup", "history", "nothing"]
"""again: the stage is marked as to be done again; remove, aside: the files go, or get another name; version:
`store.json` is written; rebuild: metadata are made from the family's record, or that from them; regroup: the
group goes, and all its stages are marked as to be done again; history: a history notes what it has lost."""


@frozen
class Trouble:
    """Something that is not as it should be."""

    stage: str
    key: str
    """Of the stage; of what has no stage, its name."""
    path: str
    message: str
    remedy: str = MEND
    mend: Mending = "again"
    names: tuple[str, ...] = ()
    """Files of the store that have to go for that, or (rebuild) that are made again."""


def reason(error: Exception, path: str) -> str:
    """Return what an error says of a path, without the path and what mends it."""
    return str(error).removeprefix(f"{path}: ").removesuffix(f"; {MEND}")
