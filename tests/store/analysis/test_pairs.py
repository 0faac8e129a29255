"""Contrasts pair the cells that a spec's contrasts pair, lazily, and say what cannot be paired."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from analysis_data import cells, crossed, probe
from facts import facts, told

from specs import load_spec, resolve
from store import StoreError
from store.analysis import (
    change,
    clusters,
    contrast,
    contrasts,
    dataframe,
    detect_failures,
    effects,
    intervention_effects,
    layer_specialisation,
    select,
    sign_flip,
    similarity,
)
from store.analysis.nodes import stage_node, with_cell_index
from store.analysis.pairs import find_pairs
from store.arrays.cell_axis import cell_index
from store.arrays.cell_index import coordinates_of

BASE = 'name = "demo"\nseeds = [0, 1]\nmodel.id = "m"\ndata.source = "s"\n'
DESIGNS = {
    "plain": """
[factors.r]
path = "lora.r"
values = [4, 8, 16]
[factors.lr]
path = "train.lr"
values = [0.1, 0.2]
""",
    "zipped": """
[factors.r]
path = "lora.r"
values = [4, 8, 16]
[factors.alpha]
path = "lora.alpha"
values = [8, 16, 32]
[factors.lr]
path = "train.lr"
values = [0.1, 0.2]
[rules]
zip = [["r", "alpha"]]
""",
    "conditional": """
[factors.r]
path = "lora.r"
values = [4, 8]
[factors.alpha]
path = "lora.alpha"
values = [8, 16]
only_when = { r = 8 }
""",
    "with gaps": """
