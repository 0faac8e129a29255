"""Stores on disk: what is written comes back, and only once it is whole."""

import json
import subprocess
import sys
import tracemalloc
import warnings

import numpy as np
import pytest
import xarray as xr
import zarr
from facts import facts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store import Coordinate, Family, Ledger, StoreError, StoreWriter, Variable, open_store, write_manifest
from store.arrays import layout
from store.arrays.shards import ShardReader
from store.errors import DamagedError

TYPES = ("float32", "int32", "int16", "bool", "string")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(layout, "BLOCK_BYTES", 4096)


def family(examples=20, layers=3, stage="probe"):
    return Family(
        stage,
        (
            Coordinate("example", "example", range(examples)),
            Coordinate("gold", "example", [f"g{i % 3}" for i in range(examples)]),
            Coordinate("layer", "layer", np.arange(layers), "", "layer of the model"),
        ),
        (
            Variable("entropy", ("example", "layer"), "float32", "nat", "entropy"),
            Variable("logsumexp", ("example", "layer"), "float32", "nat", "log of the sum"),
            Variable("rank", ("example", "layer"), "int32", "1", "rank"),
            Variable("short", ("example",), "int16", "1", "short"),
            Variable("right", ("example",), "bool", "", "right"),
            Variable("answer", ("example",), "string", "", "answer"),
        ),
    )


def data(shape, seed=0):
    """Random values of every variable of a family, by name."""
    rng = np.random.default_rng(seed)

    def draw(variable):
        dims = tuple(shape.sizes[d] for d in variable.dims)
        if variable.dtype == "string":
            return np.array([f"é{n}" for n in rng.integers(0, 99, np.prod(dims))], object).reshape(dims)
        if variable.dtype == "float32":
            return rng.normal(size=dims).astype("f4")
        return rng.integers(0, 2 if variable.dtype == "bool" else 1000, dims).astype(variable.dtype)

    return {v.name: draw(v) for v in shape.variables}


def write(root, shape, key, seed=0, step=7, commit=True, **record):
    values = data(shape, seed)
    with StoreWriter(root).cell(shape, key) as cell:
        for i in range(cell.start, shape.size, step):
            cell.append({name: array[i : i + step] for name, array in values.items()})
    if commit:
        Ledger(root).commit(shape.stage, key, {"family": shape.key, **record})
    return values


def manifest(root, cells, name="study", **extra):
    """A manifest of (levels, keys) pairs."""
    listed = [{"levels": levels, "keys": keys} for levels, keys in cells]
    write_manifest(root, name, {"factors": list(cells[0][0]), "cells": listed, **extra})


def assert_same(dataset, values, **where):
    for name, array in values.items():
        np.testing.assert_array_equal(dataset[name].sel(where).values, array)


def test_every_type_comes_back_with_units_and_coordinates(tmp_path):
    manifest(tmp_path, [({"target": "label", "seed": 0}, {"probe": "a"})], spec={"rank": 8}, git="abc")
    values = write(tmp_path, family(), "a", summary={"accuracy": 0.5, "steps": 3, "note": "x"})
    tree = open_store(tmp_path)
    ds = tree["study/probe"].ds
    assert_same(ds, values, target="label", seed=0)
    assert [str(ds[v].dtype) for v in values] == ["float32", "float32", "int32", "int16", "bool", "object"]
    assert ds.entropy.dims == ("cell", "example", "layer")
    assert ds.entropy.attrs == {"units": "nat", "long_name": "entropy"}
    assert ds.gold.dims == ("example",) and ds.gold.values[1] == "g1"
    assert ds.layer.attrs["long_name"] == "layer of the model" and "layer" in ds.indexes
    assert json.loads(tree["study"].attrs["spec"]) == {"rank": 8}
    assert tree["study"].attrs["git"] == "abc"
    assert tree["study"].attrs["cells_complete"] == tree["study"].attrs["cells_total"] == 1
    assert set(tree["study/summary"].data_vars) == {"accuracy", "steps"}
    assert all({"units", "long_name"} <= v.attrs.keys() for v in tree["study/summary"].data_vars.values())


