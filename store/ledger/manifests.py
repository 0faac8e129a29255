"""Manifests: what each experiment of a store consists of, and how far it has come."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from specs.common.names import UNTRAINED_STAGES
from specs.common.spelling import alike
from store.backend.locate import place_of, seen
from store.backend.location import Place, Root
from store.backend.records import Json, parse_json, parse_record, read_file, read_json, write_json
from store.errors import MEND, DamagedError, StoreError, UnknownExperimentError
from store.lease.lock import locked
from store.ledger.history import declare, recorded
from store.ledger.ledger import Ledger
from store.ledger.version import STORE, has_store, mark_new

ASIDE = ".json.damaged"  # suffix of a damaged manifest that was put aside
_NAME = re.compile(r"\w[\w.+ -]*")


def write_manifest(root: Root, name: str, manifest: Mapping[str, Any]) -> None:
    """Write or replace the manifest of experiment `name` (a plain name, no path) as a whole.

    It holds `factors` (names in order), `cells` (each with `levels` by factor and `keys` by stage), and
    whatever else shall be an attribute of the experiment. What its spec asks of the results is recorded in
    the experiment's history, where it is new.

    Raises:
        StoreError: for a name that cannot be used.
    """
    if not is_name(name):
        raise StoreError(f"experiment name {name!r}: expected letters, digits and . _ + - only")
    for factor in dict.fromkeys(factor for cell in manifest["cells"] for factor in cell["levels"]):
        if factor == "cell":
            raise StoreError(
                f"experiment {name!r}: a factor cannot be called 'cell', the axis of all factors"
            )
        if not factor or "/" in factor:
            raise StoreError(f"experiment {name!r}: factor {factor!r}: expected a name without '/'")
    place = place_of(root)
    with locked(place) as check:  # `store.upkeep.garbage` removes under this lock what no manifest names
        mark_new(place)
        check()
        _write(place, name, manifest)


def put_back_manifest(root: Root, name: str, written: Mapping[str, Any], former: Json) -> bool:
    """Replace a manifest by the former one, unless it lists other cells by now than were written; tell which.

    Another process may have written its own meanwhile.
    """
    place = place_of(root)
    with locked(place) as check:
        if read_manifest(place, name)["cells"] != json.loads(json.dumps(written["cells"])):
            return False
        check()
        _write(place, name, former)
    return True


def _write(place: Place, name: str, manifest: Mapping[str, Any]) -> None:
    declare(place, name, manifest)
    write_json(place, f"experiments/{name}.json", {**manifest, "history": recorded(place, name)})
    place.remove(f"experiments/{name}{ASIDE}")


def read_manifests(root: Root, experiment: str | None = None) -> dict[str, Json]:
    """Return the manifests of a store, or of one experiment in it, by name in order; none gives {}.

    Raises:
        StoreError: for a damaged one, and for a store of another layout.
    """
    place = seen(root)
    place.fetch([STORE], ["experiments"])
    has_store(place)
    names = [name for name in manifest_names(place) if experiment in (None, name)]
    place.fetch(f"experiments/{name}.json" for name in names)
    return dict(_read(place, names))


def _read(place: Place, names: Iterable[str]) -> Iterator[tuple[str, Json]]:
    """Yield the manifests among some files, which may be somebody's own."""
    for name in names:
        try:
            manifest = read_manifest(place, name)
        except DamagedError:
            if is_foreign(place, name):
                continue
            raise
        yield name, manifest


def read_manifest(place: Place, name: str) -> Json:
    """Return the manifest of an experiment; DamagedError where it is none."""
    file = f"experiments/{name}.json"
    try:
        manifest = read_json(place, file)
    except FileNotFoundError as error:  # it is listed, so it is a link that leads nowhere
        raise DamagedError(f"{place}/{file}: a link that leads nowhere; {MEND}") from error
    cells = manifest.get("cells")
    whole = isinstance(cells, list) and all(
        isinstance(cell, dict) and isinstance(cell.get("keys"), dict) and isinstance(cell.get("levels"), dict)
        for cell in cells
    )
    if not whole:
        raise DamagedError(f"{place}/{file}: not a manifest: expected cells with levels and keys; {MEND}")
    return manifest


def stages_named(place: Place) -> dict[str, set[str]]:
    """Return the stage keys that experiments name, by stage; "data" where all manifests do."""
    place = seen(place)
    names = manifest_names(place)
    place.fetch(f"experiments/{name}.json" for name in names)
    manifests = [manifest for _, manifest in _read(place, names)]
    keys: dict[str, set[str]] = {}
    if all("data" in manifest for manifest in manifests):
        keys["data"] = {key for manifest in manifests for key in manifest["data"]}
    for manifest in manifests:
        for cell in manifest["cells"]:
            for stage, key in cell["keys"].items():
                keys.setdefault(stage, set()).add(key)
    return keys


