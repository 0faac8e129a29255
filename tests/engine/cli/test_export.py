"""Exports equal the store value for value; two stores compare; one example shows in a plain terminal."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from commands import engine
from facts import facts, told

from store import (
    Coordinate,
    Family,
    Ledger,
    StoreError,
    StoreWriter,
    Variable,
    open_store,
    read_vocabulary,
    write_manifest,
)
from store.backend.locate import place_of
from store.backend.records import write_json
from store.export import export
from store.ledger.version import mark_new

NODES = {"summary", "base", "train", "evaluate", "probe"}


def datasets(root: Path) -> dict[str, xr.Dataset]:
    """Every node of the store's experiment."""
    found = open_store(root)["small"].children
    return {name: node.to_dataset() for name, node in found.items()}


def same(left: np.ndarray, right: np.ndarray) -> None:
    if left.dtype.kind == "f":
        assert left.dtype == right.dtype
    np.testing.assert_array_equal(left, right)


def test_netcdf_files_hold_every_value_type_and_unit(small_store: Path, tmp_path: Path) -> None:
    output = engine("export", small_store, "--to", "netcdf", "-o", tmp_path).output
    assert str(tmp_path / "small" / "probe.nc") in output.splitlines()
    for name, own in datasets(small_store).items():
        with xr.open_dataset(tmp_path / "small" / f"{name}.nc", engine="h5netcdf") as back:
            assert set(back.variables) == set(own.variables)
            assert back.attrs == own.attrs
            for variable in own.variables:
                assert (
                    back[variable].dims == own[variable].dims and back[variable].attrs == own[variable].attrs
                )
                assert back[variable].dtype.kind == own[variable].dtype.kind or own[variable].dtype == object
                same(own[variable].values, back[variable].values)
    index = xr.open_dataset(tmp_path / "small" / "probe.nc", engine="h5netcdf").set_index(
        cell=["target", "seed"]
    )
    assert index.sel(target="label", seed=1)["entropy"].dims == ("example", "layer", "position")


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_tables_hold_every_value(small_store: Path, tmp_path: Path, form: str) -> None:
    engine("export", small_store, "--to", form, "-o", tmp_path)
    for name, own in datasets(small_store).items():
        left = set(own.data_vars)
        for file in tmp_path.glob(f"small/{name}.*{form}"):
            dims = [
                dim
                for dim in file.name.removeprefix(f"{name}.").removesuffix(form).strip(".").split("-")
                if dim
            ]
            frame = read(file, own)
            assert list(frame.columns[: 2 + len(dims)]) == ["target", "seed", *dims]
            back = frame.set_index(["target", "seed", *dims])
            assert back.index.is_unique
            for variable in left & set(frame.columns):
                values = own[variable].transpose("cell", *dims)
                same(values.values.ravel(), back[variable].to_numpy(values.dtype))
                left.discard(variable)
            for coordinate in ("gold", "watch_id"):
                if coordinate in frame.columns:
                    pairs = dict(
                        zip(own[own[coordinate].dims[0]].values, own[coordinate].values, strict=True)
                    )
                    assert (frame[own[coordinate].dims[0]].map(pairs) == frame[coordinate]).all()
        assert left == set()


def read(file: Path, own: xr.Dataset) -> pd.DataFrame:
    if file.suffix == ".parquet":
        return pd.read_parquet(file)
    header, *rows = csv_fields(file.read_text("utf-8"))
    frame = pd.DataFrame([[bare(field) for field in row] for row in rows], columns=[bare(f) for f in header])
    for name in frame:
        text = own[name].dtype.kind == "O"
        assert frame[name].map(type).eq(str if text else float).all(), f"{file.name}: {name}"
    return frame


def csv_fields(text: str) -> list[list[str]]:
    """The fields of every line, as they stand there, in quotes or not."""
    found = re.findall(r'((?:"(?:[^"]|"")*"|[^",\n]*))([,\n])', text)
    assert "".join(map("".join, found)) == text
    lines: list[list[str]] = [[]]
    for field, end in found:
        lines[-1].append(field)
        if end == "\n":
            lines.append([])
    return lines[:-1]


