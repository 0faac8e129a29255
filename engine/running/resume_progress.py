"""How far an unfinished stage has come on disk."""

from __future__ import annotations

from collections.abc import Hashable

from engine.models.lens_files import CheckpointFile
from engine.stages.training.files import newest_checkpoint
from store.backend.location import Place
from store.backend.records import read_json
from store.errors import DamagedError
from store.ledger.ledger import progress_name


def progress_on_disk(root: Place, stage: str, key: str) -> Hashable:
    """Mark how far a stage has come that goes on where it was stopped; None for any other, and at its start.

    Two marks differ where it has come further. With a store in a bucket, other machines' marks are not seen.
    """
    home = root.under(f"{stage}/{key}")
    if stage == "train":
        return newest_checkpoint(home.scratch())
    if stage in ("lens", "jacobian"):
        file = CheckpointFile.of(home).file
        return file.stat().st_mtime_ns if file.exists() else None
    if stage not in ("probe", "along", "intervene"):
        return None
    try:
        return int(read_json(root, progress_name(key))["items"])
    except (FileNotFoundError, DamagedError):
        return None