def known_files(place: Place) -> dict[str, str]:
    """Return what the experiments of a store say of data files: path → identity of the content they had."""
    return {
        path: identity
        for manifest in read_manifests(place).values()
        for path, identity in manifest.get("files", {}).items()
    }


def lost_cells(place: Place, name: str, manifest: Mapping[str, Any]) -> int:
    """Return how many finished cells of an experiment a new manifest would not name.

    That the base model is evaluated, too, or no longer, makes no other cell.
    """
    former = read_manifests(place).get(name, {"cells": []})["cells"]
    kept = {own_keys(cell) for cell in manifest["cells"]}
    gone = [cell["keys"] for cell in former if own_keys(cell) not in kept]
    ledger = Ledger(place)
    done = {stage: ledger.done(stage) for keys in gone for stage in keys}
    return sum(all(key in done[stage] for stage, key in keys.items()) for keys in gone)


def own_keys(cell: Json) -> frozenset[tuple[str, str]]:
    """Return the keys of a cell's own stages: all but those of the untrained model."""
    return frozenset((stage, key) for stage, key in cell["keys"].items() if stage not in UNTRAINED_STAGES)


def unnamed(place: Place) -> str:
    """Say that a store without experiments has results, "" where it has none."""
    if not place.names("ledger"):
        return ""
    return f"{place}: no experiment names the results in it; `engine execute` of their spec does so again"


def manifest_names(place: Place) -> list[str]:
    """Return the names of a store's experiments, in order; of files that nobody has read yet."""
    names = (name.removesuffix(".json") for name in place.names("experiments") if name.endswith(".json"))
    return sorted(filter(is_name, names))


def unknown_experiment(place: Place, name: str) -> UnknownExperimentError:
    """Return the error of a name that no experiment of a store has."""
    known = manifest_names(place)
    there = f"there are {', '.join(known)}" if known else "there is none"
    return UnknownExperimentError(f"{place}: no experiment {name!r}; {there}{alike(name, known)}")


def is_name(name: str) -> bool:
    """Tell whether a name may be that of an experiment."""
    return _NAME.fullmatch(name) is not None


def is_foreign(place: Place, name: str) -> bool:
    """Tell whether a file that is no manifest has never been one of this name: a copy, or something else.

    A copy is whole under the name that its spec has. Something else is whole JSON without cells, and the
    store has histories, but none of such an experiment.
    """
    try:
        manifest = parse_json(read_file(place, f"experiments/{name}.json"), name)
    except (FileNotFoundError, PermissionError, DamagedError):
        return False
    if _is_copy(place, name, manifest):
        return True
    histories = set(place.names("history"))
    return bool(histories) and name not in histories and not {"cells", "blake2b"} & manifest.keys()


def _is_copy(place: Place, name: str, manifest: Json) -> bool:
    """Tell whether a manifest is whole under the name of another experiment, which its spec has."""
    spec = manifest.get("spec")
    spec_name = spec.get("name") if isinstance(spec, dict) else None
    if not isinstance(spec_name, str) or spec_name == name:
        return False
    try:
        parse_record(read_file(place, f"experiments/{name}.json"), f"{spec_name}.json")
    except (FileNotFoundError, DamagedError):
        return False
    return True


def cells(root: Root, experiment: str) -> list[Json]:
    """Return the manifest's cells, each with `status` (stage → done, running, failed or pending) added.

    An unknown experiment raises StoreError.
    """
    manifests = read_manifests(root, experiment)
    if experiment not in manifests:
        raise unknown_experiment(place_of(root), experiment)
    return with_status(Ledger(root), manifests[experiment]["cells"])


def with_status(ledger: Ledger, listed: Iterable[Json]) -> list[Json]:
    """Return cells that a manifest or a plan lists, each with its `status` added, as `cells` does."""
    listed = list(listed)
    keys: dict[str, set[str]] = {}
    for cell in listed:
        for stage, key in cell["keys"].items():
            keys.setdefault(stage, set()).add(key)
    ledger.place.fetch(folders=[f"ledger/{stage}" for stage in keys])
    states = {stage: key_states(ledger, stage, of_stage) for stage, of_stage in keys.items()}
    return [
        {**cell, "status": {stage: states[stage][key] for stage, key in cell["keys"].items()}}
        for cell in listed
    ]


def key_states(ledger: Ledger, stage: str, keys: Iterable[str]) -> dict[str, str]:
    """Return the state of stage keys: done, running, failed or pending.

    A key that is done stays so while a forced repeat of it runs or fails.
    """
    by_state = {
        "done": ledger.done(stage),
        "running": ledger.running(stage),
        "failed": ledger.failed(stage),
    }
    return {
        key: next((state for state, in_state in by_state.items() if key in in_state), "pending")
        for key in keys
    }
