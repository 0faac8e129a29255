"""Reading: a store as a labelled xarray tree of its whole cells."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

import store.accessor  # noqa: F401  (registers tree.ablation and dataset.ablation)
from specs.common.names import UNTRAINED_STAGES
from store.arrays.cell_axis import cell_index, with_cells
from store.arrays.cell_index import coordinates_of
from store.arrays.families import family_name
from store.arrays.far_files import far_files
from store.arrays.groups import open_group
from store.arrays.layout import group_name
from store.arrays.lazy import LazyRows, lazy_variables
from store.backend.location import Place, Root
from store.backend.records import Json
from store.errors import MEND, DamagedError, StoreError
from store.ledger.ledger import Ledger
from store.ledger.levels import factor_names, level_text
from store.ledger.lost_records import check_records
from store.ledger.manifests import read_manifests, unknown_experiment, unnamed
from store.ledger.overview import fetch_records, overview
from store.ledger.row_keys import GROUP, group_keys
from store.ledger.version import check_store

Records = dict[str, dict[str, Json]]  # stage → key → done record


def open_store(
    path: Root, experiment: str | None = None, *, chunks: Mapping[str, Any] | None = None
) -> xr.DataTree:
    """Open a store, or one experiment of it, as /<experiment>/summary, /<experiment>/<stage>, …

    Every stage node has the dim `cell` before its own dims, and along it the factors as coordinates that
    select (`store.arrays.cell_index`); a stage whose cells come in several shapes has a child node per shape.
    Only whole cells are there: those with all stages done. Nothing but coordinates and records is read before
    data is asked for.

    Args:
        chunks: None for variables that are read whole when asked for; sizes by dim for dask arrays (which
            needs dask), {} for the store's own chunks, which are in every variable's encoding.

    Raises:
        StoreError: when the path is missing or no store, or the experiment unknown.
        DamagedError: when a record is damaged, and, when they are read, for values that are: `engine verify
            STORE --fix` lets the rest be read.
    """
    place = overview(path, experiment)
    check_store(place)
    manifests = read_manifests(place, experiment)
    if experiment is not None and not manifests:
        raise unknown_experiment(place, experiment)
    if not manifests and (trouble := unnamed(place)):
        raise StoreError(trouble)
    nodes: dict[str, xr.Dataset] = {}
    for name, manifest in manifests.items():
        for child, dataset in _experiment_nodes(place, manifest).items():
            nodes[f"/{name}{child}"] = dataset
    if chunks is not None:
        nodes = {name: _chunked(dataset, chunks) for name, dataset in nodes.items()}
    return xr.DataTree.from_dict(nodes)


def _chunked(dataset: xr.Dataset, chunks: Mapping[str, Any]) -> xr.Dataset:
    """Return the variables as dask arrays, in their own chunks but for the dims in `chunks`."""
    variables = {
        name: values.variable.chunk(values.encoding.get("preferred_chunks", {}) | dict(chunks))
        for name, values in dataset.data_vars.items()
    }
    return dataset.assign(variables)


def _experiment_nodes(place: Place, manifest: Json) -> dict[str, xr.Dataset]:
    cells = manifest["cells"]
    ledger = Ledger(place)
    stages = list(dict.fromkeys(stage for cell in cells for stage in cell["keys"]))
    done = {stage: ledger.done(stage) for stage in stages}
    unfinished = [cell for cell in cells if any(k not in done[s] for s, k in cell["keys"].items())]
    check_records(ledger, unfinished)
    # What is measured of the untrained model may come after the stages of the trained ones.
    cells = [cell | {"keys": _there(cell["keys"], done)} for cell in cells]
    whole = [i for i, cell in enumerate(cells) if all(k in done[s] for s, k in cell["keys"].items())]
    attributes = _attributes(manifest) | {"cells_complete": len(whole), "cells_total": len(cells)}
    nodes = {"": xr.Dataset(attrs=attributes)}
    if not whole:
        return nodes
    wanted = {(s, k) for i in whole for s, k in cells[i]["keys"].items()}
    fetch_records(place, wanted)
    records = {
        stage: ledger.records(stage, {cells[i]["keys"][stage] for i in whole if stage in cells[i]["keys"]})
        for stage in stages
    }
    _fetch_families(place, records)
    if mixed := _mixed_versions(records):
        nodes[""].attrs["versions_mixed"] = mixed
    names = factor_names(manifest)
    summary = _summary([cells[i] for i in whole], stages, records, taken=names)
    nodes["/summary"] = summary.assign_coords(coordinates_of(cell_index(names, cells, whole)))
    for stage in stages:
        nodes |= _stage_nodes(place, stage, names, cells, whole, records)
    return nodes


def _fetch_families(place: Place, records: Records) -> None:
    """Ask at once for what is read of the families of some records."""
    named = {
        (stage, r["family"]): r for stage, by_key in records.items() for r in by_key.values() if "family" in r
    }
    groups = {
        f"{group_name(stage, record['family'])}/{GROUP}"
        for stage, by_key in records.items()
        for record in by_key.values()
        if "family" in record and "row" not in record
    }
    place.fetch([family_name(stage, family) for stage, family in named] + sorted(groups))


def _there(keys: dict[str, str], done: dict[str, Any]) -> dict[str, str]:
    """Return the keys of a cell's stages without those of the base model that are not done."""
    return {stage: key for stage, key in keys.items() if stage not in UNTRAINED_STAGES or key in done[stage]}


