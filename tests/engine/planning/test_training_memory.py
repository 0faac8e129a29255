"""The plan's rule for what a training keeps, held against tensors that are counted without content."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from peft.helpers import disable_input_dtype_casting
from saved_storages import saved_storages

from engine.models.lens import find_lens
from engine.planning.example_lengths import Lengths
from engine.planning.sizes import DataCard, ModelCard, card_of
from engine.planning.training_memory import Batch, kept, training_memory
from engine.process_group.alone import IGNORED
from engine.stages.training.adapter import attach_adapter
from engine.stages.training.loss import completion_loss
from engine.stages.training.saved_tensors import count_saved
from specs.tables.experiment import Lora, Model, Train
from specs.tables.target import Prompt, Target

LLAMA = {
    "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
    "num_key_value_heads": 8,
}  # fmt: skip
# Real widths; four layers tell as much as all of them.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "Llama": LLAMA,
    "Mistral": LLAMA | {"vocab_size": 32768},
    "Qwen2": {
        "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864, "num_attention_heads": 14,
        "num_key_value_heads": 2,
    },
    "Qwen3": {
        "vocab_size": 151936, "hidden_size": 2560, "intermediate_size": 9728, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 128,
    },
    "Gemma2": {
        "vocab_size": 256000, "hidden_size": 2304, "intermediate_size": 9216, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 256,
    },
    "Phi": {
        "vocab_size": 51200, "hidden_size": 2560, "intermediate_size": 10240, "num_attention_heads": 32,
    },
    "GPTNeoX": {
        "vocab_size": 50304, "hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 16,
    },
    "Olmo2": {
        "vocab_size": 100352, "hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 16,
        "num_key_value_heads": 16,
    },
    "OPT": {"hidden_size": 2048, "ffn_dim": 8192, "num_attention_heads": 32},
    "GPT2": {"n_layer": 4},
    "Mixtral": LLAMA | {"vocab_size": 32000},
}  # fmt: skip
PLAIN: dict[str, Any] = {"model": {}, "lora": {}, "train": {}}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "checkpointed": {"train": {"gradient_checkpointing": True}},
    "eager": {"model": {"attention": "eager"}},
    "dropout": {"lora": {"dropout": 0.05}},
    "nf4": {"model": {"quantization": "nf4"}},
    "float32 under autocast": {"model": {"dtype": "float32"}},
    "float32": {"model": {"dtype": "float32"}, "train": {"precision": "float32"}},
    "no autocast": {"train": {"precision": "float32"}},
    "few modules": {"lora": {"target_modules": ["q_proj", "v_proj"]}},
}
BATCH = Batch(8, 497, 40)


def config_of(name: str, **more: Any) -> Any:
    return getattr(transformers, f"{name}Config")(**{"num_hidden_layers": 4, **ARCHITECTURES[name], **more})


def card(config: Any) -> ModelCard:
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    found = card_of(config.to_dict(), {name: list(p.shape) for name, p in model.named_parameters()})
    assert found is not None
    return found


def compared(name: str, setting: str) -> tuple[float, float]:
    """Give what the rule says and what is counted."""
    own = {table: PLAIN[table] | SETTINGS[setting].get(table, {}) for table in PLAIN}
    if name == "Gemma2":
        own["model"]["attention"] = "eager"
    model, lora, train = Model(id=name, **own["model"]), Lora(**own["lora"]), Train(**own["train"])
    by_rule = kept(card(config_of(name)), BATCH, model, lora, train)
    counted = count_saved(config_of(name), model, lora, train, 8, 497, 40)
    return by_rule.decoder + by_rule.head, counted.decoder + counted.head


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("setting", ["plain", "checkpointed", "eager", "nf4"])
def test_the_rule_is_within_15_percent_of_what_is_counted(name: str, setting: str) -> None:
    by_rule, counted = compared(name, setting)
    assert by_rule == pytest.approx(counted, rel=0.15)


@pytest.mark.parametrize("name", ["Llama", "Qwen2"])
@pytest.mark.parametrize("setting", sorted(set(SETTINGS) - {"plain", "checkpointed", "eager", "nf4"}))
def test_types_dropout_and_targets_count(name: str, setting: str) -> None:
    by_rule, counted = compared(name, setting)
    assert by_rule == pytest.approx(counted, rel=0.15)


def test_8b_with_a_trained_head() -> None:
    """Llama-3.1-8B: 45.2 bytes per token, layer and unit, and 16 for each weight that is trained."""
    config = config_of("Llama", num_hidden_layers=32, tie_word_embeddings=False)
    big, batch = card(config), Batch(8, 497, 2)
    model, train = Model(id="8B"), Train()
    weights = 2.0 * (big.parameters + big.unembedding + big.outside)
    assert weights == pytest.approx(16.06e9, rel=0.01)
    plain = training_memory(big, weights, batch, model, Lora(), train)
    counted = count_saved(config, model, Lora(), train, 8, 497, 2)
    assert counted.decoder / (8 * 497 * 32 * 4096) == pytest.approx(45.2, rel=0.01)
    assert plain.kept == pytest.approx(counted.decoder + counted.head, rel=0.03)
    with_head = training_memory(big, weights, batch, model, Lora(modules_to_save=["lm_head"]), train)
    assert with_head.trained - plain.trained == 16 * 128256 * 4096
    assert with_head.kept - plain.kept == 2 * 128256 * 4096  # a copy under autocast


def test_the_longest_example_of_the_data_counts() -> None:
    texts = DataCard(prompt=400, explanation=100, longest_prompt=2000, longest_explanation=800)
    lengths = Lengths.of(Train(), Prompt(template="x" * 40), Target(), texts)
    assert (lengths.prompt, lengths.longest_prompt) == (110, 510)
    assert lengths.longest(Train()) == (510 + 2, 2)
    assert lengths.longest(Train(max_length=256)) == (256, 2)


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_tensors_without_content_count_as_real_ones(precision: str) -> None:
    """A small Llama whose norms and activations a GPU's autocast treats as a CPU's does."""
    small = {"hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = transformers.LlamaConfig(vocab_size=96, num_hidden_layers=3, **small)
    settings, lora, train = Model(id="small"), Lora(r=4), Train(precision=precision)
    base = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).requires_grad_(False)
    model = attach_adapter(base, lora).train()
    ids, mask = torch.ones(2, 24, dtype=torch.int64), torch.ones(2, 24, dtype=torch.int64)
    labels = torch.full_like(ids, IGNORED)
    labels[:, 16:20] = 5
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": labels, "segments": torch.zeros_like(ids)}
    half = precision == "bfloat16"
    with (
        disable_input_dtype_casting(model, active=half),
        torch.autocast("cpu", torch.bfloat16, enabled=half),
        saved_storages(model) as kept,
    ):
        completion_loss(find_lens(model), inputs)
    real = sum(storage.nbytes() for storage in kept)
    counted = count_saved(config, settings, lora, train, 2, 24, 4)
    assert counted.decoder + counted.head == pytest.approx(real, rel=0.02)