def test_the_zarr_itself_is_plain_xarray_data(tmp_path):
    shape = family()
    StoreWriter(tmp_path).allocate(shape, ["empty"])
    values = write(tmp_path, shape, "a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # zarr 3.1.0 says of every array of strings that its format is young.
        warnings.filterwarnings("ignore", message="The codec `vlen-utf8`")
        ds = xr.open_zarr(tmp_path / "results.zarr/probe" / shape.key, chunks=None, consolidated=False)
    stack = ds["float32-example-layer"]
    np.testing.assert_array_equal(stack[1, 0], values["entropy"])
    assert np.isnan(stack[0]).all() and np.isnan(ds["int32-example-layer"][0]).all()


def test_a_cell_is_seen_only_when_all_its_stages_are_committed(tmp_path):
    train = family(layers=1, stage="train")
    manifest(tmp_path, [({"seed": s}, {"train": f"t{s}", "probe": f"p{s}"}) for s in (0, 1)])
    write(tmp_path, train, "t0", summary={"loss": 1.0}, units={"loss": "nat"})
    write(tmp_path, family(), "p0", commit=False)
    tree = open_store(tmp_path)
    assert tree["study"].attrs["cells_complete"] == 0 and tree["study"].attrs["cells_total"] == 2
    assert list(tree["study"].children) == []
    Ledger(tmp_path).commit("probe", "p0", {"family": family().key, "summary": {"loss": 2, "mae": 3}})
    tree = open_store(tmp_path, "study")
    assert tree["study/probe"].sizes["cell"] == tree["study/train"].sizes["cell"] == 1
    summary = tree["study/summary"].ds
    assert set(summary.data_vars) == {"train_loss", "probe_loss", "mae"}
    assert summary.train_loss.attrs["units"] == "nat" and summary.probe_loss.item() == 2


def test_sel_and_groupby_by_factor(tmp_path):
    targets, seeds = ["label", "label+explanation"], [0, 1]
    levels = [{"target": t, "rank": None if t == "label" else 8, "seed": s} for t in targets for s in seeds]
    manifest(tmp_path, [(level, {"probe": f"k{i}"}) for i, level in enumerate(levels)])
    values = [write(tmp_path, family(), f"k{i}", seed=i) for i in (2, 0, 3, 1)]
    tree = open_store(tmp_path)
    ds = tree["study/probe"].ds
    assert ds.sel(target="label").sizes["cell"] == 2
    assert ds.sel(target="label").seed.values.tolist() == [0, 1]
    values[3]["probe_rank"] = values[3].pop("rank")  # the factor of that name keeps it
    assert_same(ds, values[3], target="label", seed=1, rank="-")
    means = ds[["entropy"]].groupby("target").mean()
    assert means.target.values.tolist() == targets
    expected = (values[0]["entropy"] + values[2]["entropy"]) / 2
    np.testing.assert_allclose(means.entropy.sel(target="label+explanation"), expected, rtol=1e-5)
    assert ds.seed.dtype.kind == "i" and set(ds["rank"].values) == {"-", "8"}
    assert tree["study/summary"].sizes["cell"] == 4


def test_one_factor_and_a_shared_stage_key(tmp_path):
    cells = [({"evaluation": e}, {"train": "t", "probe": "p" + e}) for e in "abc"]
    manifest(tmp_path, cells)
    train = family(stage="train")
    values = write(tmp_path, train, "t")
    for e in "abc":
        write(tmp_path, family(), "p" + e)
    ds = open_store(tmp_path)["study/train"].ds
    assert ds.sizes["cell"] == 3
    for e in "abc":
        assert_same(ds, values, evaluation=e)
    np.testing.assert_array_equal(ds.entropy.values, np.stack([values["entropy"]] * 3))
    np.testing.assert_array_equal(ds.entropy[::-1, [3, 1], -1], np.stack([values["entropy"][[3, 1], -1]] * 3))
    assert ds.groupby("evaluation").mean("cell").sizes["evaluation"] == 3
    assert ds.isel(cell=[]).entropy.values.shape == (0, 20, 3)


def test_several_families_get_a_node_each(tmp_path):
    shapes = [family(), family(layers=5), family(examples=20)]
    other = Family("probe", shapes[0].coordinates, shapes[0].variables[:1])
    shapes[2] = other  # the first one's label, another key
    manifest(tmp_path, [({"model": f"m{i}", "seed": 0}, {"probe": f"k{i}"}) for i in range(3)])
    values = [write(tmp_path, shape, f"k{i}", seed=i) for i, shape in enumerate(shapes)]
    probe = open_store(tmp_path)["study/probe"]
    names = [f"example20-layer3-{shapes[0].key}", "example20-layer5", f"example20-layer3-{other.key}"]
    assert set(probe.children) == set(names)
    for i, name in enumerate(names):
        assert_same(probe[name].ds, values[i], model=f"m{i}", seed=0)


def test_opening_reads_no_data(tmp_path):
    manifest(tmp_path, [({"seed": 0}, {"probe": "a"})])
    write(tmp_path, family(), "a")
    for path in tmp_path.glob("results.zarr/probe/*/*-*/c.*"):
        path.write_bytes(b"damaged")
    ds = open_store(tmp_path)["study/probe"].ds
    chosen = ds.sel(seed=0).entropy.isel(layer=0)
    assert not chosen.variable._in_memory and "..." in repr(chosen)
    with pytest.raises(Exception, match=r"."):
        chosen.load()


def test_growing_leaves_old_rows_alone(tmp_path):
    write(tmp_path, family(), "a")
    chunks = sorted(tmp_path.glob("results.zarr/probe/*/*/c*"))
    before = [(path.stat().st_mtime_ns, path.read_bytes()) for path in chunks]
    assert StoreWriter(tmp_path).allocate(family(), ["b", "a", "b", "c"]) == {"b": 1, "a": 0, "c": 2}
    write(tmp_path, family(), "c", seed=1)
    assert before == [(path.stat().st_mtime_ns, path.read_bytes()) for path in chunks]


def test_memory_stays_flat_however_long_the_stream(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "BLOCK_BYTES", 2**20)
    shape = Family(
        "probe",
        (Coordinate("example", "example", range(40_000)), Coordinate("layer", "layer", range(128))),
        (Variable("entropy", ("example", "layer"), "float32"),),
    )
    batch = {"entropy": np.random.default_rng(0).normal(size=(500, 128)).astype("f4")}
    with StoreWriter(tmp_path).cell(shape, "a") as cell:
        tracemalloc.start()
        for _ in range(80):
            cell.append(batch)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 * 2**20  # of 20 MiB written


def test_a_writer_says_what_is_wrong_with_a_batch(tmp_path):
    shape = family()
    values = data(shape)
    cell = StoreWriter(tmp_path).cell(shape, "a")
    bad = {
        "lacks": {"entropy": values["entropy"]},
        "expected shape": values | {"entropy": values["entropy"][:, :2]},
        "differ in length": values | {"short": values["short"][:3]},
        "expected int32, found float64": values | {"rank": values["rank"] * 0.5},
        "does not fit": values | {"short": values["short"].astype("i8") + 2**20},
        "strings only": values | {"answer": [None] * 20},
        "only 20 are left": {k: np.concatenate([v, v]) for k, v in values.items()},
    }
    for message, batch in bad.items():
        with pytest.raises(StoreError, match=message):
            cell.append(batch)
    with pytest.raises(StoreError, match="expected 20 items, found 0"):
        cell.close()
    with pytest.raises(StoreError, match="closed"):
        cell.append(values)


def test_cells_of_other_versions_are_marked(tmp_path):
    manifest(tmp_path, [({"seed": s}, {"probe": f"k{s}"}) for s in range(3)])
    for s, torch in enumerate(["2.7.0", "2.8.0", "2.7.0"]):
        assert "versions_mixed" not in open_store(tmp_path)["study"].attrs or s == 2
        write(tmp_path, family(), f"k{s}", provenance={"packages": {"torch": torch, "numpy": str(s)}})
    mixed = open_store(tmp_path)["study"].attrs["versions_mixed"]
    assert mixed.endswith("different versions: torch 2.7.0 (2 stages) and 2.8.0 (1 stages)")


def test_damage_in_a_group_changes_nothing_that_is_read(tmp_path):
    """Metadata and coordinates are the record's; without that it is the group that is whole."""
    manifest(tmp_path, [({"seed": s}, {"probe": f"k{s}"}) for s in (0, 1)])
    for s in (0, 1):
        write(tmp_path, family(), f"k{s}", seed=s, row=s)
    expected = open_store(tmp_path)["study/probe"].to_dataset().load()
    group = tmp_path / layout.group_name("probe", family().key)
    damaged = [*group.glob("**/zarr.json"), *(p for p in group.glob("*/c.0"))]
    assert len(damaged) == 1 + len(layout.stacks(family())) + 2 * len(family().coordinates)
    for file in damaged:
        file.write_bytes(b"torn")
    xr.testing.assert_identical(open_store(tmp_path)["study/probe"].to_dataset().load(), expected)


def test_a_lost_experiment_leaves_the_others_readable(tmp_path):
    for name in "ab":
        manifest(tmp_path, [({"seed": 0}, {"probe": "k"})], name=name)
    values = write(tmp_path, family(), "k")
    (tmp_path / "experiments/a.json").write_text("[]")
    with pytest.raises(DamagedError, match=facts("a.json", "engine verify STORE --fix")):
        open_store(tmp_path)
    assert_same(open_store(tmp_path, "b")["b/probe"].ds, values, seed=0)
    for name in "ab":
        (tmp_path / f"experiments/{name}.json").unlink()
    with pytest.raises(StoreError, match=facts("no experiment")):
        open_store(tmp_path)


def test_what_is_not_a_store_says_so(tmp_path):
    (tmp_path / "runs").mkdir()
    with pytest.raises(StoreError, match=facts("runz", "'runs'")):
        open_store(tmp_path / "runz")
    for folder in (tmp_path / "runs", tmp_path):
        with pytest.raises(StoreError, match="not a store"):
            open_store(folder)
    manifest(tmp_path, [({"seed": 0}, {"probe": "a"})])
    with pytest.raises(StoreError, match=facts("'stduy'", "'study'")):
        open_store(tmp_path, "stduy")


@st.composite
def families(draw):
    dims = draw(st.lists(st.sampled_from(["example", "layer", "position", "top"]), min_size=1, unique=True))
    kinds = {
        "int": st.integers(-9, 9),
        "float": st.floats(allow_nan=False, width=32),
        "text": st.text(st.characters(codec="utf-8", exclude_characters="\0")),
        "bool": st.booleans(),
    }
    coordinates = []
    for dim in dims:
        values = kinds[draw(st.sampled_from(sorted(kinds)))]
        coordinates.append(Coordinate(dim, dim, draw(st.lists(values, min_size=1, max_size=5))))
    variables = [
        Variable(
            f"v{i}",
            (dims[0], *draw(st.lists(st.sampled_from(dims[1:]), unique=True))) if dims[1:] else dims,
            t,
        )
        for i, t in enumerate(draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=4)))
    ]
    return Family("probe", coordinates, variables)


