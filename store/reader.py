"""Reading: a store as a labelled xarray tree of its whole cells."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
import zarr

import store.accessor  # noqa: F401  (registers tree.ablation and dataset.ablation)
from store.errors import StoreError, nearest
from store.factors import cell_coordinates, factor_names, with_cells
from store.files import Json
from store.layout import group_name
from store.lazy import lazy_variables
from store.ledger import Ledger
from store.manifests import read_manifests
from store.places import Place, Root, place_of
from store.version import LAYOUT

Records = dict[str, dict[str, Json]]  # stage → key → done record


def open_store(path: Root, experiment: str | None = None) -> xr.DataTree:
    """Open a store, or one experiment of it, as /<experiment>/summary, /<experiment>/<stage>, …

    Every stage node has the dim `cell` (a MultiIndex of the factors) before its own dims; a stage whose
    cells come in several shapes has a child node per shape. Only whole cells are there: those with all
    stages done. Nothing but coordinates and records is read before data is asked for.

    StoreError when the path is missing or no store, the experiment unknown, or a record damaged.
    """
    place = _existing(place_of(path))
    manifests = read_manifests(place)
    if experiment is not None:
        if experiment not in manifests:
            raise StoreError(f"{place}: no experiment {experiment!r}{nearest(experiment, manifests)}")
        manifests = {experiment: manifests[experiment]}
    nodes: dict[str, xr.Dataset] = {}
    for name, manifest in manifests.items():
        for child, dataset in _experiment_nodes(place, manifest).items():
            nodes[f"/{name}{child}"] = dataset
    return xr.DataTree.from_dict(nodes)


def _existing(place: Place) -> Place:
    if absence := place.absence():
        raise StoreError(f"{place}: {absence}")
    found = {*place.names("")}
    if found and not found & {"experiments", "ledger", "results.zarr"}:
        raise StoreError(f"{place}: not a store: expected a folder 'experiments' in it")
    return place


def _experiment_nodes(place: Place, manifest: Json) -> dict[str, xr.Dataset]:
    cells = manifest["cells"]
    ledger = Ledger(place)
    stages = list(dict.fromkeys(stage for cell in cells for stage in cell["keys"]))
    done = {stage: ledger.done(stage) for stage in stages}
    whole = [i for i, cell in enumerate(cells) if all(k in done[s] for s, k in cell["keys"].items())]
    attributes = _attributes(manifest) | {"cells_complete": len(whole), "cells_total": len(cells)}
    nodes = {"": xr.Dataset(attrs=attributes)}
    if not whole:
        return nodes
    records = {
        stage: ledger.records(stage, {cells[i]["keys"][stage] for i in whole if stage in cells[i]["keys"]})
        for stage in stages
    }
    names = factor_names(manifest)
    summary = _summary([cells[i] for i in whole], stages, records, taken=names)
    nodes["/summary"] = summary.assign_coords(cell_coordinates(names, cells, whole))
    for stage in stages:
        nodes |= _stage_nodes(place, stage, names, cells, whole, records)
    return nodes


def _attributes(manifest: Json) -> dict[str, Any]:
    """Return the manifest but its cells as attributes; what a netCDF attribute cannot hold goes as JSON."""
    plain = (str, int, float)
    return {
        name: value if isinstance(value, plain) and not isinstance(value, bool) else json.dumps(value)
        for name, value in manifest.items()
        if name != "cells"
    }


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
    groups = {family: _open_group(place, stage, family) for family in families}
    datasets = {}
    for family, chosen in families.items():
        keys = [cells[i]["keys"][stage] for i in chosen]
        found = [records[stage][key] for key in keys]
        dataset = _family_dataset(groups[family], keys, found)
        dataset.attrs = _common(found)
        datasets[family] = with_cells(dataset, stage, cell_coordinates(names, cells, chosen))
    if len(datasets) <= 1:
        return {f"/{stage}": dataset for dataset in datasets.values()}
    labels = {family: str(group.attrs["label"]) for family, group in groups.items()}
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
    return {name: ", ".join(sorted(found)) for name, found in values.items()}


def _open_group(place: Place, stage: str, family: str) -> zarr.Group:
    name = group_name(stage, family)
    path = f"{place}/{name}"
    try:
        group = place.group(name)
    except FileNotFoundError as error:
        raise StoreError(
            f"{path}: the ledger names this group of {stage} results, but it is missing"
        ) from error
    if (version := group.attrs.get("layout", 1)) not in range(1, LAYOUT + 1):
        raise StoreError(f"{path}: layout {version}; this version of the program reads up to {LAYOUT}")
    return group


def _family_dataset(group: zarr.Group, keys: Sequence[str], records: Sequence[Json]) -> xr.Dataset:
    known: Any = group.attrs["keys"]
    row_of: Mapping[str, int] = {key: row for row, key in enumerate(known)}
    # A record names the row that its own writer filled; by the key alone it is the newest writer's.
    found = [record.get("row", row_of.get(key)) for key, record in zip(keys, records, strict=True)]
    if missing := [key for key, row in zip(keys, found, strict=True) if row is None or row >= len(known)]:
        raise StoreError(f"{group.store_path}: no row of {missing[0]}, which the ledger holds for done")
    rows = np.asarray(found, dtype=np.intp)
    variables: dict[str, xr.Variable] = {}
    coordinates: dict[str, xr.Variable] = {}
    for name, array in group.arrays():
        if "variables" in array.attrs:
            variables |= lazy_variables(array, rows)
        else:
            values = np.asarray(array[:], dtype=array.dtype if array.dtype.kind in "bif" else object)
            dims = array.metadata.dimension_names  # type: ignore[union-attr]
            coordinates[name] = xr.Variable(dims, values, attrs=dict(array.attrs))
    return xr.Dataset(variables, coordinates)
