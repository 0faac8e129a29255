"""Models and tokenizers that cannot serve are named, with what would."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_models
import torch
import transformers
from commands import engine
from facts import facts
from gguf_files import gguf_of
from safetensors.torch import load_file, save_file
from small_study import small_spec
from tiny_models import MODELS

from engine.data import prepare as data_stage
from engine.errors import EngineError, UsageError
from engine.models import loading as models
from engine.models.batching import padding_id
from engine.planning.plan import make_plan
from engine.stages.training.loss import Collator
from engine.text.targets import cell_writer
from specs import load_spec, resolve
from specs.tables.experiment import Model
from store import Ledger


def test_a_model_comes_frozen_with_its_tokenizer(tiny_model: Path) -> None:
    model, tokenizer = models.load(Model(id=str(tiny_model), dtype="float32"))
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert tokenizer("good")["input_ids"]


def test_a_tokenizer_without_offsets_is_refused(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = SimpleNamespace(is_fast=False)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: slow)
    with pytest.raises(EngineError, match=facts("offsets", "fast tokenizer")):
        models.load_tokenizer(Model(id=str(tiny_model)))


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (Model(id="no/such-model"), EngineError, r'model\.id.*"no/such-model"'),
        (Model(id="package:no_such_package/a.gguf"), UsageError, '"no_such_package"'),
        (Model(id="package:../../etc"), UsageError, "expected package:NAME/FILE"),
        (Model(id="package:attrs/../../x.gguf"), UsageError, "expected package:NAME/FILE"),
        (Model(id="package:attrs/none.gguf"), UsageError, r'"attrs".*"none\.gguf"'),
    ],
)
def test_models_that_are_not_there(model: Model, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        models.load_tokenizer(model)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_quantised_weights_need_a_gpu(tiny_model: Path) -> None:
    with pytest.raises(UsageError, match=facts("model.quantization", '"nf4"', "CUDA GPU")):
        models.load(Model(id=str(tiny_model), quantization="nf4"))


def altered(source: Path, folder: Path, change: Any) -> Path:
    """Copy a model, its weights changed by a function of their dictionary."""
    shutil.copytree(source, folder)
    file = folder / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, {"format": "pt"})
    return folder


def test_missing_weights_are_named(tiny_model: Path, tmp_path: Path) -> None:
    def drop(weights: dict[str, torch.Tensor]) -> None:
        for name in [name for name in weights if ".layers.1." in name]:
            del weights[name]

    folder = altered(tiny_model, tmp_path / "model", drop)
    with pytest.raises(
        EngineError,
        match=facts("9", "model.layers.1.", "4 more"),
    ):
        models.load(Model(id=str(folder), dtype="float32"))


def test_weights_of_another_shape_are_named(tiny_model: Path, tmp_path: Path) -> None:
    def cut(weights: dict[str, torch.Tensor]) -> None:
        weights["model.norm.weight"] = weights["model.norm.weight"][:16].clone()

    folder = altered(tiny_model, tmp_path / "model", cut)
    with pytest.raises(
        EngineError,
        match=facts("1", "model.norm.weight", "[16]", "[32]"),
    ):
        models.load(Model(id=str(folder), dtype="float32"))


def test_weights_without_a_place_are_a_warning(
    tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = altered(
        tiny_model,
        tmp_path / "model",
        lambda weights: weights.update({"model.layers.9.extra": torch.ones(2)}),
    )
    with pytest.warns(UserWarning, match=facts("1", "model.layers.9.extra")):
        models.load(Model(id=str(folder), dtype="float32"))
    said = capfd.readouterr().err
    assert "LOAD REPORT" not in said and "[transformers]" not in said


@pytest.mark.parametrize("name", ["llama, tied", "gpt2", "gemma 2, soft-capped"])
def test_a_tied_head_is_no_miss(
    name: str, tiny_model: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    folder = saved(name, tiny_model, tmp_path)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    models.load(Model(id=str(folder), dtype="float32", attention="eager"))
    assert not [warning for warning in recwarn if "model.id" in str(warning.message)]


def saved(name: str, tiny_model: Path, tmp_path: Path) -> Path:
    """Save one of the tiny models, with the tokenizer of another."""
    folder = tmp_path / "saved"
    tiny_models.build(*MODELS[name]).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_model / file, folder)
    return folder


def test_weights_that_a_gguf_file_lacks_are_named_and_nothing_is_cached(
    tiny_model: Path, tmp_path: Path
) -> None:
    whole = gguf_of(tiny_model, tmp_path / "whole.gguf")
    models.load(Model(id=str(whole), dtype="float32"))
    partial = gguf_of(tiny_model, tmp_path / "partial.gguf", leave_out="blk.1.")
    for _ in range(2):
        with pytest.raises(EngineError, match=facts("partial.gguf", "9", "model.layers.1.")):
            models.load(Model(id=str(partial), dtype="float32"))


@pytest.mark.parametrize("name", ["gemma 2, soft-capped", "mpt, a scale that it does not read"])
def test_an_attention_that_an_architecture_lacks_names_the_key(
    name: str, tiny_model: Path, tmp_path: Path
) -> None:
    folder = saved(name, tiny_model, tmp_path)
    with pytest.raises(
        UsageError, match=r'model.attention: found "sdpa", which .* expected "eager"$'
    ) as found:
        models.load(Model(id=str(folder), dtype="float32"))
    assert "attn_implementation" not in str(found.value) and len(str(found.value)) < 400
    models.load(Model(id=str(folder), dtype="float32", attention="eager"))


def test_flash_attention_without_its_package_names_the_key(tiny_model: Path) -> None:
    with pytest.raises(UsageError, match=facts("model.attention", '"flash_attention_2"', '"eager"')):
        models.load(Model(id=str(tiny_model), attention="flash_attention_2"))


def test_a_model_that_continues_no_text_is_refused_in_a_sentence(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "t5")
    config = transformers.T5Config(vocab_size=320, d_model=32, d_ff=64, d_kv=8, num_layers=2, num_heads=4)
    transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
    with pytest.raises(EngineError, match=facts("T5")) as found:
        models.load(Model(id=str(tmp_path / "t5")))
    assert len(str(found.value)) < 400


def test_a_wrong_lens_is_refused_when_the_model_is_loaded(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = transformers.LlamaForCausalLM.forward

    def forward(*arguments: Any, **options: Any) -> Any:
        output = own(*arguments, **options)
        output.logits = output.logits / 8
        return output

    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", forward)
    with pytest.raises(EngineError, match=facts("LlamaForCausalLM", "8 times")):
        models.load(Model(id=str(tiny_model), dtype="float32"))


def test_the_loss_that_execute_records_of_a_granite_is_its_own(
    tiny_model: Path, rated_file: Path, tmp_path: Path
) -> None:
    """One step, whose batch is all training examples: an adapter that has just begun changes nothing."""
    torch.manual_seed(0)
    folder = tmp_path / "granite"
    sizes = tiny_models.SMALL | {"vocab_size": 320, "max_position_embeddings": 512, "logits_scaling": 8.0}
    granite = transformers.GraniteForCausalLM(transformers.GraniteConfig(**sizes)).eval()
    granite.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tiny_model / file, folder)
    spec = small_spec(tmp_path, folder, rated_file, train="steps = 1")
    spec.write_text(spec.read_text().replace("train = 8", "train = 4"))
    engine("execute", spec)
    plan = make_plan(resolve(load_spec(spec)))
    cell = plan.cells[0]
    tokenizer = models.load_tokenizer(Model(id=str(folder)))
    rows = data_stage.load(plan.root.under(f"data/{cell.keys['data']}"), "train", 4)
    writer = cell_writer(plan, cell, tokenizer, lambda: rows, test=False)
    batch = Collator(padding_id(tokenizer))([writer.encode(row) for row in rows])
    with torch.no_grad():
        own = granite(**batch).loss.item()
    recorded = Ledger(plan.root).record("train", cell.keys["train"])["summary"]["train_loss"]
    assert recorded == pytest.approx(own, rel=1e-5)