[factors.r]
path = "lora.r"
values = [4, 8, 16]
[factors.lr]
path = "train.lr"
values = [0.1, 0.2]
[rules]
exclude = [{ r = 16, lr = 0.2 }, { r = 8, seed = 1 }]
""",
}


@pytest.mark.parametrize("design", DESIGNS)
def test_the_pairs_are_those_of_the_spec(tmp_path: Path, design: str) -> None:
    spec = tmp_path / "demo.toml"
    spec.write_text(BASE + DESIGNS[design] + '[[contrasts]]\nfactor = "r"\nbaseline = 4\n')
    matrix = resolve(load_spec(spec))
    listed = [{"levels": matrix.levels(cell)} for cell in matrix.cells]
    names = [axis.name for axis in matrix.axes]
    data = with_cell_index(xr.Dataset(coords=coordinates_of(cell_index(names, listed, range(len(listed))))))
    found = find_pairs(data, "r", 4)
    there = found.condition >= 0
    assert {*zip(found.condition[there], found.reference[there], strict=True)} == {
        (condition, baseline) for _, condition, baseline in matrix.pairs()
    }
    assert found.moving == (("alpha",) if design == "zipped" else ())


def test_differences_are_read_when_asked_for_and_in_order() -> None:
    values = crossed(np.random.default_rng(0), (3, 2, 5, 4, 2))
    data = probe(values, ["x", "base", "y"])
    found = contrast(data, "entropy", "target", "base")["difference"]
    assert not found.variable._in_memory
    assert found.dims == ("level", "pair", "example", "layer", "position")
    assert list(found["level"].values) == ["x", "y"] and found.attrs["units"] == "nat"
    assert np.array_equal(found.sel(level="y", seed=1).squeeze(), values[2, 1] - values[1, 1])
    part = found.isel(level=1, pair=[1, 0], example=slice(1, 4), layer=2)
    assert np.array_equal(part, (values[2] - values[1])[[1, 0], 1:4, 2])


def test_what_was_selected_is_analysed_like_the_whole() -> None:
    rng = np.random.default_rng(1)
    values = crossed(rng, (4, 3, 6, 2, 1)).reshape(2, 2, 3, 6, 2, 1)
    factors = {"target": ["a", "b"], "rank": [4, 8]}
    data = cells(values, "entropy", factors, ("example", "layer", "position"))
    mean = (values[1] - values[0]).mean(axis=(0, 1, 2))
    assert np.allclose(change(data, "entropy", "target")["difference"].isel(level=0), mean)
    for rank, number in ((4, 0), (8, 1)):
        own = change(data.sel(rank=rank), "entropy", "target")
        expected = (values[1, number] - values[0, number]).mean(axis=(0, 1))
        assert np.allclose(own["difference"].isel(level=0), expected)
    single = change(data.sel(rank=4, seed=1), "entropy", "target")
    assert told(single.attrs["method"], "not covered")
    assert np.allclose(single["difference"].isel(level=0), (values[1, 0, 1] - values[0, 0, 1]).mean(axis=0))


def test_a_large_variable_is_read_by_blocks_of_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    data = probe(crossed(np.random.default_rng(2), (2, 3, 6, 7, 2)))
    whole = change(data, "entropy", "target")
    monkeypatch.setattr("store.analysis.nodes.BLOCK_BYTES", 1000)
    blocks = change(data, "entropy", "target")
    xr.testing.assert_allclose(blocks, whole)
    assert blocks.attrs == whole.attrs


def test_a_seed_counts_by_the_pairs_that_it_has() -> None:
    values = crossed(np.random.default_rng(3), (4, 3, 6, 1, 1)).reshape(2, 2, 3, 6, 1, 1)
    factors = {"target": ["a", "b"], "rank": [4, 8]}
    data = cells(values, "entropy", factors, ("example", "layer", "position"))
    found = change(data.isel(cell=range(11)), "entropy", "target")  # without the last seed of b at rank 8
    difference = values[1] - values[0]
    by_seed = difference.mean(axis=(0, 2))[:, 0, 0]
    by_seed[2] = difference[0, 2].mean()
    assert found["difference"].item() == pytest.approx(by_seed.mean())
    assert found["seeds"].item() == 3 and "5 pairs" in found.attrs["method"]
    assert told(found.attrs["method"], "3 seeds", "cells")
    # Two cells away, so that one seed alone is whole: all three still count.
    fewer = data.isel(cell=[n for n in range(12) if n not in (6, 10)])
    few = change(fewer, "entropy", "target")
    assert few["seeds"].item() == 3 and "4 pairs" in few.attrs["method"]
    whole = change(data, "entropy", "target")
    assert "each by the cells" not in whole.attrs["method"]
    term = effects(fewer, "entropy", ["target", "rank"]).sel(term="target[b]")
    assert term["effect"].item() == pytest.approx(few["difference"].item())


@pytest.mark.parametrize("variable", ["entropy", "correct"])
def test_a_level_of_one_seed_beside_others_has_no_interval(variable: str) -> None:
    """Neither of zero width: what trainings vary by is not known there."""
    values = (np.random.default_rng(9).random((3, 3, 20)) < 0.7).astype(float)
    data = cells(values, variable, {"target": ["a", "b", "c"]}, ("example",)).isel(cell=range(7))
    nodes = {"/evaluate": data, "/probe": data}
    found = change(xr.DataTree.from_dict(nodes), variable, "target").squeeze()
    assert found["seeds"].values.tolist() == [3, 1]
    columns = ["low", "high", "simultaneous_low", "simultaneous_high", "p_value", "p_adjusted"]
    assert all(np.isfinite(found[column].sel(level="b")) for column in columns)
    assert all(np.isnan(found[column].sel(level="c")) for column in columns)
    alike = data.assign({variable: xr.ones_like(data[variable])})
    same = change(xr.DataTree.from_dict({"/evaluate": alike, "/probe": alike}), variable, "target").squeeze()
    assert same["difference"].values.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("variable", ["entropy", "correct"])
def test_a_main_effect_is_as_sure_as_the_change_that_it_is(variable: str) -> None:
    """Also near the ceiling, where the interval of a difference of shares is not that of other means."""
    rng = np.random.default_rng(8)
    values = (rng.random((2, 2, 3, 24)) < np.array([0.99, 0.9]).reshape(2, 1, 1, 1)).astype(float)
    data = cells(values, variable, {"target": ["a", "b"], "rank": [4, 8]}, ("example",))
    nodes = {"/evaluate": data, "/probe": data}
    found = change(xr.DataTree.from_dict(nodes), variable, "target").squeeze()
    term = effects(xr.DataTree.from_dict(nodes), variable, ["target", "rank"]).sel(term="target[b]")
    assert term["effect"].item() == found["difference"].item() < 0
    for name in ("low", "high", "p_value"):
        assert term[name].item() == pytest.approx(found[name].item())


def test_a_pair_without_values_is_left_out() -> None:
    values = crossed(np.random.default_rng(3), (4, 3, 6, 1, 1)).reshape(2, 2, 3, 6, 1, 1)
    values = values[:, 0].copy()
    values[1, 2] = np.nan
    found = change(probe(values), "entropy", "target")
    assert int(found["seeds"].item()) == 2 and int(found["missing"].sum()) == 0
    values[1, 0, 4] = np.nan
    lost = change(probe(values), "entropy", "target")
    assert int(lost["missing"].sum()) == 1 and int(lost["examples"].sum()) == 5
    assert "1 values missing" in lost.attrs["method"]


def rated(dimension: str, gold: list[str], order: list[int]) -> xr.Dataset:
    """Give predictions of two trainings for four examples, in some order, rated in one dimension."""
    guess = np.array([list("1234"), gold], object).reshape(2, 1, 1, 4)
    data = cells(guess, "prediction", {"target": ["a", "b"], "dimension": [dimension]}, ("example",))
    ids = ("example", np.full(4, ord(dimension)))  # as of another tokenizer
    return data.assign_coords(gold=("example", np.array(gold, object)), ids=ids).isel(example=order)


def test_the_same_examples_rated_otherwise_are_paired_and_others_are_not() -> None:
    shapes = {"x": rated("x", list("1243"), [0, 1, 2, 3]), "y": rated("y", list("4321"), [2, 0, 3, 1])}
    summary = cells(np.zeros((2, 2, 1)), "accuracy", {"target": ["a", "b"], "dimension": ["x", "y"]}, ())
    nodes = {"/summary": summary} | {f"/evaluate/{name}": data for name, data in shapes.items()}
    tree = xr.DataTree.from_dict(nodes)
    merged = stage_node(tree, "evaluate")
    assert not merged["prediction"].variable._in_memory and "ids" not in merged.coords
    assert merged["prediction"].isel(cell=[3, 0], example=[1, 2]).values.tolist() == [["3", "2"], ["2", "3"]]
    right = change(tree, "correct", "target", "a")
    assert right["difference"].item() == pytest.approx(1 - 0.25)
    other = contrast(tree, "correct", "dimension", "x")["difference"].sel(target="a", seed=0)
    assert other.squeeze().values.tolist() == [-1, -1, 0, 0]

    nodes["/evaluate/y"] = shapes["y"].assign_coords(example=list("abcd"))
    tree = xr.DataTree.from_dict(nodes)
    with pytest.raises(StoreError, match=facts("2", "dimension", "dimension=")):
        change(tree, "correct", "target", "a")
    only = change(select(tree, dimension="x"), "correct", "target", "a")
    assert only["difference"].item() == pytest.approx(1 - 0.5)
    assert select(tree, dimension=["x", "y"])["summary"].equals(tree["summary"])
    with pytest.raises(StoreError, match="dimension: no level 'z'"):
        select(tree, dimension="z")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: contrast(d, "entropi", "target"), r"'entropi'.*'entropy'"),
        (lambda d: contrast(d, "entropy", "traget"), r"'traget'.*'target'"),
        (lambda d: contrast(d, "entropy", "target", "aa"), r"target.*'aa'.*'a'"),
        (lambda d: contrast(d, "entropy", "target", "a", "a"), r"target.*no two cells"),
        (lambda d: sign_flip(d, "entropy", "target", unit="cell"), r"'cell'.*auto, seed"),
        (lambda d: change(d, "entropy", "target", correction="bonferroni"), "correction 'bonferroni'"),
        (lambda d: change(xr.DataTree(d), "correct", "target"),
         "no variable 'correct'; evaluate.scoring .*records it"),
        (lambda d: change(xr.DataTree(d), "corect", "target"), "no variable 'corect'; .*'correct'"),
        (lambda d: similarity(xr.DataTree(d)), 'no variable \'gram\'; probe.geometry with "gram" records it'),
        (lambda d: intervention_effects(xr.DataTree.from_dict({"/probe": d, "/summary": d}), "x"),
         r"node 'intervene', found probe, summary; \[\[interventions\]\] makes it"),
        (lambda d: dataframe(xr.DataTree(d), ["accuracy"], stage="probe"), "one by one.*'accuracy'"),
        (lambda d: contrasts(xr.DataTree(d), "nonsense"), "analysis: expected a table.*'nonsense'"),
        (lambda d: detect_failures(xr.DataTree(d), "nonsense"), "expected Thresholds.*'nonsense'"),
        (lambda d: change(xr.DataTree.from_dict({"/x/probe": d, "/y/probe": d}), "entropy", "target"),
         r"'probe'.*x, y"),
        (lambda d: effects(d.isel(cell=[0, 1]), "entropy", ["target", "rank"]), "no factor 'rank'"),
        (lambda d: effects(d, "entropy", "target"), r"list.*'target'"),
        (lambda d: layer_specialisation(d.where(d["layer"] > 0), "target"), "every layer"),
        (lambda d: clusters(d.isel(example=[0]), "entropy", "target", unit="example"), "two units"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_named(call: Any, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        call(probe(crossed(np.random.default_rng(4), (2, 2, 4, 2, 1))))


def test_an_incomplete_design_is_named() -> None:
    values = np.zeros((2, 2, 1, 4, 1, 1))
    factors = {"target": ["a", "b"], "rank": [4, 8]}
    data = cells(values, "entropy", factors, ("example", "layer", "position"))
    with pytest.raises(StoreError, match=facts("1 of 4", "target=b, rank=8")):
        effects(data.isel(cell=[0, 1, 2]), "entropy", ["target", "rank"])