def bare(field: str) -> str | float:
    """A text, or, where it stands without quotes, a number; NaN where nothing stands there."""
    return field[1:-1].replace('""', '"') if field.startswith('"') else float(field or "nan")


def test_units_and_the_manifest_go_along(small_store: Path, tmp_path: Path) -> None:
    from pyarrow import parquet

    files = export(small_store, "parquet", tmp_path)
    assert all(file.is_file() for file in files) and not list(tmp_path.rglob("*.tmp"))
    schema = parquet.read_schema(tmp_path / "small" / "probe.example-layer-position.parquet")
    assert (
        schema.field("entropy").metadata[b"units"] == b"nat" and str(schema.field("entropy").type) == "float"
    )
    described = json.loads((tmp_path / "small" / "variables.json").read_text())
    assert set(described) == NODES
    assert described["probe"]["variables"]["entropy"] == {
        "dims": ["cell", "example", "layer", "position"], "dtype": "float32", "units": "nat",
        "long_name": "entropy of the lens distribution",
    }  # fmt: skip
    manifest = json.loads((tmp_path / "small" / "manifest.json").read_text())
    kept = json.loads((small_store / "experiments" / "small.json").read_text())
    del kept["blake2b"]  # the record's own checksum
    assert manifest == kept


def test_text_survives_a_csv(tmp_path: Path) -> None:
    from store.export import _csv

    texts = ["", "NaN", 'a "b", c', "line\nend", "\r", "1"]
    frame = pd.DataFrame(
        {"text": texts, "number": np.array([0.1, np.nan, 1e-38, 3, np.inf, -0.0], np.float32)}
    )
    _csv(iter([frame[:3], frame[3:]]), tmp_path / "x.csv")
    with (tmp_path / "x.csv").open(newline="") as lines:
        _, *rows = csv.reader(lines)
    assert [row[0] for row in rows] == texts
    numbers = [float(row[1] or "nan") for row in rows]
    np.testing.assert_array_equal(np.array(numbers, np.float32), frame["number"])


def test_what_is_missing_is_an_empty_field_of_a_csv(tmp_path: Path) -> None:
    from store.export import _csv

    frame = pd.DataFrame(
        {"n": [1.5, np.nan], "i": [1, 2], "b": [True, False], "t": ["", None], "f": np.float32([np.nan, 0.1])}
    )
    _csv(iter([frame, frame]), file := tmp_path / "x.csv")
    assert file.read_text() == '"n","i","b","t","f"\n' + 2 * '1.5,1,True,"",\n,2,False,,0.1\n'
    back = pd.read_csv(file)
    assert back["n"].dtype == back["f"].dtype == float and back["n"].isna().tolist() == 2 * [False, True]


@pytest.fixture
def other_store(small_store: Path, tmp_path: Path) -> Path:
    """The same store after someone has lost two cells, and set another learning rate by hand."""
    root = tmp_path / "other"
    shutil.copytree(small_store, root)
    file = root / "experiments" / "small.json"
    manifest = json.loads(file.read_text())
    manifest["cells"] = manifest["cells"][:2]
    assert {cell["levels"]["target"] for cell in manifest["cells"]} == {"label"}
    manifest["spec"]["train"]["lr"] = 0.5
    manifest["packages"]["torch"] = "1.0"
    manifest["cells"][0]["keys"]["evaluate"] = manifest["cells"][1]["keys"]["evaluate"]
    del manifest["blake2b"]
    write_json(place_of(root), "experiments/small.json", manifest)
    return root


