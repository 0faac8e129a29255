"""`probe.geometry` from the spec to the store and out of it again, held against plain models in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import command, engine
from numpy.typing import NDArray
from small_study import small_spec

import engine as ablation_engine
import store
from engine.data import prepare as data
from engine.planning.plan import make_plan
from engine.planning.probe_passes import probe_size
from engine.stages.geometry_measures import curvature, measured
from engine.text.targets import TargetEncoder
from specs import load_spec, resolve
from specs.common.names import GEOMETRY, GRAM, SIMILARITIES
from specs.tables.probe import PositionRange, Probe
from store.analysis.gram import centred, similarity_values
from store.report.probing import layers

NAMES = [*GEOMETRY, *SIMILARITIES, GRAM]
EXTRA = f"""
[probe]
positions = ["prompt_end", {{ range = "explanation", most = 12 }}]
layers = [1, 2]
batch_size = 2
against = ["base", {{ target = "label" }}]
geometry = {NAMES}
"""
LABEL, EXPLAINED = "label", "label+explanation"
STEPS = "steps = 6\nlr = 0.05"


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rated_file: Path) -> Path:
    folder = tmp_path_factory.mktemp("geometry")
    engine("execute", small_spec(folder, tiny_model, rated_file, EXTRA, train=STEPS))
    return folder / "store"


def streams(model: Any, writer: TargetEncoder, rows: Any) -> NDArray[np.float64]:
    """Streams behind layers 1 and 2 [E, L, P, D] of a plain model, NaN where there is no position."""
    found = np.full((len(rows), 2, 13, 32), np.nan)
    plain = getattr(model, "base_model", model)
    inner = plain.model.model if hasattr(plain.model, "model") else plain.model
    for number, row in enumerate(rows):
        encoded = writer.encode(row)
        places = [len(encoded.prompt) - 1, *writer.explanation_places(row)[:12]]
        with torch.no_grad():
            output = inner(torch.tensor([encoded.prompt + encoded.completion]), output_hidden_states=True)
        for layer in (1, 2):
            found[number, layer - 1, : len(places)] = output.hidden_states[layer][0, places].numpy()
    return found


def test_stored_values_are_those_of_the_plain_models(probed: Path) -> None:
    probe = store.open_store(probed)["small/probe"].to_dataset()
    assert probe["gram"].dims == ("cell", "example", "layer", "position", "neighbour")
    matrix = resolve(load_spec(probed.parent / "small.toml"))
    plan = make_plan(matrix)
    compared = 0
    for cell in plan.cells:
        levels = plan.levels(cell)
        mine = probe.sel(target=levels["target"], seed=levels["seed"])
        model, tokenizer = ablation_engine.load_adapter(probed, levels)
        other, _ = ablation_engine.load_adapter(probed, levels | {"target": LABEL})
        writer = TargetEncoder(
            tokenizer=tokenizer,
            prompt=matrix.table("prompt", cell.choice), target=matrix.table("target", cell.choice),
            labels=["1", "2", "3"], dimension="naturalness", seed=levels["seed"],
        )  # fmt: skip
        rows = data.load(probed / "data" / cell.keys["data"], "test", 6)
        states = streams(model.double(), writer, rows)
        with model.disable_adapter():
            base = streams(model, writer, rows)
        references = base, streams(other.double(), writer, rows)
        for layer, position in np.ndindex(2, 13):
            own = states[:, layer, position]
            at = np.flatnonzero(np.isfinite(own[:, 0]))
            found = mine.isel(layer=layer, position=position)
            assert found["anisotropy"].notnull().sum() == (len(at) if len(at) > 2 else 0)
            for name, values in measured(own[at], [name for name in GEOMETRY if name != "curvature"]).items():
                np.testing.assert_allclose(found[name][at], values, rtol=2e-3, atol=2e-3, err_msg=name)
            gram = found["gram"].values[np.ix_(at, at)]
            if len(at):
                np.testing.assert_allclose(gram, centred(own[at] @ own[at].T), rtol=1e-3, atol=1e-3)
            for place, reference in enumerate(references):
                there = reference[at, layer, position]
                for name in SIMILARITIES:
                    values = similarity_values(name, own[at] @ own[at].T, there @ there.T)
                    stored = found[f"{name}_against"].isel(against=place)[at]
                    np.testing.assert_allclose(stored, values, rtol=5e-3, atol=5e-3, err_msg=name)
                    compared += int(np.isfinite(values).sum())
        bends = curvature(states[:, :, 1:].reshape(12, 12, 32).transpose(1, 0, 2)).T.reshape(6, 2, 12)
        np.testing.assert_allclose(mine["curvature"][:, :, 1:], bends, atol=1e-3)
        assert mine["curvature"].isel(position=0).isnull().all()
    assert compared > 100
    own = probe.sel(target=LABEL, against=f"target={LABEL}", position="prompt_end")
    np.testing.assert_allclose(own["cka_against"], 1, atol=1e-5)
    np.testing.assert_allclose(own["procrustes_against"], 0, atol=1e-3)


def test_analyses_take_it_like_any_statistic(probed: Path) -> None:
    tree = store.open_store(probed)["small"]
    probe = tree["probe"].to_dataset().sel(position="prompt_end")
    means = tree.ablation.means("matrix_entropy", "target").sel(position="prompt_end")
    stored = probe["matrix_entropy"].mean("example")
    for level in (LABEL, EXPLAINED):
        np.testing.assert_allclose(
            means["mean"].sel(level=level), stored.sel(target=level).mean("seed"), rtol=1e-5
        )
    assert (means["low"] < means["high"]).all()
    one = tree["probe"].to_dataset().sel(target=LABEL, seed=0)  # without a dim `cell`
    assert one.ablation.means("anisotropy")["mean"].dims == ("level", "layer", "position")
    change = tree.ablation.change("effective_rank", "target", LABEL)
    assert change["p_value"].sel(position="prompt_end").notnull().all()
    near = tree.ablation.divergence_from("base", "cka", by="target").sel(position="prompt_end")
    assert (near["mean"] <= 1 + 1e-6).all()
    names = {
        curve["statistic"]
        for curve in layers(tree, {f"target={level}": 0 for level in (LABEL, EXPLAINED)})["curves"]
    }
    assert {"anisotropy", "curvature", "cka_against: base"} <= names


@pytest.mark.parametrize("measure", SIMILARITIES)
def test_any_two_cells_are_compared_by_what_was_kept(probed: Path, measure: str) -> None:
    tree = store.open_store(probed)["small"]
    result = tree.ablation.similarity(measure, "target").sel(position="prompt_end")
    assert result["pairs"].values.tolist() == [[1, 4], [4, 1]]
    probe = tree["probe"].to_dataset().sel(position="prompt_end")
    across = probe[f"{measure}_against"].sel(against=f"target={LABEL}", target=EXPLAINED).mean("example")
    grams = [probe["gram"].sel(target=target, seed=seed) for target in (LABEL, EXPLAINED) for seed in (0, 1)]
    pairs = [(a, b) for a in (0, 1) for b in (2, 3)]
    for layer in range(2):
        values = [
            similarity_values(
                measure, *(grams[cell].isel(layer=layer).values.astype(float) for cell in pair)
            ).mean()
            for pair in pairs
        ]
        found = result["mean"].sel(level=LABEL, other=EXPLAINED).isel(layer=layer)
        np.testing.assert_allclose(found, np.mean(values), rtol=1e-5)
        # Pairs of one seed are those that the probe compared by itself.
        np.testing.assert_allclose([values[0], values[3]], across.isel(layer=layer), rtol=1e-2, atol=2e-3)
    assert (result["low"] <= result["mean"]).all() and "these models" in result.attrs["method"]
    np.testing.assert_array_equal(result["mean"], result["mean"].transpose("other", "level", "layer"))


def test_nothing_is_kept_or_counted_unless_asked_for(probed: Path) -> None:
    with pytest.raises(store.StoreError, match="gram"):
        store.open_store(probed)["small/probe"].to_dataset().drop_vars("gram").ablation.similarity()
    plain, asked = Probe(), Probe(geometry=["anisotropy", "gram"])
    off, on = (probe_size(probe, 100, 3, 32, 4, 5) for probe in (plain, asked))
    assert off.flops == 0 < on.flops and on.rows == off.rows
    assert on.stored - off.stored == 4 * 4 * (1 + 100)
    assert on.kept - off.kept == 4 * 100 * 4 * 32
    wide = Probe(
        positions=["label", PositionRange(range="prompt", most=9)], geometry=["cka"], against=["base"]
    )
    assert probe_size(wide, 100, 3, 32, 4, 5).kept > 2 * 4 * 100 * 4 * 32 * 10


def test_other_statistics_stay_as_they_are(
    probed: Path, tmp_path: Path, tiny_model: Path, rated_file: Path
) -> None:
    plain = EXTRA.replace(f"geometry = {NAMES}", "")
    engine("execute", small_spec(tmp_path, tiny_model, rated_file, plain, train=STEPS))
    ours, others = (
        store.open_store(folder)["small/probe"].to_dataset() for folder in (probed, tmp_path / "store")
    )
    for name in others.data_vars:
        np.testing.assert_array_equal(ours[name], others[name], err_msg=str(name))
    assert set(ours.data_vars) - set(others.data_vars) == {
        *GEOMETRY, GRAM, *(f"{name}_against" for name in SIMILARITIES)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ('geometry = ["cka"]', ["probe.geometry[0]", '"cka"', "probe.against"]),
        ('geometry = ["gram", "curvature"]', ["probe.geometry[1]", "range", "probe.positions"]),
        ('geometry = ["gram", "gram"]', ["probe.geometry[1]", "twice"]),
        ('geometry = ["anisotropie"]', ["probe.geometry[0]", '"anisotropy"']),
    ],
)
def test_what_cannot_be_measured_is_told_before_the_run(
    tmp_path: Path, tiny_model: Path, rated_file: Path, more: str, words: list[str]
) -> None:
    _, told = command("plan", small_spec(tmp_path, tiny_model, rated_file, f"[probe]\n{more}\n"))
    assert all(word in told for word in words), told
