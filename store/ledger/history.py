"""The history of an experiment: what was declared and when, and each look at its results.

`history/NAME/` holds one small file for each record, numbered in order. Records are only ever added, and each
names the BLAKE2b of the one before; the experiment's manifest has the number of records, and the last one's.
So `engine verify` finds one that was changed or taken out, or that all are gone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

from attrs import frozen

from store.backend.locate import place_of
from store.backend.location import Place, Root
from store.backend.records import Json, create_json, read_json, write_json
from store.errors import MEND, DamagedError, StoreError
from store.lease.lock import locked
from store.ledger.ledger import Ledger
from store.ledger.levels import level_text

DECLARED, LOOK, LOST = "declared", "look", "lost"
_NUMBERED = re.compile(r"[0-9]{6,}\.json")
KEYS = ("primary", "family", "monitoring", "looks", "smallest_difference_of_interest")
"""Of `[analysis]`: what a declaration consists of, beside the contrasts."""
NOT_RECORDED = "not recorded"


@frozen
class Standing:
    """How a contrast in an outcome stands: confirmatory, exploratory or not recorded; and why."""

    mark: str
    why: str


@frozen
class History:
    """The records of one experiment, in order."""

    records: tuple[Json, ...] = ()

    @property
    def declarations(self) -> list[Json]:
        """The declarations, the one in force last."""
        return [record for record in self.records if record["kind"] == DECLARED]

    @property
    def looks(self) -> list[Json]:
        """The looks at results."""
        return [record for record in self.records if record["kind"] == LOOK]

    @property
    def gaps(self) -> list[str]:
        """The dates on which it was noted that records were missing."""
        return [record["date"][:10] for record in self.records if record["kind"] == LOST]

    def looked(self, factor: str, seeds: int) -> list[int]:
        """Return the numbers of seeds, fewer than `seeds`, with which a contrast was looked at."""
        looks = (look for look in self.looks if any(factor == made[0] for made in look["contrasts"]))
        return sorted(
            {most for look in looks if 0 < (most := max(look["seeds"].values(), default=0)) < seeds}
        )

    def standing(self, factor: str, baseline: Any, level: Any, outcome: str, stage: str) -> Standing:
        """Return how a contrast of a level in an outcome, which a stage measures, stands."""
        if not self.declarations:
            return Standing(NOT_RECORDED, "the store does not say when it was declared")
        *before, now = self.declarations
        asked = _asked(now, factor, baseline, level, outcome)
        if asked is None:
            return Standing("exploratory", "the spec does not declare it")
        if asked[0] != outcome:
            return Standing(
                "exploratory", f"the primary outcome is {asked[0]}" if asked[0] else "no primary outcome"
            )
        first = now
        for earlier in reversed(before):
            if _asked(earlier, factor, baseline, level, outcome) != asked:
                break
            first = earlier
        results_then = first["results"].get(factor, {}).get(_text(level), {}).get(stage, 0)
        if not results_then:
            return Standing("confirmatory", f"declared on {first['date'][:10]}, before there were results")
        changed = "" if first is self.declarations[0] else ", as it is now,"
        return Standing(
            "exploratory",
            f"declared{changed} on {first['date'][:10]}, when {results_then} of the cells had results",
        )

    def changes(self) -> list[str]:
        """Return in words what was declared otherwise after there were results, and when."""
        lines = []
        for before, now in zip(self.declarations, self.declarations[1:], strict=False):
            most = max((n for counts in _counts(now) for n in counts.values()), default=0)
            what = _differences(before, now)
            if most and what:
                lines.append(
                    f"{now['date'][:10]}, when up to {most} of a level's cells had results: {'; '.join(what)}"
                )
        return lines


def read_history(root: Root, name: str) -> History:
    """Return the history of an experiment, empty where there is none; DamagedError for one with gaps."""
    place = place_of(root)
    if missing := gap(place, name):
        raise DamagedError(
            f"{missing}; `engine verify STORE --fix` notes that, and results can be read again"
        )
    return _history(place, name)


def _history(place: Place, name: str) -> History:
    return History(tuple(read_json(place, file) for file in _files(place, name)))


def declare(place: Place, name: str, manifest: Mapping[str, Any]) -> None:
    """Record what a manifest's spec asks of the results, where that is not what was declared last.

    With it goes how many cells of each level had results by then, stage by stage.
    """
    if "analysis" not in (spec := manifest.get("spec", {})):
        return
    cells: Sequence[Json] = manifest["cells"]
    contrasts = [
        {"factor": entry["factor"], "baseline": _text(entry["baseline"]), "levels": _levels(entry, cells)}
        for entry in spec.get("contrasts", [])
    ]
    declared = {
        **{key: spec["analysis"].get(key) for key in KEYS},
        "contrasts": contrasts,
        "seeds": sorted({_text(cell["levels"].get("seed")) for cell in cells}),
        "cells": _digest(sorted(key for cell in cells for key in cell["keys"].values())),
    }
    declared = json.loads(json.dumps(declared))
    if gap(place, name):
        note_gap(place, name)
    known = _history(place, name).declarations
    if known and known[-1]["declared"] == declared:
        return
    done = {stage: Ledger(place).done(stage) for stage in ("evaluate", "probe")}
    results: dict[str, dict[str, dict[str, int]]] = {}
    for declared_contrast in contrasts:
        results.setdefault(declared_contrast["factor"], {}).update(_results(declared_contrast, cells, done))
    append(place, name, {"kind": DECLARED, "spec": _digest(spec), "declared": declared, "results": results})


def record_look(
    root: Root, name: str, command: str = "Python", contrasts: Iterable[Sequence[Any]] | None = None
) -> str:
    """Record that results of an experiment were looked at, once for the same contrasts of the same results.

    Commands record their own looks; analyses called from Python record none, for what a call is for cannot be
    told.

    Args:
        contrasts: (factor, baseline) of each, by default those that the spec declares.

    Returns:
        "", or why it could not be recorded; looking is not kept from whoever may not write.
    """
    place = place_of(root)
    try:
        manifest = read_json(place, f"experiments/{name}.json")
        seeds, data = _seen(place, manifest)
        if contrasts is None:
            declared = manifest.get("spec", {}).get("contrasts", [])
            contrasts = [(contrast["factor"], contrast["baseline"]) for contrast in declared]
        look = {
            "data": data,
            "contrasts": [[str(factor), _text(baseline)] for factor, baseline in contrasts],
            "seeds": seeds,
        }
        if not seeds or any(look.items() <= earlier.items() for earlier in read_history(place, name).looks):
            return ""
        append(place, name, {"kind": LOOK, "command": command, "spec": _digest(manifest.get("spec")), **look})
        with locked(place):
            _count(place, name)
    except (OSError, StoreError) as error:
        reason = str(error)
        if isinstance(error, OSError) and error.filename:  # str gives it with its number, and quoted
            reason = f"{error.filename}: {error.strerror}"
        return f"{name}: this look at the results is not recorded in the store: {reason}"
    return ""


def append(place: Place, name: str, record: Mapping[str, Any]) -> None:
    """Add a record behind all others, whichever process adds one meanwhile."""
    while True:
        files = _files(place, name)
        former = _hash(place.read(files[-1])) if files else ""
        number = _number(files[-1]) + 1 if files else 1
        dated = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "former": former, **record}
        if create_json(place, f"history/{name}/{number:06}.json", dated):
            return


def recorded(place: Place, name: str) -> Json:
    """Return what a manifest says of its history: the number of the last record, and its BLAKE2b."""
    files = _files(place, name)
    last = _number(files[-1]) if files else 0
    return {"records": last, "last": _hash(place.read(files[-1])) if files else ""}


def _count(place: Place, name: str) -> None:
    """Let the manifest say how long the history is by now; to be called under the store's lock."""
    try:
        manifest = read_json(place, file := f"experiments/{name}.json")
    except (FileNotFoundError, DamagedError):
        return
    if manifest.get("history") != (now := recorded(place, name)):
        write_json(place, file, {**manifest, "history": now})