def test_two_stores_compare(small_store: Path, other_store: Path) -> None:
    from engine.cli.compare import compare_stores

    (found,) = compare_stores(small_store, other_store)
    assert found.both == [("label", 0), ("label", 1)]
    assert found.only_a == [("label+explanation", 0), ("label+explanation", 1)] and found.only_b == []
    assert found.equal_keys == 1
    assert ("packages.torch", open_torch(small_store), "1.0") in found.settings
    assert [key for key, *_ in found.settings] == ["spec.train.lr", "packages.torch"]
    accuracy = open_store(small_store)["small/summary"]["accuracy"].sel(target="label")
    expected = float(accuracy.sel(seed=1) - accuracy.sel(seed=0))
    difference = found.numbers["accuracy"].sel(store="B") - found.numbers["accuracy"].sel(store="A")
    np.testing.assert_allclose(difference, [expected, 0])
    low, high = found.intervals["mae"]
    mean = float((found.numbers["mae"].sel(store="B") - found.numbers["mae"].sel(store="A")).mean())
    assert (low < mean < high) or low == mean == high

    output = engine("compare", small_store, other_store, "--cells").output
    assert told(output, "2 cells in both", "1", "2 only in A", "0 only in B")
    assert told(output, "only in A", "target=label+explanation", "seed=1")
    assert "spec.train.lr" in output and told(output, "B − A")
    itself = engine("compare", small_store, small_store, "--experiment", "small").output
    assert told(itself, "4 cells in both", "4") and "no setting and no version" in itself


def open_torch(root: Path) -> str:
    return json.loads((root / "experiments" / "small.json").read_text())["packages"]["torch"]


def test_a_cell_is_shown_in_80_columns_without_colour(small_store: Path) -> None:
    probe = open_store(small_store)["small/probe"].to_dataset().sel(target="label", seed=1)
    texts = read_vocabulary(small_store, probe.attrs["vocabulary"])
    example = str(probe["example"].values[2])
    flags = ("--cell", "target=label,seed=1", "--example", example)
    lines = shown(small_store, *flags, "--position", "completion_end")
    own = probe.sel(example=example, position="completion_end")
    assert f"example {example}, true label {own['gold'].item()}" in lines[0]
    rows = [line.split() for line in lines if line.split()[:1] in (["3"], ["2"], ["1"], ["0"])]
    assert [int(row[0]) for row in rows] == [3, 2, 1, 0]
    for row in rows:
        layer = own.sel(layer=int(row[0]))
        assert float(row[1]) == pytest.approx(float(layer["entropy"]), abs=0.005)
        assert [int(rank.replace(",", "")) for rank in row[-3:]] == layer["watch_rank"].values.tolist()
        assert float(row[-4]) == pytest.approx(float(np.exp(layer["top_logprob"][0])), abs=0.005)
    side = shown(small_store, *flags)
    assert "prompt_end" in side[1] and "completion_end" in side[1]
    word = texts[int(probe.sel(example=example, position="prompt_end", layer=3)["top_id"][0])].strip()
    assert word in side[3] and side[3].split()[0] == "3"


