"""Which modules an adapter is put on: those that the lens sees, however they are named."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
import transformers
from peft.tuners.lora import LoraLayer
from tiny_models import MODELS

from engine.cli.main import _warning
from engine.errors import UsageError
from engine.models.base_model import as_it_was
from engine.models.lens import find_lens
from engine.stages.training.adapter import attach_adapter
from engine.stages.training.files import load_adapter
from specs.tables.experiment import Lora
from store.backend.locate import place_of

WITH_TOWER = "gemma 3 with a vision tower"
EVERY = [
    "all-linear",
    ["q_proj", "v_proj"],
    r".*\.(q_proj|v_proj|fc1)",
    r".*(self_attn|mlp)\..*_proj",
]


def build(name: str) -> Any:
    return tiny_models.build(*MODELS[name])


def adapted(model: Any) -> set[str]:
    return {name for name, module in model.named_modules() if isinstance(module, LoraLayer)}


@pytest.mark.parametrize("modules", EVERY, ids=str)
def test_a_tower_is_never_adapted(modules: Any) -> None:
    base = build(WITH_TOWER)
    tower = {name: value.clone() for name, value in base.named_parameters()}
    with as_it_was(base):
        model = attach_adapter(base, Lora(r=2, target_modules=modules))
        names = adapted(model)
        trained = [name for name, value in model.named_parameters() if value.requires_grad]
    assert names and all(".language_model.layers." in name for name in names)
    assert trained and all(".language_model.layers." in name for name in trained)
    after = dict(base.named_parameters())
    assert after.keys() == tower.keys() and all(torch.equal(after[name], tower[name]) for name in tower)


@pytest.mark.parametrize("modules", ["all-linear", ["q_proj", "v_proj"]], ids=str)
def test_with_a_tower_the_same_modules_are_adapted_as_without(modules: Any) -> None:
    lora = Lora(r=2, target_modules=modules)
    names = [
        {name.partition(".layers.")[2] for name in adapted(attach_adapter(build(kind), lora))}
        for kind in ("gemma 3", WITH_TOWER)
    ]
    assert names[0] == names[1]


@pytest.mark.parametrize("modules", [["fc1"], r".*vision_tower.*\.q_proj"], ids=str)
def test_modules_of_the_tower_alone_are_refused(modules: Any) -> None:
    base = build(WITH_TOWER)
    with pytest.raises(UsageError, match=r"lora.target_modules: found "):
        attach_adapter(base, Lora(target_modules=modules))


def test_modules_of_the_tower_are_not_trained_in_full() -> None:
    base = build(WITH_TOWER)
    with as_it_was(base), pytest.raises(UsageError, match=r"lora.modules_to_save: .*vision_.*post_layernorm"):
        attach_adapter(base, Lora(r=2, modules_to_save=["post_layernorm"]))
    assert not any(value.requires_grad for value in base.parameters())
    model = attach_adapter(base, Lora(r=2, modules_to_save=["lm_head", "embed_tokens"]))
    assert any(value.requires_grad for name, value in model.named_parameters() if "lm_head" in name)


def test_linear_modules_beside_the_layers_that_take_part_are_adapted() -> None:
    model = attach_adapter(build("opt, projected, normed after"), Lora(r=2))
    assert {name.rpartition(".")[2] for name in adapted(model)} >= {
        "project_in",
        "project_out",
        "fc1",
        "q_proj",
    }


@pytest.mark.parametrize("kind", ["falcon-h1", "mamba"])
def test_all_linear_leaves_out_what_state_space_kernels_read_past_an_adapter(kind: str) -> None:
    if kind == "mamba":
        torch.manual_seed(0)
        config = transformers.MambaConfig(vocab_size=96, hidden_size=32, num_hidden_layers=2, state_size=4)
        base = transformers.MambaForCausalLM(config).requires_grad_(False)
    else:
        base = build(kind)
    names = {name.rpartition(".")[2] for name in adapted(attach_adapter(base, Lora(r=2)))}
    assert "in_proj" in names and "out_proj" not in names


def test_a_model_without_towers_has_the_modules_that_peft_finds() -> None:
    model = attach_adapter(build("llama"), Lora(r=2))
    assert model.peft_config["default"].exclude_modules is None
    assert len(adapted(model)) == 7 * len(find_lens(model).layers)


def test_routers_that_give_two_values_are_left_out() -> None:
    model = attach_adapter(build("phimoe"), Lora(r=2))
    assert (names := {name.rpartition(".")[2] for name in adapted(model)}) >= {"q_proj", "o_proj"}
    assert "router" not in names
    ids = torch.tensor([[5, 6, 7]])
    find_lens(model).last_hidden(ids, torch.ones_like(ids))


def test_linear_modules_of_an_architecture_s_own_kind_are_adapted() -> None:
    assert {name.rpartition(".")[2] for name in adapted(attach_adapter(build("falcon"), Lora(r=2)))} == {
        "query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h",
    }  # fmt: skip


@pytest.mark.parametrize("modules", [[], ["lm_head"]])
def test_peft_is_quiet_of_its_own_work(tmp_path: Path, modules: list[str]) -> None:
    """A head that is tied is trained apart from the embedding where a spec names it, which is meant."""
    base = build("gpt2")
    with as_it_was(base), warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        attach_adapter(base, Lora(r=2, modules_to_save=modules)).save_pretrained(tmp_path / "adapter")
    assert not [warning for warning in seen if "save_embedding_layers" not in str(warning.message)]
    with as_it_was(base), warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        load_adapter(base, place_of(tmp_path))
    assert not seen, [str(warning.message) for warning in seen]


def test_a_warning_is_one_line_that_names_who_says_it() -> None:
    name = str(Path("lib", "site-packages", "peft", "x.py"))
    assert _warning("so", UserWarning, name, 3) == "warning (peft): so\n"
    assert (
        _warning("so", UserWarning, str(Path("lib", "site-packages", "engine", "x.py")), 3) == "warning: so\n"
    )
    assert _warning("so", UserWarning, str(Path("src", "engine", "x.py")), 3, line=None) == "warning: so\n"
