"""Models and tokenizers that cannot serve are named, with what would."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers

from engine import models
from engine.errors import EngineError, UsageError
from specs.model import Model


def test_a_model_comes_frozen_with_its_tokenizer(tiny_model: Path) -> None:
    model, tokenizer = models.load(Model(id=str(tiny_model), dtype="float32"))
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert tokenizer("good")["input_ids"]


def test_a_tokenizer_without_offsets_is_refused(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = SimpleNamespace(is_fast=False)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: slow)
    with pytest.raises(EngineError, match="gives no character offsets; expected a fast tokenizer"):
        models.load_tokenizer(Model(id=str(tiny_model)))


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (Model(id="no/such-model"), EngineError, 'model.id: cannot load "no/such-model"'),
        (Model(id="package:no_such_package/a.gguf"), UsageError, 'no Python package "no_such_package"'),
        (Model(id="package:attrs/none.gguf"), UsageError, 'the package "attrs" holds no "none.gguf"'),
    ],
)
def test_models_that_are_not_there(model: Model, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        models.load_tokenizer(model)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_quantised_weights_need_a_gpu(tiny_model: Path) -> None:
    with pytest.raises(UsageError, match=r'model.quantization: found "nf4", which needs a CUDA GPU'):
        models.load(Model(id=str(tiny_model), quantization="nf4"))
