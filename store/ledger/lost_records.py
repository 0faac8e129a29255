"""Done records that are missing although their stages were done: what is gone leaves no checksum behind.

Before a stage's first chunk there is a note of its progress, which goes when its record is there, and a stage
that is marked as to be done again gets one. So whoever has values and neither record, note, claim nor failure
has lost its record; and so has a training whose model has been measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from specs.common.names import FIT_STAGES, UNTRAINED_STAGES
from store.backend.location import Place
from store.backend.records import Json
from store.backend.result_files import RESULTS
from store.errors import MEND, DamagedError
from store.ledger.ledger import Ledger, progress_name, record_name
from store.ledger.row_keys import GROUP, group_keys

UNTRAINED = ("train", *UNTRAINED_STAGES, *FIT_STAGES)  # stages that may need no trained model


def check_records(ledger: Ledger, cells: Iterable[Json]) -> None:
    """Raise DamagedError where a finished stage of some cells has lost its record."""
    for stage, key in lost_records(ledger, cells):
        raise _lost(ledger, stage, key)


def check_data(ledger: Ledger, manifest: Json) -> None:
    """Raise DamagedError where prepared data of an experiment have lost their record."""
    for key in lost_data(ledger, manifest):
        raise _lost(ledger, "data", key)


def lost_records(ledger: Ledger, cells: Iterable[Json]) -> Iterator[tuple[str, str]]:
    """Yield stage and key of the finished stages of some cells that have lost their records."""
    place, cells = ledger.place, list(cells)
    done = {stage: ledger.done(stage) for stage in {stage for cell in cells for stage in cell["keys"]}}
    suspects = {stage: dict[str, bool]() for stage in done}  # key → whether a later stage of a cell is done
    for cell in cells:
        measured = any(key in done[stage] for stage, key in cell["keys"].items() if stage not in UNTRAINED)
        for stage, key in cell["keys"].items():
            if key not in done[stage]:
                suspects[stage][key] = suspects[stage].get(key, False) or (stage == "train" and measured)
    open_keys: dict[str, dict[str, bool]] = {}
    for stage, keys in suspects.items():
        excused = ledger.failed(stage) | ledger.running(stage) if keys else set()
        open_keys[stage] = {key: measured for key, measured in keys.items() if key not in excused}
    written = _written(place, open_keys)
    for stage, keys in open_keys.items():
        for key, measured in keys.items():
            if (measured or (stage, key) in written) and not _explained(ledger, stage, key):
                yield stage, key


def lost_data(ledger: Ledger, manifest: Json) -> list[str]:
    """Return the keys of prepared data of an experiment that have lost their records.

    Such data are there, and something was trained; a process that was killed between the two leaves the same.
    """
    place = ledger.place
    open_keys = set(manifest.get("data", ())) - ledger.done("data") - ledger.failed("data")
    if not open_keys or not {cell["keys"].get("train") for cell in manifest["cells"]} & ledger.done("train"):
        return []
    present = [key for key in sorted(open_keys) if place.exists(f"data/{key}/{RESULTS['data']}")]
    ledger = ledger.now() if present else ledger
    return [key for key in present if key not in ledger.running("data") and not ledger.has("data", key)]


def _lost(ledger: Ledger, stage: str, key: str) -> DamagedError:
    path = f"{ledger.place}/{record_name(stage, key, 'done')}"
    return DamagedError(f"{path}: missing, though its results are there; {MEND}")


def _explained(ledger: Ledger, stage: str, key: str) -> bool:
    """Tell whether a stage is done after all, or unfinished: it may have begun or ended just now."""
    ledger = ledger.now()
    return (
        ledger.place.exists(progress_name(key))
        or ledger.has(stage, key, "failed")
        or key in ledger.running(stage)
        or ledger.has(stage, key)
    )


def _written(place: Place, wanted: Mapping[str, Iterable[str]]) -> set[tuple[str, str]]:
    """Return those of some keys, by stage, that have a row with values."""
    keys = {
        stage: {key for key in of_stage if not place.exists(progress_name(key))}
        for stage, of_stage in wanted.items()
    }
    stages = [stage for stage, of_stage in keys.items() if of_stage]
    place.fetch(folders=[f"results.zarr/{stage}" for stage in stages])
    groups = [
        (stage, f"results.zarr/{stage}/{family}")
        for stage in stages
        for family in place.names(f"results.zarr/{stage}")
        if "." not in family
    ]
    place.fetch([f"{folder}/{GROUP}" for _, folder in groups], [folder for _, folder in groups])
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for stage, folder in groups:
        try:
            known = enumerate(group_keys(place, folder))
        except DamagedError:  # no group, or a damaged one
            continue
        if lost := {f"c.{row}.": key for row, key in known if key in keys[stage]}:
            rows[stage, folder] = lost
    arrays = {
        folder: [f"{folder}/{name}" for name in place.names(folder) if "-" in name] for _, folder in rows
    }
    place.fetch(folders=[array for of_group in arrays.values() for array in of_group])
    written = set()
    for (stage, folder), key_of in rows.items():
        files = (file for array in arrays[folder] for file in place.names(array))
        starts = {".".join(file.split(".")[:2]) + "." for file in files}
        written |= {(stage, key) for start, key in key_of.items() if start in starts}
    return written