def damaged(place: Place) -> Iterator[tuple[str, str, DamagedError]]:
    """Yield experiment, file and error for every record that is not as it was written."""
    for name in histories(place):
        for file in _files(place, name):
            try:
                read_json(place, file)
            except FileNotFoundError:
                yield name, file, DamagedError(f"{place}/{file}: a link that leads nowhere; {MEND}")
            except DamagedError as error:
                yield name, file, error


def gap(place: Place, name: str) -> str:
    """Say where records of a history are missing, or changed, and nobody has noted it; "" where none are."""
    former, place_of_gap = "", ""
    files = _files(place, name)
    for number, file in enumerate(files, 1):
        try:
            record = read_json(place, file)
        except (DamagedError, FileNotFoundError):  # found by itself
            return ""
        if record["kind"] == LOST:
            place_of_gap = ""
        elif record["former"] != former or (number == 1 and _number(file) != 1):
            place_of_gap = f"{file}: a record before it is missing, or was changed"
        former = _hash(place.read(file))
    if place_of_gap:
        return f"{place}/{place_of_gap}"
    try:
        known = read_json(place, f"experiments/{name}.json").get("history", {})
    except (DamagedError, FileNotFoundError):
        return ""
    last = known.get("records", 0)
    by_number = {_number(file): file for file in files}
    if last and (last not in by_number or _hash(place.read(by_number[last])) != known["last"]):
        return f"{place}/history/{name}: record {last}, which the manifest names, is missing, or was changed"
    return ""


def note_gap(place: Place, name: str) -> None:
    """Note in a history that records are missing, whatever they said."""
    append(place, name, {"kind": LOST})


def accept_gap(place: Place, name: str) -> None:
    """Note that records are missing, where that is so, and let the manifest go on from there."""
    with locked(place):
        if gap(place, name):
            note_gap(place, name)
        _count(place, name)


