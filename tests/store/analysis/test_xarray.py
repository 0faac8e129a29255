"""What people do with xarray works on the nodes of a store: select, group, save, chunk, pool."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from facts import facts, told
from report_store import Design, write_synthetic

import store
from store import StoreError, open_store
from store.arrays.cell_index import CellIndex

TARGETS = ["label", "label+explanation", "label+filler"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    design = Design({"target": TARGETS, "rank": [8, 16]}, layers=4, examples=10)
    return write_synthetic(tmp_path_factory.mktemp("xarray") / "store", design)


@pytest.fixture
def probe(root: Path) -> xr.Dataset:
    return open_store(root)["synthetic/probe"].to_dataset()


def test_a_table_of_pandas_has_the_factors_as_columns(root: Path) -> None:
    tree = open_store(root)["synthetic"]
    table = tree.ablation.dataframe("accuracy")
    assert list(table) == ["target", "rank", "seed", "accuracy"]
    summary = tree["summary"].to_dataset()
    assert len(table) == summary.sizes["cell"]
    (row,) = table.query("target == 'label+filler' and rank == 16 and seed == 1")["accuracy"]
    assert row == float(summary["accuracy"].sel(target="label+filler", rank=16, seed=1))
    whole = tree.ablation.dataframe()
    assert set(map(str, summary.data_vars)) <= set(whole)
    probed = tree.ablation.dataframe("entropy", stage="probe")
    assert list(probed)[:3] == ["target", "rank", "seed"] and list(probed)[-1] == "entropy"
    assert len(probed) == tree["probe"]["entropy"].size and {"example", "gold", "layer"} <= set(probed)
    layer = probed.query("layer == 3 and target == 'label'")["entropy"].mean()
    assert layer == pytest.approx(
        float(tree["probe"]["entropy"].sel(layer=3, target="label").mean()), rel=1e-5
    )
    with pytest.raises(StoreError, match=facts("accurcy", "accuracy")):
        tree.ablation.dataframe("accurcy")


def test_a_level_selects_as_with_a_multiindex(probe: xr.Dataset) -> None:
    before = probe.ablation.indexed()
    assert isinstance(before.indexes["cell"], pd.MultiIndex)
    for chosen in ({"target": "label"}, {"target": "label", "rank": 8}, {"seed": 1},
                   {"target": "label", "rank": 8, "seed": 1}):  # fmt: skip
        own, other = probe.sel(chosen), before.sel(chosen)
        xr.testing.assert_equal(own.drop_vars(list(own.coords)), other.drop_vars(list(other.coords)))
        for name in ("target", "rank", "seed"):
            assert own[name].dims == other[name].dims and (own[name].values == other[name].values).all()
    with pytest.raises(KeyError, match=facts("target", "'labels'", "label, label")):
        probe.sel(target="labels")
    with pytest.raises(KeyError, match="no level 99"):
        probe.sel(rank=[8, 99])


def test_several_levels_and_slices_select(probe: xr.Dataset) -> None:
    own = probe.sel(target=["label+filler", "label"])
    assert list(dict.fromkeys(own["target"].values)) == ["label+filler", "label"] and own.sizes["cell"] == 8
    assert set(probe.sel(target=slice("label+explanation", None))["target"].values) == set(TARGETS[1:])
    assert set(probe.sel(rank=slice(9, 20))["rank"].values) == {16}
    both = probe.sel(target=["label"], seed=[1, 0])
    assert both["seed"].values.tolist() == [1, 1, 0, 0]
    xr.testing.assert_equal(both.sel(rank=8, seed=1), probe.sel(target=["label"], rank=8, seed=1))
    # What was selected is analysed like the whole, and the difference of two selections is aligned by cell.
    found = probe.sel(target=["label", "label+filler"]).ablation.change("entropy", "target")
    assert found["level"].values.tolist() == ["label+filler"]
    difference = probe["entropy"].sel(target="label+filler") - probe["entropy"].sel(target="label")
    assert difference.sizes["cell"] == 4
    np.testing.assert_allclose(
        difference.mean(["cell", "example"]), found["difference"].isel(level=0), rtol=1e-5
    )


def test_cells_group_by_two_factors(probe: xr.Dataset) -> None:
    found = probe["entropy"].groupby(["target", "rank"]).mean()
    expected = probe["entropy"].sel(target="label", rank=16).mean("seed")
    xr.testing.assert_allclose(
        found.sel(target="label", rank=16, drop=True), expected.drop_vars(["target", "rank"])
    )
    centred = probe["entropy"].groupby("target").map(lambda own: own - own.mean("cell"))
    assert centred.sizes == probe["entropy"].sizes and centred["target"].equals(probe["target"])


@pytest.mark.parametrize("form", ["netcdf", "zarr"])
def test_a_node_that_is_saved_comes_back_and_can_be_asked(root: Path, tmp_path: Path, form: str) -> None:
    tree = open_store(root)["synthetic"]
    for stage in ("summary", "evaluate", "probe"):
        node = tree[stage].to_dataset()
        file = tmp_path / f"{stage}.{form}"
        if form == "netcdf":
            node.to_netcdf(file, engine="h5netcdf")
            back = xr.open_dataset(file, engine="h5netcdf")
        else:
            node.to_zarr(file)
            back = xr.open_zarr(file, chunks=None)
        assert set(back.variables) == set(node.variables)
        for name in node.variables:
            assert (back[name].values == node[name].values).all() or back[name].equals(node[name])
        assert back.set_xindex(["target", "rank", "seed"], CellIndex).sel(target="label").sizes["cell"] == 4
        if stage != "summary":
            name = {"evaluate": "correct", "probe": "entropy"}[stage]
            now, then = (own.ablation.change(name, "target", "label") for own in (back, node))
            xr.testing.assert_allclose(now, then)
    tree.to_netcdf(tmp_path / "all.nc", engine="h5netcdf")
    saved = xr.open_datatree(tmp_path / "all.nc", engine="h5netcdf")["synthetic"]
    assert set(saved.children) == set(tree.children)


def test_the_index_joins_and_is_put_together_again(probe: xr.Dataset) -> None:
    parts = [probe.isel(cell=[5, 3]), probe.isel(cell=[0])]
    assert xr.concat(parts, "cell")["seed"].values.tolist() == [1, 1, 0]
    left, right = xr.align(probe.isel(cell=[0, 1, 2]), probe.isel(cell=[2, 1, 7]), join="inner")
    assert left["seed"].equals(right["seed"]) and left.sizes["cell"] == 2
    outer = xr.align(probe["entropy"].isel(cell=[0]), probe["entropy"].isel(cell=[1]), join="outer")[0]
    assert outer.sizes["cell"] == 2 and np.isnan(outer[1]).all()
    assert probe.isel(cell=0)["target"].item() == "label"
    assert probe.rename(target="goal").sel(goal="label").sizes["cell"] == 4
    unstacked = probe.ablation.indexed()["entropy"].unstack("cell")
    assert unstacked.sizes["target"] == 3 and unstacked.sizes["seed"] == 2


def test_the_accessor_says_what_there_is(root: Path) -> None:
    tree = open_store(root)["synthetic"]
    lines = repr(tree.ablation).splitlines()
    assert len(lines) == len(dir(tree.ablation)) + 1
    assert told(repr(tree.ablation), ".ablation.change(variable, factor)")
    assert isinstance(tree.ablation.indexed()["probe"].to_dataset().indexes["cell"], pd.MultiIndex)


def test_chunks_are_the_store_s_own(root: Path) -> None:
    pytest.importorskip("dask")
    lazy = open_store(root)["synthetic/probe"].to_dataset()
    assert lazy["entropy"].encoding["preferred_chunks"] == {
        "cell": 1,
        "example": 10,
        "layer": 4,
        "position": 2,
    }
    chunked = open_store(root, chunks={})["synthetic/probe"].to_dataset()
    assert chunked["entropy"].chunks == ((1,) * 12, (10,), (4,), (2,))
    wider = open_store(root, chunks={"cell": 4})["synthetic/probe"].to_dataset()
    assert wider["entropy"].chunksizes["cell"] == (4, 4, 4)
    np.testing.assert_array_equal(
        chunked["entropy"].mean("example").values, lazy["entropy"].mean("example").values
    )
    found = (own.ablation.change("entropy", "target", "label") for own in (chunked, lazy))
    xr.testing.assert_allclose(*found)


def test_two_stores_are_pooled_and_paired_by_what_they_share(root: Path, tmp_path: Path) -> None:
    design = Design({"target": TARGETS[:2]}, layers=4, examples=8, seeds=(0, 1, 2))
    other = open_store(write_synthetic(tmp_path / "b", design))
    whole = open_store(root)["synthetic"].ablation.select(rank=8)
    node = store.pool({"a": whole, "b": other}, "model")
    summary = node["summary"].to_dataset()
    assert list(summary.coords) == ["model", "target", "rank", "seed"] and summary.sizes["cell"] == 6 + 6
    found = node.ablation.change("correct", "model", "a")
    a, b = (
        (own["prediction"] == own["gold"]).astype(float)
        for own in (whole["evaluate"].to_dataset(), other["synthetic/evaluate"].to_dataset())
    )
    pairs = [
        float((b.sel(target=t, seed=s) - a.sel(target=t, rank=8, seed=s).isel(example=slice(8))).mean())
        for t in TARGETS[:2]
        for s in (0, 1)
    ]
    assert float(found["difference"].squeeze()) == pytest.approx(np.mean(pairs))
    assert int(found["examples"].squeeze()) == 8 and int(found["seeds"].squeeze()) == 2
    assert node.ablation.change("entropy", "model")["difference"].sizes["layer"] == 4
    with pytest.raises(StoreError, match=facts("factor", "'target'")):
        store.pool({"a": whole, "b": other}, "target")
    with pytest.raises(StoreError, match=facts("two experiments", "1")):
        store.pool({"a": whole}, "model")
    with pytest.raises(StoreError, match=facts("level", "experiment", "list")):
        store.pool([whole, other], "model")
    with pytest.raises(StoreError, match=facts("a", "experiment or a store", "int")):
        store.pool({"a": 3, "b": other}, "model")


def test_stores_are_pooled_by_their_folders(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_synthetic(
            tmp_path / name, Design({"target": ["label", "why"]}, name=name, layers=3, examples=4)
        )
    pooled = store.pool({"first": tmp_path / "a", "second": str(tmp_path / "b")}, "model")
    read = store.pool({"first": open_store(tmp_path / "a"), "second": open_store(tmp_path / "b")}, "model")
    assert pooled["probe"].to_dataset().load().identical(read["probe"].to_dataset().load())
    with pytest.raises(StoreError, match="none: "):
        store.pool({"first": tmp_path / "a", "second": tmp_path / "none"}, "model")
