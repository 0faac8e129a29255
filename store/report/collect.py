"""From a store to the plain data of its report: every section, or a sentence on what it lacks."""

import json
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
import tomlkit
import xarray as xr

from store.analysis.nodes import SEED, spell
from store.arrays.cell_axis import cell_index
from store.backend.locate import place_of
from store.backend.location import Root
from store.backend.records import Json
from store.errors import FAULTS, StoreError
from store.follow import Follow, ignored
from store.ledger.history import read_history
from store.ledger.ledger import Ledger
from store.ledger.levels import factor_names, level_text
from store.ledger.manifests import cells as manifest_cells
from store.ledger.manifests import read_manifests
from store.reader import open_store
from store.report import outcomes, probing
from store.report.along import along
from store.report.contrasts import contrasts
from store.report.faithfulness import faithfulness
from store.report.interventions import interventions
from store.report.panels import ReportSource, panels
from store.report.samples import SAMPLE_BYTES, samples
from store.report.tuned import tuned
from store.report.wordings import by_wording

# By what the page calls them.
SECTIONS: dict[str, Callable[[ReportSource], Json]] = {
    "results": lambda source: _with_versions(outcomes.results(source.node, source.places), source.node),
    "contrasts": lambda source: contrasts(
        source.node, source.spec, source.places, read_history(source.root, source.name)
    ),
    "confusion": lambda source: outcomes.confusions(source.node, source.places),
    "calibration": lambda source: outcomes.calibration(source.node, source.places),
    "training": lambda source: outcomes.training(source.node, source.places),
    "transfer": lambda source: outcomes.transfer(source.node, source.spec),
    "failures": lambda source: outcomes.signatures(source.node, source.spec, source.places),
    "interventions": lambda source: interventions(source.node, source.spec, source.places),
    "faithfulness": lambda source: faithfulness(source.node, source.places),
    "wordings": lambda source: by_wording(source.node, source.spec),
    "layers": lambda source: probing.layers(source.node, source.places),
    "along": lambda source: along(source.node, source.places),
    "tuned": lambda source: tuned(source.node, source.spec, source.places),
    "saturation": lambda source: probing.saturations(source.node, source.spec, source.places),
    "samples": lambda source: samples(source.root, source.node, source.places, source.budget),
}
PROVENANCE = ("packages", "python", "git", "hardware")


def collect(root: Root, experiment: str | None = None, follow: Follow = ignored) -> Json:
    """Return the report's data: plain JSON values, one entry per experiment.

    StoreError when the store has no experiment, or not the one that is asked for. Before each section
    `follow` is told how many of all are there, and what the next one is.
    """
    tree = open_store(root, experiment)
    manifests = read_manifests(root, experiment)
    names = list(tree.children)
    if not names:
        raise StoreError(f"{root}: no experiment to report on; `engine execute` makes one")
    return {
        "store": str(place_of(root).absolute()).rpartition("/")[2],
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "experiments": [
            _experiment(
                root,
                name,
                manifests[name],
                tree.children[name],
                SAMPLE_BYTES // len(names),
                partial(_follow_part, follow, part, len(names), name),
            )
            for part, name in enumerate(names)
        ],
    }


def _follow_part(follow: Follow, part: int, parts: int, name: str, section: str) -> None:
    done = part * len(SECTIONS) + list(SECTIONS).index(section)
    follow(done, parts * len(SECTIONS), f"{name}: {section}")


