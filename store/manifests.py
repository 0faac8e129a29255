"""Manifests: what each experiment of a store consists of, and how far it has come."""

import re
from collections.abc import Mapping
from typing import Any

from store.errors import StoreError
from store.files import Json, read_json, write_json
from store.ledger import Ledger
from store.places import Place, Root, place_of
from store.version import layout_version, mark_new


def write_manifest(root: Root, name: str, manifest: Mapping[str, Any]) -> None:
    """Write or replace the manifest of experiment `name` (a plain name, no path) as a whole.

    It holds `factors` (names in order), `cells` (each with `levels` by factor and `keys` by stage), and
    whatever else shall be an attribute of the experiment. StoreError for a name that cannot be used.
    """
    if not re.fullmatch(r"\w[\w.+ -]*", name):
        raise StoreError(f"experiment name {name!r}: expected letters, digits and . _ + - only")
    for factor in dict.fromkeys(factor for cell in manifest["cells"] for factor in cell["levels"]):
        if factor == "cell":
            raise StoreError(
                f"experiment {name!r}: a factor cannot be called 'cell', the axis of all factors"
            )
        if not factor or "/" in factor:
            raise StoreError(f"experiment {name!r}: factor {factor!r}: expected a name without '/'")
    place = place_of(root)
    with place.locked() as check:  # `store.garbage` removes under this lock what no manifest names
        mark_new(place)
        check()
        write_json(place, f"experiments/{name}.json", manifest)


def read_manifests(root: Root) -> dict[str, Json]:
    """Return the manifests of a store by experiment name, in the names' order; none gives {}.

    StoreError for a damaged one, and for a store that a later version of this program made.
    """
    layout_version(root)
    place = place_of(root)
    return {name: read_json(place, f"experiments/{name}.json") for name in manifest_names(place)}


def manifest_names(place: Place) -> list[str]:
    """Return the names of a store's experiments, in order."""
    names = (name for name in place.names("experiments") if not name.startswith("."))
    return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))


def cells(root: Root, experiment: str) -> list[Json]:
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