def _attributes(manifest: Json) -> dict[str, Any]:
    """Return the manifest but its cells as attributes; what a netCDF attribute cannot hold goes as JSON."""
    plain = (str, int, float)
    return {
        name: value if isinstance(value, plain) and not isinstance(value, bool) else json.dumps(value)
        for name, value in manifest.items()
        if name not in ("cells", "history")
    }


# What a number may hang on beside its inputs, and is no part of their key.
_VERSIONED = ("ablation-engine", "torch", "transformers", "peft")


def _mixed_versions(records: Records) -> str:
    """Say which packages were of several versions when the cells' stages were done, "" where none was."""
    versions: dict[str, Counter[str]] = {name: Counter() for name in _VERSIONED}
    for record in (record for by_key in records.values() for record in by_key.values()):
        packages = record.get("provenance", {}).get("packages", {})
        for name in _VERSIONED:
            if name in packages:
                versions[name][str(packages[name])] += 1
    several = {name: counts for name, counts in versions.items() if len(counts) > 1}
    parts = [
        f"{name} {' and '.join(f'{version} ({n} stages)' for version, n in sorted(counts.items()))}"
        for name, counts in several.items()
    ]
    return f"stages of this table were done with different versions: {'; '.join(parts)}" if parts else ""


def _summary(
    cells: Sequence[Json], stages: Sequence[str], records: Records, taken: Sequence[str]
) -> xr.Dataset:
    """Return the numbers of the records' `summary`, NaN where a cell has none.

    A name that several stages use, or a factor has, is told apart by the stage: train_loss, probe_loss.
    """
    columns: dict[tuple[str, str], list[float]] = {}
    units: dict[tuple[str, str], str] = {}
    for i, cell in enumerate(cells):
        for stage in (s for s in stages if s in cell["keys"]):
            record = records[stage][cell["keys"][stage]]
            for name, value in record.get("summary", {}).items():
                if type(value) in (int, float):
                    if (stage, name) not in columns:
                        columns[stage, name] = [float("nan")] * len(cells)
                        units[stage, name] = str(record.get("units", {}).get(name, ""))
                    columns[stage, name][i] = float(value)
    used = [*taken, *(name for _, name in columns)]
    variables = {}
    for (stage, name), column in columns.items():
        attrs = {"units": units[stage, name], "long_name": f"{name.replace('_', ' ')} ({stage})"}
        title = name if used.count(name) == 1 else f"{stage}_{name}"
        variables[title] = xr.Variable("cell", np.asarray(column), attrs=attrs)
    return xr.Dataset(variables)


