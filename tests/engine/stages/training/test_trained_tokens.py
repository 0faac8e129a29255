"""Learned tokens: their rows of the embeddings are trained and saved, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import evolve
from commands import engine
from drawn_tokenizers import byte_bpe
from facts import facts
from peft import PeftModel
from small_study import make_llama
from spec_problems import problems_of
from trainings import FAST, load, train
from transformers import AutoModelForCausalLM, AutoTokenizer

import engine as api
import store
from engine.errors import UsageError
from engine.stages.training.adapter import attach_adapter
from engine.stages.training.files import load_adapter
from engine.stages.training.trained_tokens import train_rows_alone
from specs.tables.experiment import Lora
from store.backend.locate import place_of

LORA = Lora(r=2, modules_to_save=["embed_tokens"], trained_tokens=["<pad>"])


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.manual_seed(1)
    return make_llama(
        tmp_path / "model",
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tied=request.param,
    )


def spec_of(folder: Path, tmp_path: Path, rated_file: Path) -> Path:
    spec = tmp_path / "pause.toml"
    spec.write_text(
        f"""
name = "pause"
store = "pause.store"
model = {{ id = "{folder}", dtype = "float32", device = "cpu" }}
prompt = {{ template = "{{response}}", chat_template = false }}
target = {{ content = "label+filler", filler = "<pad>", placement = "before" }}
lora = {{ r = 2, modules_to_save = ["embed_tokens"], trained_tokens = ["<pad>"] }}
train = {{ steps = 4, batch_size = 4, lr = 1e-2, precision = "float32" }}
[data]
source = "{rated_file}"
columns = {{ label = "rating", explanation = "why" }}
"""
    )
    return spec


def test_a_study_learns_its_pause_token_and_leaves_all_others(
    folder: Path, tmp_path: Path, rated_file: Path
) -> None:
    spec = spec_of(folder, tmp_path, rated_file)
    engine("execute", spec)
    base = AutoModelForCausalLM.from_pretrained(folder)
    before = base.get_input_embeddings().weight.detach().clone()
    head = base.get_output_embeddings().weight.detach().clone()
    tree = store.open_store(tmp_path / "pause.store")["pause"]
    (adapter,) = (tmp_path / "pause.store").glob("train/*/adapter")
    model: Any = PeftModel.from_pretrained(base, adapter)
    after = model.get_base_model().get_input_embeddings().modules_to_save["default"].weight
    row = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("<pad>")
    moved = (after != before).any(dim=1).nonzero().flatten().tolist()
    assert moved == [row]
    assert torch.equal(model.get_base_model().get_output_embeddings().weight, head)
    trained = (
        sum(parameter.numel() for name, parameter in model.named_parameters() if "lora_" in name)
        + after.shape[1]
    )
    assert tree["summary"].to_dataset()["trained_parameters"].item() == trained
    assert tree["evaluate"].to_dataset()["label_logprob"].notnull().all()
    assert api.load_adapter(tmp_path / "pause.store", "seed=0").model is not None


TRAINED = [
    Lora(r=2, modules_to_save=["embed_tokens"]),
    Lora(r=2, modules_to_save=["lm_head"]),
    Lora(r=2, target_modules=["q_proj", "embed_tokens"]),
    LORA,
]


@pytest.mark.parametrize("lora", TRAINED)
@pytest.mark.parametrize("folder", [True], indirect=True, ids=["tied"])
def test_an_adapter_of_tied_embeddings_warns_of_nothing(
    folder: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder, lora: Lora
) -> None:
    """Trained, with a checkpoint, saved and loaded: the copy is what it gives, and the other stays."""
    tokenizer, base = AutoTokenizer.from_pretrained(folder), load(folder)
    train(base, tokenizer, tmp_path, lora=lora, settings=evolve(FAST, checkpoint_every=1))
    model = load_adapter(base, place_of(tmp_path))
    assert [str(warning.message) for warning in recwarn if "embed" in str(warning.message)] == []
    bare = model.get_base_model()
    ends = bare.get_input_embeddings(), bare.get_output_embeddings()
    assert sum(hasattr(end, "modules_to_save") or hasattr(end, "lora_embedding_A") for end in ends) == 1


def test_gradients_of_other_rows_are_none(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = attach_adapter(load(folder), LORA)
    untrained = train_rows_alone(model, tokenizer, LORA.trained_tokens)
    weight = model.get_base_model().get_input_embeddings().modules_to_save["default"].weight
    assert untrained == weight.numel() - weight.shape[1]
    row = tokenizer.convert_tokens_to_ids("<pad>")
    ids = torch.tensor([[row, 5, 6, row, 7]])
    model(input_ids=ids, labels=ids).loss.backward()
    assert weight.grad[row].any() and not weight.grad[torch.arange(len(weight)) != row].any()


def test_tokens_that_cannot_be_learned_are_refused(folder: Path, tmp_path: Path, rated_file: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with pytest.raises(UsageError, match=facts("lora.trained_tokens", "<pda>", "<pad>")):
        train_rows_alone(attach_adapter(load(folder), LORA), tokenizer, ["<pda>"])
    vocabulary = byte_bpe(["Ġgood", "goods"])
    vocabulary.add_tokens(["<good>"])
    with pytest.raises(
        UsageError, match=facts("lora.trained_tokens", "' good'", "'<good>', 'good', 'goods'")
    ) as caught:
        train_rows_alone(attach_adapter(load(folder), LORA), vocabulary, [" good"])
    assert "Ġ" not in str(caught.value)
    norm = Lora(r=2, modules_to_save=["norm"])
    with pytest.raises(UsageError, match=facts("lora.trained_tokens", '"embed_tokens"', "modules_to_save")):
        train_rows_alone(attach_adapter(load(folder), norm), tokenizer, ["<pad>"])
    base = 'name = "demo"\nmodel.id = "m"\ndata.source = "s.csv"\n'
    (problem,) = problems_of(tmp_path, 'lora.trained_tokens = ["<pad>"]\n', base)
    assert problem.key == "lora.trained_tokens" and "modules_to_save" in problem.message
    spec = spec_of(folder, tmp_path, rated_file)
    ended = engine("execute", spec, "--set", "train.weight_decay=0.1", code=2)
    assert "train.weight_decay" in ended.output and "lora.trained_tokens" in ended.output
