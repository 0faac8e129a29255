"""Trainings whose frozen layers oneDNN multiplies come to the adapters of those that torch multiplies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import evolve
from onednn_products import Shape, choose, needs_onednn, noted
from torch import nn
from trainings import UNEVEN, differences, train
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.pytorch_utils import Conv1D

from engine.stages.training.frozen_linear import FrozenConv1D, FrozenLinear, faster_products, multiply_faster
from specs.tables.experiment import Lora, Train

pytestmark = needs_onednn
SMALL = {
    "vocab_size": 256, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1,
}  # fmt: skip
PLAIN = Train(steps=4, batch_size=8, precision="float32", lr=1e-2, warmup=0.0)
MODELS = {
    "biases": lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL)),
    "transposed weights": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=256, n_embd=16, n_layer=2, n_head=2)),
    "experts": lambda: MixtralForCausalLM(MixtralConfig(**SMALL, num_local_experts=3)),
}


@pytest.fixture
def multiplied(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Shape, Shape]]:
    """The shapes of rows and weights that oneDNN has multiplied."""
    return noted(monkeypatch)


@pytest.mark.parametrize("name", MODELS)
def test_the_same_adapter_by_either_library(
    name: str,
    tokenizer: Any,
    tmp_path: Path,
    multiplied: list[tuple[Shape, Shape]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    base = MODELS[name]().requires_grad_(False).eval()
    kinds = [type(module) for module in base.modules()]
    lora = Lora(r=2, dropout=0.0 if name == "experts" else 0.3)
    trained = train(base, tokenizer, tmp_path / "onednn", UNEVEN, lora=lora, settings=PLAIN)
    assert len(multiplied) > 1.5 * PLAIN.steps * len([kind for kind in kinds if kind in (nn.Linear, Conv1D)])
    assert [type(module) for module in base.modules()] == kinds
    multiplied.clear()
    choose(monkeypatch, onednn=False)
    plain = train(base, tokenizer, tmp_path / "torch", UNEVEN, lora=lora, settings=PLAIN)
    assert not multiplied
    assert differences(tmp_path / "onednn", tmp_path / "torch") < 1e-4
    assert trained.curves["loss"] == pytest.approx(plain.curves["loss"], rel=1e-4)


def test_compiled_layers_and_layers_trained_in_full(
    tokenizer: Any, tmp_path: Path, multiplied: list[tuple[Shape, Shape]], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    base = MODELS["biases"]().requires_grad_(False).eval()
    lora = Lora(r=2, target_modules=("q_proj", "down_proj"), modules_to_save=("o_proj", "lm_head"))
    settings = evolve(PLAIN, compile=True)
    train(base, tokenizer, tmp_path / "onednn", UNEVEN, lora=lora, settings=settings)
    assert multiplied
    choose(monkeypatch, onednn=False)
    train(base, tokenizer, tmp_path / "torch", UNEVEN, lora=lora, settings=PLAIN)
    assert differences(tmp_path / "onednn", tmp_path / "torch") < 1e-4


def test_other_types_are_torchs_own(
    tokenizer: Any, tmp_path: Path, multiplied: list[tuple[Shape, Shape]]
) -> None:
    torch.manual_seed(0)
    base = MODELS["biases"]().requires_grad_(False).eval()
    head = (256, 16), (16, 256)  # its products are float32 in any case
    train(base, tokenizer, tmp_path / "autocast", settings=evolve(PLAIN, precision="bfloat16"))
    assert not {weight for _, weight in multiplied} - set(head)
    half = base.bfloat16()
    multiplied.clear()
    assert not multiply_faster(half)


def test_layers_are_their_own_again_whatever_happens(multiplied: list[tuple[Shape, Shape]]) -> None:
    model = nn.Sequential(nn.Linear(3, 4), Conv1D(5, 4), nn.Linear(5, 2)).requires_grad_(False)
    model[2].bias.requires_grad_()
    with pytest.raises(KeyError), faster_products(model):
        assert [type(layer) for layer in model] == [FrozenLinear, FrozenConv1D, nn.Linear]
        raise KeyError
    assert [type(layer) for layer in model] == [nn.Linear, Conv1D, nn.Linear]