def shown(root: Path, *flags: str) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_COLOR", "1")
        lines = [line for line in engine("show", root, *flags).output.splitlines() if line.strip()]
    assert all(len(line.rstrip()) <= 80 for line in lines) and "\x1b" not in "".join(lines)
    return lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "STORE", "--cell", "target=label"], "one cell … 2 … seed (0, 1)"),
        (["show", "STORE", "--cell", "tarket=label"], "'tarket' … 'target'"),
        (["show", "STORE", "--cell", "seed=7"], "--cell seed=7 … 0, 1"),
        (["show", "STORE", "--cell", "seed"], "expected FACTOR=LEVEL"),
        (
            ["show", "STORE", "--cell", "target=label,seed=0", "--example", "x"],
            "--example x",
        ),
        (
            ["show", "STORE", "--cell", "target=label,seed=0", "--position", "prompt"],
            "'prompt_end'",
        ),
        (["export", "STORE", "--to", "xlsx"], "'xlsx' … 'netcdf' … 'parquet' … 'csv'"),
        (["compare", "STORE", "EMPTY"], "both stores"),
    ],
)
def test_mistakes(small_store: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    mark_new(place_of(tmp_path))
    places = {"STORE": str(small_store), "EMPTY": str(tmp_path)}
    output = engine(*(places.get(argument, argument) for argument in arguments), code=2).output
    assert told(output, message) and "Traceback" not in output


def test_unknown_experiments_and_empty_stores(small_store: Path, tmp_path: Path) -> None:
    output = engine("export", small_store, "--to", "csv", "--experiment", "smal", code=2).output
    assert told(output, "'smal'", "'small'")
    mark_new(place_of(tmp_path))
    with pytest.raises(StoreError, match=facts("complete")):
        export(tmp_path, "csv", tmp_path / "out")
    with pytest.raises(StoreError, match=facts("netcdf", "parquet", "csv", "'cvs'", "'csv'")):
        export(small_store, "cvs", tmp_path / "out")


def test_no_text_in_a_csv_is_run_by_a_spreadsheet(tmp_path: Path) -> None:
    """Levels, texts and column names that begin as formulas get an apostrophe; numbers do not."""
    texts = ["=1+1", "@SUM(A1)", "-2+3", "+x", "\t=1", " =1", "-1", "+2.5", "a=b", ""]
    cells = [
        {"levels": {"=factor": text, "seed": 0}, "keys": {"probe": f"k{n}"}} for n, text in enumerate(texts)
    ]
    root = tmp_path / "store"
    family = Family(
        "probe",
        (Coordinate("example", "example", ["=cmd|x"]),),
        (Variable("text", ("example",), "string"), Variable("x", ("example",), "float32")),
    )
    for n, text in enumerate(texts):
        with StoreWriter(root).cell(family, f"k{n}") as sink:
            sink.append({"text": [text], "x": [-1.0]})
        Ledger(root).commit("probe", f"k{n}", sink.placement)
    write_manifest(root, "study", {"factors": ["=factor", "seed"], "cells": cells})
    safe = ["'=1+1", "'@SUM(A1)", "'-2+3", "'+x", "'\t=1", "' =1", "-1", "+2.5", "a=b", ""]
    for raw, expected, head in ((False, safe, "'=factor"), (True, texts, "=factor")):
        export(root, "csv", tmp_path / "out", raw=raw)
        with (tmp_path / "out/study/probe.example.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row[head] for row in rows] == [row["text"] for row in rows] == expected
        assert {row["x"] for row in rows} == {"-1.0"}
        assert {row["example"] for row in rows} == {"=cmd|x" if raw else "'=cmd|x"}


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_the_card_of_an_export_lets_datasets_read_its_tables(
    small_store: Path, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets as hub

    engine("export", small_store, "--to", form, "-o", tmp_path)
    folder = tmp_path / "small"
    monkeypatch.setattr(hub.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    names = hub.get_dataset_config_names(str(folder))
    assert {f"{name}.{form}" for name in names} == {file.name for file in folder.glob(f"*.{form}")}
    rows = hub.load_dataset(str(folder), "summary", split="train", cache_dir=str(tmp_path / "cache"))
    own = datasets(small_store)["summary"]
    assert len(rows) == own.sizes["cell"] and set(own.data_vars) <= set(rows.column_names)
    card = (folder / "README.md").read_text()
    assert "| target | label, label+explanation |" in card and "| entropy | nat | entropy of the" in card
    (line,) = [line for line in card.splitlines() if f"`probe.example-layer-position.{form}`" in line]
    assert "| cell, example, layer, position |" in line and "entropy" in line and "top_id" not in line


def test_the_card_of_netcdf_files_names_them(small_store: Path, tmp_path: Path) -> None:
    engine("export", small_store, "--to", "netcdf", "-o", tmp_path)
    card = (tmp_path / "small" / "README.md").read_text()
    assert "| `probe.nc` | all of a stage |" in card and "configs:" not in card
