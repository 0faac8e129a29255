"""Manifests: what each experiment of a store consists of, and how far it has come."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from store.errors import StoreError
from store.files import Json, locked, read_json, write_json
from store.ledger import Ledger
from store.version import layout_version, mark_new


def write_manifest(root: str | os.PathLike[str], name: str, manifest: Mapping[str, Any]) -> None:
    """Write or replace the manifest of experiment `name` (a plain name, no path) as a whole.

    It holds `factors` (names in order), `cells` (each with `levels` by factor and `keys` by stage), and
    whatever else shall be an attribute of the experiment. StoreError for a name that cannot be used.
    """
    if not re.fullmatch(r"\w[\w.+ -]*", name):
        raise StoreError(f"experiment name {name!r}: expected letters, digits and . _ + - only")
    if any("cell" in cell["levels"] for cell in manifest["cells"]):
        raise StoreError(f"experiment {name!r}: a factor cannot be called 'cell', the axis of all factors")
    with locked(Path(root)):  # `store.garbage` removes under this lock what no manifest names
        mark_new(Path(root))
        write_json(_folder(root) / f"{name}.json", manifest)


def read_manifests(root: str | os.PathLike[str]) -> dict[str, Json]:
    """Return the manifests of a store by experiment name, in the names' order; none gives {}.

    StoreError for a damaged one, and for a store that a later version of this program made.
    """
    layout_version(root)
    paths = sorted(path for path in _folder(root).glob("*.json") if not path.name.startswith("."))
    return {path.name.removesuffix(".json"): read_json(path) for path in paths}


def cells(root: str | os.PathLike[str], experiment: str) -> list[Json]:
    """Return the manifest's cells, each with `status` (stage → done, running, failed or pending) added.

    An unknown experiment raises StoreError.
    """
    manifests = read_manifests(root)
    if experiment not in manifests:
        raise StoreError(f"{root}: no experiment {experiment!r}; there are {', '.join(manifests) or 'none'}")
    listed: list[Json] = manifests[experiment]["cells"]
    ledger = Ledger(root)
    stages = {stage for cell in listed for stage in cell["keys"]}
    # First match wins: a key that is done stays done while a forced repeat of it runs or fails.
    known = {
        stage: {"done": ledger.done(stage), "running": ledger.running(stage), "failed": ledger.failed(stage)}
        for stage in stages
    }
    return [
        {
            **cell,
            "status": {
                stage: next((status for status, keys in known[stage].items() if key in keys), "pending")
                for stage, key in cell["keys"].items()
            },
        }
        for cell in listed
    ]


def _folder(root: str | os.PathLike[str]) -> Path:
    return Path(root) / "experiments"