def _experiment(
    root: Root, name: str, manifest: Json, node: xr.DataTree, budget: int, follow: Callable[[str], None]
) -> Json:
    names = factor_names(manifest)
    listed = manifest_cells(root, name)
    index = cell_index(names, listed, range(len(listed)))
    factors = [factor for factor in names if factor != SEED]
    levels = [
        {factor: level_text(level) for factor, level in zip(names, cell, strict=True) if factor != SEED}
        for cell in index
    ]
    labels = [
        spell(factors, [level for n, level in zip(names, cell, strict=True) if n != SEED]) for cell in index
    ]
    conditions = dict(zip(labels, levels, strict=True))
    places = {label: number for number, label in enumerate(conditions)}
    source = ReportSource(root, name, node, manifest.get("spec", {}), places, budget)
    return {
        "name": name,
        "factors": [
            {"name": factor, "levels": list(dict.fromkeys(level[factor] for level in levels))}
            for factor in factors
        ],
        "conditions": [
            {"label": label, "levels": levels, "cells": labels.count(label)}
            for label, levels in conditions.items()
        ],
        "cells": _cells(Ledger(root), listed, index, [places[label] for label in labels]),
        **_sections(source, follow),
        "panels": panels(source),
        "provenance": _provenance(Ledger(root), manifest, listed, node),
    }


def _sections(source: ReportSource, follow: Callable[[str], None]) -> Json:
    sections: Json = {}
    for title, section in SECTIONS.items():
        follow(title)
        sections[title] = _or_reason(partial(section, source))
    return sections


def _with_versions(results: Json, node: xr.DataTree) -> Json:
    """Warn where the results come from different versions of packages."""
    if mixed := node.attrs.get("versions_mixed"):
        warnings.warn(str(mixed), UserWarning, stacklevel=2)
    return results


def _or_reason(section: Callable[[], Json]) -> Json:
    """Return a section's data with the warnings that came with it, or why the store does not allow it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            section_data = section()
        except FAULTS:
            raise
        except StoreError as error:
            return {"missing": str(error)}
    warned = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
    return section_data | {"warnings": list(dict.fromkeys(warned))}


def _cells(ledger: Ledger, listed: list[Json], index: pd.MultiIndex, conditions: list[int]) -> list[Json]:
    cell_states = []
    for cell, key, condition in zip(listed, index, conditions, strict=True):
        seed = key[index.names.index(SEED)] if SEED in index.names else ""
        states = cell["status"]
        row = {"condition": condition, "seed": str(seed), "state": _state(list(states.values()))}
        for stage in (stage for stage, state in states.items() if state == "failed"):
            record = ledger.record(stage, cell["keys"][stage], "failed")
            row |= {"stage": stage, "traceback": str(record.get("traceback", record.get("message", "")))}
            break
        cell_states.append(row)
    return cell_states


def _state(states: list[str]) -> str:
    for state in ("failed", "running", "pending"):
        if state in states:
            return state
    return "done"


def _provenance(ledger: Ledger, manifest: Json, listed: list[Json], node: xr.DataTree) -> Json:
    seconds: dict[str, float] = {}
    for stage, key in sorted({(stage, cell["keys"][stage]) for cell in listed for stage in cell["keys"]}):
        if key in ledger.done(stage):
            seconds[stage] = seconds.get(stage, 0.0) + float(ledger.record(stage, key).get("seconds", 0))
    backends = {str(part.attrs["backend"]) for part in node.subtree if "backend" in part.attrs}
    return {
        "spec": tomlkit.dumps(_filled(manifest.get("spec", {}))),
        "settings": dict(_flat(_filled(manifest.get("spec", {})))),
        "seconds": {stage: round(total, 1) for stage, total in seconds.items()},
        "backend": ", ".join(sorted(backends)),
        **{name: manifest[name] for name in PROVENANCE if name in manifest},
    }


def _flat(table: Json, above: str = "") -> Iterator[tuple[str, str]]:
    """Yield the keys of a spec, dotted, with their values as JSON."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", json.dumps(value, ensure_ascii=False)


def _filled(value: Any) -> Any:
    """Return JSON values without nulls, which TOML does not have."""
    if isinstance(value, dict):
        return {key: _filled(entry) for key, entry in value.items() if entry is not None}
    if isinstance(value, list):
        return [_filled(entry) if entry is not None else json.dumps(None) for entry in value]
    return value
