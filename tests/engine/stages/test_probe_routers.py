"""Routers of experts from the spec to the store, against what transformers' models return themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from commands import engine
from small_study import make_tokenizer, small_spec
from tiny_models import MODELS, SMALL

import store
from engine.data import prepare as data
from engine.models.lens import find_lens
from engine.models.loading import load
from engine.models.routers import experts_of, routers_of, watching_routers
from engine.planning.plan import make_plan
from engine.planning.probe_passes import probe_size
from engine.text.targets import TargetEncoder
from specs import load_spec, resolve
from specs.tables.experiment import Model
from specs.tables.probe import Probe

ONE = ("--only", "seed=0", "--only", "target=label")
ROUTERS = """
[probe]
routers = true
positions = ["prompt_end", "completion_end"]
"""
NAMES = ["router_entropy", "top_expert", "expert_probability"]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of three blocks, the first without experts."""
    folder = tmp_path_factory.mktemp("experts")
    torch.manual_seed(0)
    config = transformers.Qwen3MoeConfig(
        **SMALL | {"vocab_size": 320, "max_position_embeddings": 512, "bos_token_id": 0, "eos_token_id": 1},
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        mlp_only_layers=[0],
        tie_word_embeddings=False,
    )
    transformers.Qwen3MoeForCausalLM(config).save_pretrained(folder)
    make_tokenizer(folder)
    return folder


def test_stored_routers_are_the_models_own(tmp_path: Path, model_folder: Path, rated_file: Path) -> None:
    spec = small_spec(tmp_path, model_folder, rated_file, ROUTERS, train="steps = 0")
    engine("execute", spec, *ONE)
    probe = store.open_store(tmp_path / "store")["small/probe"].to_dataset().isel(cell=0)
    assert probe["expert"].values.tolist() == [0, 1, 2, 3]
    for name in NAMES[:1]:
        assert probe[name].sel(layer=[0, 1]).isnull().all() and probe[name].sel(layer=[2, 3]).notnull().all()
    assert (probe["top_expert"].sel(layer=[0, 1]) == -1).all()
    model, tokenizer = load(Model(id=str(model_folder), dtype="float32"))
    matrix = resolve(load_spec(spec))
    cell = make_plan(matrix).cells[0]
    writer = TargetEncoder(
        tokenizer=tokenizer,
        prompt=matrix.table("prompt", cell.choice), target=matrix.table("target", cell.choice),
        labels=["1", "2", "3"], dimension="naturalness", seed=0,
    )  # fmt: skip
    for number, row in enumerate(data.load(tmp_path / "store" / "data" / cell.keys["data"], "test", 6)):
        encoded = writer.encode(row)
        ids = torch.tensor([encoded.prompt + encoded.completion])
        with torch.no_grad():
            logits = model(ids, output_router_logits=True).router_logits
        assert len(logits) == 2
        for layer, of_layer in zip((2, 3), logits, strict=True):
            for place, at in enumerate([len(encoded.prompt) - 1, ids.shape[1] - 1]):
                p = torch.softmax(of_layer.reshape(-1, 4)[at].double(), -1)
                found = probe.isel(example=number, position=place).sel(layer=layer)
                np.testing.assert_allclose(found["expert_probability"], p, atol=1e-5)
                np.testing.assert_allclose(found["router_entropy"], -(p * p.log()).sum(), atol=1e-5)
                assert found["top_expert"] == p.argmax()
    load_of_experts = store.open_store(tmp_path / "store")["small"].ablation.means("expert_probability")
    np.testing.assert_allclose(load_of_experts["mean"].sel(layer=[2, 3]).sum("expert"), 1, rtol=1e-5)


def test_models_without_experts_have_nothing(tmp_path: Path, tiny_model: Path, rated_file: Path) -> None:
    engine("execute", small_spec(tmp_path, tiny_model, rated_file, ROUTERS, train="steps = 0"), *ONE)
    probe = store.open_store(tmp_path / "store")["small/probe"].to_dataset()
    assert set(NAMES).isdisjoint(probe.data_vars) and "entropy" in probe


@pytest.mark.parametrize("name", ["granite-moe", "inkling"])
def test_routers_of_other_models_are_found(name: str) -> None:
    kind, settings = MODELS[name]
    config = getattr(transformers, kind)(**settings)
    lens = find_lens(transformers.AutoModelForCausalLM.from_config(config).eval())
    assert len(routers_of(lens)) == len(lens.layers)
    positions = torch.tensor([[0, 3], [1, 2]])
    with torch.no_grad(), watching_routers(lens, range(len(lens.layers) + 1), positions) as caught:
        lens.last_hidden(torch.randint(3, 90, (2, 5)))
    experts = experts_of(lens)
    assert experts >= 4
    assert [tuple(part.shape) for part in caught] == [(2, 2, experts)] * (len(lens.layers) + 1)
    for layer in routers_of(lens):
        torch.testing.assert_close(caught[layer].sum(-1), torch.ones(2, 2))


def test_a_plan_counts_what_routers_store() -> None:
    on, off = (probe_size(Probe(routers=asked), 6, 3, 32, 4, 5, 8).stored for asked in (True, False))
    assert on - off == 4 * 4 * (2 + 8) and probe_size(Probe(routers=True), 6, 3, 32, 4, 5, 0).stored == off
