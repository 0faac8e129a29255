"""Export: an experiment as netCDF files, or as tidy tables in Parquet or CSV, for other programs.

Nothing is rounded, renamed or left out. Beside the data lie the manifest (`manifest.json`: spec, versions,
cells), a list of the variables (`variables.json`: dims, type, units, meaning) and a card (`README.md`).
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import xarray as xr

from specs.common.names import EXPORT_FORMATS, ExportFormat
from specs.common.spelling import alike
from specs.common.spreadsheets import no_formula
from specs.common.whole_files import whole_file
from store.backend.locate import place_of
from store.backend.location import Root
from store.backend.records import json_text
from store.errors import StoreError
from store.export_card import CARD, export_card
from store.follow import Follow, ignored
from store.ledger.manifests import read_manifests
from store.reader import open_store

ROWS = 500_000  # of a table that are in memory at a time, or those of one cell


def export(
    root: Root,
    form: ExportFormat,
    folder: str | os.PathLike[str],
    experiment: str | None = None,
    *,
    raw: bool = False,
    follow: Follow = ignored,
) -> list[Path]:
    """Write the whole cells of a store, or of one experiment, to `folder`/EXPERIMENT/; return the files.

    netcdf: one netCDF-4 file per node (summary.nc, probe.nc, …), the cells' factors as coordinates on `cell`.
    parquet, csv: a node's variables of equal dims are the columns of one table, beside the factors and the
    other dims (probe.example-layer-position.parquet, …): a row per cell, or per entry of a cell. A file is
    there whole or not at all; an older one is replaced. Unless `raw`, text that a spreadsheet would run as a
    formula has an apostrophe before it in CSV files. `follow` is told of every node. StoreError when there is
    nothing to export.
    """
    if form not in EXPORT_FORMATS:
        expected = f"expected one of {', '.join(EXPORT_FORMATS)}"
        raise StoreError(f"export: {expected}, found {form!r}{alike(form, EXPORT_FORMATS)}")
    tree, manifests = open_store(root, experiment), read_manifests(root, experiment)
    written: list[Path] = []
    total = sum(bool(child.data_vars) for node in tree.children.values() for child in node.subtree)
    done = 0
    for name, node in tree.children.items():
        stages = [child for child in node.subtree if child.data_vars]
        if not stages:
            continue
        place, files = Path(folder) / name, []
        described = {}
        for stage in stages:
            title = stage.relative_to(node).replace("/", ".")
            follow(done, total, f"{name}: {title}")
            done += 1
            dataset = stage.to_dataset()
            described[title] = {"attributes": dict(dataset.attrs), "variables": _described(dataset)}
            if form == "netcdf":
                files.append(_netcdf(dataset, place / f"{title}.nc"))
            else:
                files += _tables(dataset, place, title, form, raw=raw)
        for file, content in (("manifest.json", manifests[name]), ("variables.json", described)):
            place_of(place).write(file, json_text(content, place / file))
        place_of(place).write(CARD, export_card(name, manifests[name], described, files).encode())
        written += [*files, *(place / file for file in ("manifest.json", "variables.json", CARD))]
    if not written:
        raise StoreError(f"{root}: no complete cell to export; `engine status` says what is there")
    return written


def _described(dataset: xr.Dataset) -> dict[str, Any]:
    return {
        str(name): {"dims": list(map(str, values.dims)), "dtype": _kind(values.dtype), **values.attrs}
        for name, values in dataset.variables.items()
    }


def _kind(dtype: np.dtype[Any]) -> str:
    return "string" if dtype.kind in "OUT" else str(dtype)


def _netcdf(dataset: xr.Dataset, file: Path) -> Path:
    numeric = [name for name, values in dataset.data_vars.items() if values.dtype.kind in "if"]
    with whole_file(file) as temporary:
        dataset.to_netcdf(temporary, engine="h5netcdf", encoding={name: {"zlib": True} for name in numeric})
    return file


def _tables(dataset: xr.Dataset, place: Path, title: str, form: ExportFormat, *, raw: bool) -> list[Path]:
    """Write a node's variables, those of equal dims to one table, some cells at a time."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, values in dataset.data_vars.items():
        groups.setdefault(tuple(str(dim) for dim in values.dims if dim != "cell"), []).append(str(name))
    written = []
    for dims, names in groups.items():
        file = place / f"{'.'.join(filter(None, [title, '-'.join(dims)]))}.{form}"
        with whole_file(file) as temporary:
            frames = _frames(dataset[names], dims)
            if form == "parquet":
                _parquet(frames, dataset, temporary)
            else:
                _csv(frames if raw else map(_as_text, frames), temporary)
        written.append(file)
    return written


def _frames(dataset: xr.Dataset, dims: tuple[str, ...]) -> Iterator[pd.DataFrame]:
    """Yield the rows of some cells after the other; columns: factors, dims, other coordinates, variables."""
    factors = [str(name) for name, values in dataset.coords.items() if values.dims == ("cell",)]
    others = [str(name) for name in dataset.coords if name not in (*factors, *dims)]
    dataset = dataset.drop_indexes([name for name in factors if name in dataset.xindexes])
    step = max(1, ROWS // max(1, math.prod(dataset.sizes[dim] for dim in dims)))
    for start in range(0, dataset.sizes["cell"], step):
        part = dataset.isel(cell=slice(start, start + step))
        frame = part.to_dataframe(dim_order=["cell", *dims]).reset_index()
        yield frame[[*factors, *dims, *others, *map(str, dataset.data_vars)]]


def _parquet(frames: Iterator[pd.DataFrame], dataset: xr.Dataset, file: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    writer = None
    for frame in frames:
        table = pa.Table.from_pandas(frame, preserve_index=False)
        if writer is None:
            described = [field.with_metadata(dataset[field.name].attrs) for field in table.schema]
            schema = pa.schema(described)
            writer = parquet.ParquetWriter(file, schema, compression="zstd")
        writer.write_table(table.cast(schema))
    if writer is not None:
        writer.close()


def _as_text(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose texts, column names too, no spreadsheet takes for formulas."""
    texts = {
        name: [no_formula(value) for value in column]
        for name, column in frame.items()
        if column.dtype.kind not in "biufc"
    }
    return frame.assign(**texts).rename(columns=no_formula)


def _csv(frames: Iterator[pd.DataFrame], file: Path) -> None:
    """Write text in quotes and numbers without: the label "1" is no number. What is missing is empty."""
    with file.open("w", encoding="utf-8", newline="") as lines:
        for number, frame in enumerate(frames):
            if number == 0:
                lines.write(",".join(map(_field, frame.columns)) + "\n")
            columns = [_fields(frame[name]) for name in frame]
            lines.writelines(",".join(row) + "\n" for row in zip(*columns, strict=True))


def _fields(column: pd.Series) -> list[str]:
    texts = column.map(_field) if column.dtype.kind == "O" else column.to_numpy().astype(str)
    fields: list[str] = np.where(column.isna(), "", texts).tolist()
    return fields


def _field(value: Any) -> str:
    return '"{}"'.format(value.replace('"', '""')) if isinstance(value, str) else str(value)
