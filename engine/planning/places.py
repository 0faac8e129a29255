"""Where files lay while paths were relative to the outermost spec, and stores to the current folder."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from engine.planning.plan import Plan
from store.backend.locate import place_of
from store.ledger.manifests import manifest_names


def older_store(plan: Plan) -> list[str]:
    """Say where results of this experiment lie in the current folder, if the spec's store is elsewhere."""
    spec = plan.matrix.spec
    written = spec.experiment.store or f"stores/{spec.experiment.name}"
    former = Path(written).expanduser()
    if "://" in written or str(plan.root) != str(place_of(spec.store)) or not former.is_dir():
        return []
    here = Path(str(plan.root))
    if os.path.realpath(former) == os.path.realpath(here) or spec.experiment.name not in manifest_names(
        place_of(former)
    ):
        return []
    return [
        f"store: this spec's store is {here}, for a path is relative to the file in which it stands; "
        f"{former} in the current folder holds results of {spec.experiment.name}, too: "
        f"--store {shlex.quote(str(former))} goes on with them, or move that folder there"
    ]


def misplaced(plan: Plan, missing: str) -> str:
    """Name the file beside the outermost spec that a missing one may be, or ""."""
    spec = plan.matrix.spec
    for source in spec.sources[1:]:
        other = spec.path.parent / os.path.relpath(missing, os.path.realpath(source.folder))
        if other.exists():
            return os.path.normpath(other)
    return ""