def stage_result(place: Place, stage: str, key: str, record: Json) -> xr.Dataset:
    """Return what a stage has stored under a key, as its record says; values are read when asked for.

    DamagedError where that cannot be read, StoreError for another version of the layout.
    """
    dataset, _ = _family_dataset(place, stage, record["family"], [key], [record], [f"{stage} {key}"])
    return dataset.isel(cell=0)


def _stage_nodes(
    place: Place,
    stage: str,
    names: Sequence[str],
    cells: Sequence[Json],
    whole: Sequence[int],
    records: Records,
) -> dict[str, xr.Dataset]:
    families: dict[str, list[int]] = {}
    for i in whole:
        key = cells[i]["keys"].get(stage)
        family = records[stage][key].get("family") if key is not None else None
        if family is not None:
            families.setdefault(family, []).append(i)
    datasets, labels = {}, {}
    for family, chosen in families.items():
        keys = [cells[i]["keys"][stage] for i in chosen]
        chosen_records = [records[stage][key] for key in keys]
        described = [f"{stage} {key} ({_levels(cells[i])})" for i, key in zip(chosen, keys, strict=True)]
        dataset, labels[family] = _family_dataset(place, stage, family, keys, chosen_records, described)
        dataset.attrs = _common(chosen_records)
        datasets[family] = with_cells(dataset, stage, coordinates_of(cell_index(names, cells, chosen)))
    if len(datasets) <= 1:
        return {f"/{stage}": dataset for dataset in datasets.values()}
    clashing = {label for label in labels.values() if list(labels.values()).count(label) > 1}
    return {
        f"/{stage}/{label}-{family}" if label in clashing else f"/{stage}/{label}": datasets[family]
        for family, label in labels.items()
    }


def _common(records: Sequence[Json]) -> dict[str, str]:
    """Return the records' `attributes`; where cells differ in one, all its values."""
    values: dict[str, set[str]] = {}
    for record in records:
        for name, value in record.get("attributes", {}).items():
            values.setdefault(name, set()).add(str(value))
    return {name: ", ".join(sorted(texts)) for name, texts in values.items()}


def _levels(cell: Json) -> str:
    return ", ".join(f"{factor}={level_text(level)}" for factor, level in cell["levels"].items())


def _family_dataset(
    place: Place, stage: str, family: str, keys: Sequence[str], records: Sequence[Json], cells: Sequence[str]
) -> tuple[xr.Dataset, str]:
    """Return the dataset of cells that share a family, without their levels, and the family's label."""
    chosen = np.asarray(_rows(place, group_name(stage, family), keys, records), dtype=np.intp)
    group = open_group(place, stage, family, 1 + int(chosen.max()))
    known = zip(chosen.tolist(), records, strict=True)
    chunks = {row: int(record["chunks"]) for row, record in known if "chunks" in record}
    names = dict(zip(chosen.tolist(), cells, strict=True))
    rows = LazyRows(place.now(), group.folder, group.stacks, chunks, names, far_files(place.now()))
    variables: dict[str, xr.Variable] = {}
    for array in group.stacks.values():
        variables |= lazy_variables(rows, array, chosen)
    return xr.Dataset(variables, group.coordinates), group.label


def _rows(place: Place, folder: str, keys: Sequence[str], records: Sequence[Json]) -> list[int]:
    """Return the rows that the records name; where they name none, the newest of their keys."""
    rows = [record.get("row") for record in records]
    if None in rows:
        row_of = {key: row for row, key in enumerate(group_keys(place, folder))}
        rows = [row_of.get(key) if row is None else row for row, key in zip(rows, keys, strict=True)]
    if missing := [key for key, row in zip(keys, rows, strict=True) if type(row) is not int or row < 0]:
        raise DamagedError(f"{place}/{folder}: no row of {missing[0]}, which is done; {MEND}")
    return [int(row) for row in rows if row is not None]
