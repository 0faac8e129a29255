"""Head and activation entropies from the spec to the store, and out of it again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from commands import engine
from small_study import make_tokenizer, small_spec
from transformers import GPTJConfig, GPTJForCausalLM

import store
from engine.data import prepare as data
from engine.models.lens import find_lens
from engine.models.loading import load
from engine.planning.plan import make_plan
from engine.text.targets import TargetEncoder
from specs import load_spec, resolve
from specs.tables.experiment import Model

MORE = """
[probe]
heads = true
activation = true
layers = [0, 1, 3]
positions = ["prompt_end", "completion_end"]
"""
ONE = ("--only", "seed=0", "--only", "target=label")


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rated_file: Path) -> Path:
    """The store of one untrained cell with all entropies."""
    folder = tmp_path_factory.mktemp("probed")
    engine("execute", small_spec(folder, tiny_model, rated_file, MORE, train="steps = 0"), *ONE)
    return folder / "store"


def test_entropies_are_labelled_and_lazy(probed: Path) -> None:
    probe = store.open_store(probed)["small/probe"].to_dataset()
    heads, activation = probe["head_entropy"], probe["activation_entropy"]
    assert heads.dims == ("cell", "example", "layer", "position", "head")
    assert activation.dims == ("cell", "example", "layer", "position")
    assert heads.sizes["head"] == 4 and probe["head"].values.tolist() == [0, 1, 2, 3]
    assert heads.attrs["units"] == activation.attrs["units"] == "nat"
    assert "head's attention" in heads.attrs["long_name"] and "energy" in activation.attrs["long_name"]
    assert not heads.variable._in_memory and not activation.variable._in_memory
    assert heads.sel(layer=0).isnull().all() and heads.sel(layer=[1, 3]).notnull().all()
    assert ((heads.sel(layer=[1, 3]) >= 0) & (activation > 0) & (activation <= np.log(32))).all()


def test_stored_entropies_are_the_models_own(probed: Path, tiny_model: Path) -> None:
    """Recomputed from the plain model, eager, one example at a time."""
    probe = store.open_store(probed)["small/probe"].to_dataset().isel(cell=0)
    model, tokenizer = load(Model(id=str(tiny_model), dtype="float32", attention="eager"))
    matrix = resolve(load_spec(probed.parent / "small.toml"))
    plan = make_plan(matrix)
    cell = plan.cells[0]
    writer = TargetEncoder(
        tokenizer=tokenizer,
        prompt=matrix.table("prompt", cell.choice), target=matrix.table("target", cell.choice),
        labels=["1", "2", "3"], dimension="naturalness", seed=0,
    )  # fmt: skip
    rows = data.load(probed / "data" / cell.keys["data"], "test", 6)
    for number, row in enumerate(rows):
        encoded = writer.encode(row)
        ids = torch.tensor([encoded.prompt + encoded.completion])
        with torch.no_grad():
            output = model(ids, output_attentions=True, output_hidden_states=True)
            with find_lens(model).watching([0, 1, 3], torch.arange(ids.shape[1])[None]) as streams:
                model(ids)
        for place, at in enumerate([len(encoded.prompt) - 1, ids.shape[1] - 1]):
            weights = torch.stack([output.attentions[layer - 1][0, :, at] for layer in (1, 3)])
            truth = -torch.xlogy(weights, weights).sum(dim=2)
            ours = probe["head_entropy"].isel(example=number, position=place).sel(layer=[1, 3])
            np.testing.assert_allclose(ours.values, truth.numpy(), atol=1e-5)
            energy = torch.stack([stream[0, at].double().square() for stream in streams])
            shares = energy / energy.sum(dim=1, keepdim=True)
            spread = -(shares * shares.log()).sum(dim=1)
            found = probe["activation_entropy"].isel(example=number, position=place)
            np.testing.assert_allclose(found.values, spread.numpy(), atol=1e-5)


def test_the_other_statistics_do_not_notice(
    probed: Path, tmp_path: Path, tiny_model: Path, rated_file: Path
) -> None:
    plain = MORE.replace("heads = true\nactivation = true\n", "")
    engine("execute", small_spec(tmp_path, tiny_model, rated_file, plain, train="steps = 0"), *ONE)
    left = store.open_store(tmp_path / "store")["small/probe"].to_dataset()
    right = store.open_store(probed)["small/probe"].to_dataset()
    assert set(right) - set(left) == {"head_entropy", "activation_entropy"}
    for name in left:
        np.testing.assert_array_equal(left[name].values, right[name].values, err_msg=str(name))


def test_a_store_with_entropies_is_looked_after_analysed_and_exported(probed: Path, tmp_path: Path) -> None:
    assert "0 problems" in engine("verify", probed).output
    assert "garbage: 0 items" in engine("gc", probed).output
    means = store.open_store(probed)["small"].ablation.means("head_entropy")
    assert {"layer", "position", "head"} <= set(means["mean"].dims)
    engine("export", probed, "--to", "parquet", "--output", tmp_path)
    table = pd.read_parquet(tmp_path / "small" / "probe.example-layer-position-head.parquet")
    stored = store.open_store(probed)["small/probe"]["head_entropy"].values
    np.testing.assert_array_equal(table["head_entropy"].to_numpy(np.float32), stored.ravel())
    damaged = next((probed / "results.zarr" / "probe").glob("*/float32-example-layer-position-head/c.*"))
    content = damaged.read_bytes()
    damaged.write_bytes(content[:20] + bytes([content[20] ^ 1]) + content[21:])
    try:
        assert "1 problems" in engine("verify", probed, code=1).output
    finally:
        damaged.write_bytes(content)


def test_a_model_whose_heads_cannot_be_watched_fails_before_its_training(
    tmp_path: Path, tiny_model: Path, rated_file: Path
) -> None:
    config = GPTJConfig(
        vocab_size=320,
        n_embd=32,
        n_layer=2,
        n_head=4,
        rotary_dim=4,
        n_positions=512,
        bos_token_id=0,
        eos_token_id=1,
    )
    GPTJForCausalLM(config).save_pretrained(tmp_path / "gptj")
    make_tokenizer(tmp_path / "gptj")
    spec = small_spec(tmp_path, tmp_path / "gptj", rated_file, "[probe]\nheads = true\n")
    output = engine("execute", spec, *ONE, "--set", "model.attention=eager", code=1).output
    failed = output.index("EngineError: probe.heads: found true, but the attention of layer 1 of GPTJModel")
    assert failed < output.index(": train  loss")