@given(shape=families(), step=st.integers(1, 4), block=st.integers(1, 400))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_family_comes_back(tmp_path_factory, monkeypatch, shape, step, block):
    monkeypatch.setattr(layout, "BLOCK_BYTES", block)
    root = tmp_path_factory.mktemp("store")
    manifest(root, [({"seed": s}, {"probe": f"k{s}"}) for s in (0, 1)])
    values = [write(root, shape, f"k{s}", seed=s, step=step) for s in (0, 1)]
    ds = open_store(root)["study/probe"].ds
    for seed in (0, 1):
        assert_same(ds, values[seed], seed=seed)
    for coordinate in shape.coordinates:
        assert tuple(ds[coordinate.name].values) == coordinate.values


@given(shape=families(), block=st.integers(1, 400), choose=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_shards_are_read_as_zarr_reads_them(tmp_path_factory, monkeypatch, shape, block, choose):
    monkeypatch.setattr(layout, "BLOCK_BYTES", block)
    root = tmp_path_factory.mktemp("store")
    StoreWriter(root).allocate(shape, [f"k{s}" for s in range(6)])  # some rows stay empty
    for s in (0, 2, 3, 4):
        write(root, shape, f"k{s}", seed=s)
    group = zarr.open_group(root / layout.group_name("probe", shape.key), mode="r")
    for stack in layout.stacks(shape):
        array = layout.open_array(group, stack.name)
        reader = ShardReader.of(array)
        assert (reader is None) == (stack.dtype == "string")
        if reader is None:
            continue
        rest = tuple(
            choose.draw(
                st.sampled_from([slice(None), slice(0, 1), slice(None, None, 2), n - 1, np.array([n - 1, 0])])
            )
            for n in array.shape[2:]
        )
        rows = np.array(choose.draw(st.lists(st.integers(0, 5), max_size=9, unique=True)), np.intp)
        for statistic in range(array.shape[1]):
            expected = np.asarray(array[:])[rows, statistic]
            for axis in reversed(range(len(rest))):
                expected = expected[(slice(None),) * (axis + 1) + (rest[axis],)]
            np.testing.assert_array_equal(reader.read(rows, statistic, rest), expected)


@given(shape=families(), block=st.integers(1, 400), checked=st.booleans(), choose=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_blocks_are_written_as_zarr_writes_them(tmp_path_factory, monkeypatch, shape, block, checked, choose):
    """To the bit, in place of a torn file, where some statistics or blocks hold nothing but fill values."""
    monkeypatch.setattr(layout, "BLOCK_BYTES", block)
    monkeypatch.setattr(layout, "CODECS", layout.CODECS if checked else layout.CODECS[:1])
    ours, other = (tmp_path_factory.mktemp("store") for _ in range(2))
    values, size = data(shape), layout.block_size(shape)
    for variable in shape.variables:
        if choose.draw(st.booleans()):
            start = choose.draw(st.integers(0, shape.size - 1)) // size * size
            values[variable.name][start:] = layout.FILL[variable.dtype]
    with StoreWriter(ours).cell(shape, "k") as cell:
        torn = [f"{cell._folder}/{stack.name}" for stack in layout.stacks(shape)]
        for folder, array in zip(torn, cell._arrays, strict=True):
            for file in layout.chunk_files(folder, array, 0, 0):
                (ours / file).write_bytes(b"torn")
        cell.append(values)
    StoreWriter(other).allocate(shape, ["k"])
    group = zarr.open_group(other / layout.group_name("probe", shape.key), mode="r+")
    for stack in layout.stacks(shape):
        array, whole = (
            layout.open_array(group, stack.name),
            np.stack([values[v.name] for v in stack.variables]),
        )
        for start in range(0, shape.size, size):
            array[0, :, start : start + size] = whole[:, start : start + size]
    files = [
        {file.relative_to(root): file.read_bytes() for file in root.glob("results.zarr/probe/*/*/c.*")}
        for root in (ours, other)
    ]
    assert files[0] == files[1]


def test_importing_the_store_is_cheap():
    code = "import store, sys; from store import Ledger, StoreError; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"zarr", "xarray", "numpy", "torch", "pandas", "attrs"} & set(loaded)