def noted_gaps(place: Place) -> Iterator[str]:
    """Say of each history in which records are known to be missing."""
    for name in histories(place):
        try:
            dates = _history(place, name).gaps
        except (DamagedError, FileNotFoundError):  # found by itself
            continue
        if dates:
            yield f"{place}/history/{name}: records before {dates[-1]} are missing; others are as written"


def histories(place: Place) -> list[str]:
    """Return the experiments that have a history, by the names of its folders."""
    return sorted(name for name in place.names("history") if _files(place, name))


def is_numbered(name: str) -> bool:
    """Tell whether a file has the name of a record."""
    return _NUMBERED.fullmatch(name.removesuffix(".damaged")) is not None


def _number(file: str) -> int:
    return int(file.rpartition("/")[2].removesuffix(".json"))


def _files(place: Place, name: str) -> list[str]:
    known = sorted(file for file in place.names(f"history/{name}") if _NUMBERED.fullmatch(file))
    return [f"history/{name}/{file}" for file in known]


def _levels(contrast: Mapping[str, Any], cells: Sequence[Json]) -> list[str]:
    """Return the levels that a contrast compares, as text."""
    known = dict.fromkeys(_text(cell["levels"].get(contrast["factor"])) for cell in cells)
    chosen = known if contrast.get("levels") is None else map(level_text, contrast["levels"])
    return [level for level in chosen if level != _text(contrast["baseline"])]


def _results(
    contrast: Mapping[str, Any], cells: Sequence[Json], done: Mapping[str, Collection[str]]
) -> dict[str, dict[str, int]]:
    """Count the cells of each level that have results, by stage."""
    counts = {level: dict.fromkeys(done, 0) for level in contrast["levels"]}
    for cell in cells:
        level = _text(cell["levels"].get(contrast["factor"]))
        for stage, keys in done.items() if level in counts else ():
            counts[level][stage] += cell["keys"].get(stage) in keys
    return counts


def _seen(place: Place, manifest: Json) -> tuple[dict[str, int], str]:
    """Return the seeds of each condition whose cells are complete, and a digest of what these hold."""
    ledger = Ledger(place)
    done = {
        stage: ledger.done(stage) for stage in {stage for cell in manifest["cells"] for stage in cell["keys"]}
    }
    whole = [
        cell for cell in manifest["cells"] if all(key in done[stage] for stage, key in cell["keys"].items())
    ]
    seeds: dict[str, int] = {}
    for cell in whole:
        condition = ", ".join(f"{k}={_text(v)}" for k, v in cell["levels"].items() if k != "seed")
        seeds[condition or "all"] = seeds.get(condition or "all", 0) + 1
    return seeds, _digest(sorted(key for cell in whole for key in cell["keys"].values()))


def _asked(record: Json, factor: str, baseline: Any, level: Any, outcome: str) -> tuple[Any, ...] | None:
    """Return what a declaration says of a contrast of a level in an outcome; None where nothing."""
    terms = record["declared"]
    named = (
        made["factor"] == factor and made["baseline"] == _text(baseline) and _text(level) in made["levels"]
        for made in terms["contrasts"]
    )
    smallest = (terms["smallest_difference_of_interest"] or {}).get(outcome)
    return (
        (
            terms["primary"],
            terms["family"],
            terms["monitoring"],
            terms["looks"],
            smallest,
        )
        if any(named)
        else None
    )


def _counts(record: Json) -> list[dict[str, int]]:
    return [counts for by_level in record["results"].values() for counts in by_level.values()]


def _differences(before: Json, now: Json) -> list[str]:
    """Return in words in what two declarations differ."""
    a, b = before["declared"], now["declared"]
    differing = [
        f"{key.replace('_', ' ')} {_spelled(a[key])} → {_spelled(b[key])}" for key in KEYS if a[key] != b[key]
    ]
    made = [[f"{test['factor']} against {test['baseline']}" for test in side["contrasts"]] for side in (a, b)]
    differing += [f"contrast {name} added" for name in made[1] if name not in made[0]]
    differing += [f"contrast {name} taken out" for name in made[0] if name not in made[1]]
    if made[0] == made[1] and a["contrasts"] != b["contrasts"]:
        differing.append("levels compared changed")
    if a["seeds"] != b["seeds"]:
        differing.append(f"{len(a['seeds'])} → {len(b['seeds'])} seeds")
    elif a["cells"] != b["cells"]:
        differing.append("other cells or settings")
    return differing


def _text(level: Any) -> str:
    """Return a level as text, whether it comes from JSON or an array."""
    return level_text(level)


def _spelled(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {entry}" for key, entry in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _digest(value: Any) -> str:
    return _hash(json.dumps(value, sort_keys=True, default=str).encode())


def _hash(text: bytes) -> str:
    return blake2b(text, digest_size=16).hexdigest()
