"""Compiled layers train the adapter that uncompiled ones train, and nothing of them stays behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attrs import evolve
from facts import facts
from torch import nn
from trainings import UNEVEN, differences, interrupted, load, many, train
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, Qwen3Config, Qwen3ForCausalLM

from engine.errors import UsageError
from engine.process_group.alone import ProcessGroup
from specs.tables.experiment import Lora, Train

SMALL = {
    "vocab_size": 256, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2,
}  # fmt: skip
PLAIN = Train(steps=5, batch_size=8, precision="float32", lr=1e-2, warmup=0.0)
COMPILED = evolve(PLAIN, compile=True)
DROPPED = Lora(r=2, dropout=0.3)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[type]:
    """The types of the modules that have been compiled, in order."""
    seen: list[type] = []
    compile_module = nn.Module.compile

    def noted(module: nn.Module, *arguments: Any, **options: Any) -> None:
        seen.append(type(module))
        compile_module(module, *arguments, **options)

    monkeypatch.setattr(nn.Module, "compile", noted)
    return seen


def compiled_frames() -> int:
    from torch._dynamo.utils import counters

    return int(counters["frames"]["ok"])


def test_a_compiled_training_comes_to_the_same_adapter(
    tokenizer: Any, tmp_path: Path, calls: list[type]
) -> None:
    """With dropout, whose draws are those of the uncompiled one."""
    torch.manual_seed(0)
    config = Qwen3Config(**SMALL, num_key_value_heads=1, head_dim=8)
    base, before = Qwen3ForCausalLM(config).requires_grad_(False).eval(), compiled_frames()
    plain = train(base, tokenizer, tmp_path / "plain", UNEVEN, lora=DROPPED, settings=PLAIN)
    assert not calls
    trained = train(base, tokenizer, tmp_path / "compiled", UNEVEN, lora=DROPPED, settings=COMPILED)
    assert [kind.__name__ for kind in calls] == 2 * ["Qwen3DecoderLayer"] and compiled_frames() > before
    assert differences(tmp_path / "plain", tmp_path / "compiled") < 1e-4
    for name, curve in plain.curves.items():
        np.testing.assert_allclose(trained.curves[name], curve, rtol=1e-4, err_msg=name)
    assert trained.passes["compiled"] is True and "compiled" not in plain.passes
    assert all(module._compiled_call_impl is None for module in base.modules())


def test_parts_checkpointing_validations_and_resumption(tokenizer: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = GPTNeoXForCausalLM(GPTNeoXConfig(**SMALL)).requires_grad_(False).eval()
    whole = evolve(PLAIN, steps=4, early_stopping=2, validate_every=2)
    train(base, tokenizer, tmp_path / "plain", UNEVEN, many(3), settings=whole)
    chosen = evolve(whole, compile=True, micro_batch=3, gradient_checkpointing=True)
    interrupted(2, base, tokenizer, tmp_path / "stopped", UNEVEN, many(3), settings=chosen)
    train(base, tokenizer, tmp_path / "stopped", UNEVEN, many(3), settings=chosen)
    assert differences(tmp_path / "plain", tmp_path / "stopped") < 1e-4


def test_what_cannot_be_compiled_is_said_in_one_sentence(
    tiny_model: Path, tokenizer: Any, tmp_path: Path
) -> None:
    from torch._inductor import config

    torch._dynamo.reset()  # nothing compiled before is to serve
    base = load(tiny_model)
    with (
        config.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}),
        pytest.raises(UsageError, match=facts("train.compile", "true", "compiler", "false")) as raised,
    ):
        train(base, tokenizer, tmp_path, UNEVEN, settings=evolve(COMPILED, steps=1))
    assert "\n" not in str(raised.value)
    train(base, tokenizer, tmp_path, UNEVEN, settings=evolve(PLAIN, steps=1))


def test_several_ranks_are_not_compiled(tiny_model: Path, tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=facts("train.compile", "true", "false", "executor.ranks = 2")):
        train(load(tiny_model), tokenizer, tmp_path, settings=COMPILED, ranks=ProcessGroup(0, 2))


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python has no distutils of its own any more")
def test_pip_may_have_been_imported() -> None:
    """It puts Python's own distutils in the place of that of setuptools, which torch's compiler imports."""
    code = """
import pip
from torch import nn, ones
from torch._inductor import config
from engine.stages.training.compiled import compiled

class Layer(nn.Module):
    def forward(self, rows):
        return (rows.sin() + 1).exp()

config.force_disable_caches = True  # the compiler itself is to run
layers = nn.ModuleList([Layer()])
with compiled(layers):
    print(layers[0](ones(2, 3)).shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "[2, 3]" in done.stdout
