"""In which types a training computes, and in which it keeps what it trains."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import MODELS, SMALL, build
from torch import nn
from trainings import EXAMPLES, interrupted, load, saved_weights, train

from engine.errors import UsageError
from engine.models.base_model import as_it_was
from engine.models.lens import find_lens
from engine.stages.training.files import load_adapter
from specs.tables.experiment import Lora, Train
from store.backend.locate import place_of

HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
RANK = 2
LORA = Lora(r=RANK)


@contextmanager
def watching_linears() -> Iterator[list[tuple[bool, bool, torch.dtype, torch.dtype, torch.dtype]]]:
    """Collect of every linear that runs: is it LoRA's, does it train; types of weight, input, output."""
    seen: list[Any] = []

    def hook(module: nn.Module, arguments: Any, output: Any) -> None:
        if isinstance(module, nn.Linear):
            weight = module.weight
            seen.append(
                (RANK in weight.shape, module.training, weight.dtype, arguments[0].dtype, output.dtype)
            )

    handle = nn.modules.module.register_module_forward_hook(hook)
    try:
        yield seen
    finally:
        handle.remove()


def settings(precision: str, **options: Any) -> Train:
    defaults = {"steps": 3, "batch_size": 2, "lr": 1e-2, "warmup": 0.0}
    return Train(precision=precision, **(defaults | options))


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_all_products_of_a_loss_are_autocast_and_adapters_stay_in_float32(
    tiny_model: Path, tokenizer: Any, tmp_path: Path, weights: torch.dtype, precision: str
) -> None:
    """In validations as well; what the model has in half precision is never made float32 for an adapter."""
    stopped = settings(precision, early_stopping=2, validate_every=1)
    with watching_linears() as seen:
        train(
            load(tiny_model, weights),
            tokenizer,
            tmp_path,
            EXAMPLES,
            EXAMPLES[:3],
            settings=stopped,
            lora=LORA,
        )
    for lora, _, weight, taken, given in seen:
        assert weight == (torch.float32 if lora else weights)
        assert given == HALVES[precision]
        if weights == HALVES[precision]:
            assert taken == weights
    assert {(lora, training) for lora, training, *_ in seen} == {
        (lora, training) for lora in (True, False) for training in (True, False)
    }


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_float32_autocasts_nothing(
    tiny_model: Path, tokenizer: Any, tmp_path: Path, weights: torch.dtype
) -> None:
    with watching_linears() as seen:
        train(load(tiny_model, weights), tokenizer, tmp_path, settings=settings("float32"), lora=LORA)
    for lora, _, weight, taken, given in seen:
        assert weight == taken == given == (torch.float32 if lora else weights)


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_precisions_give_losses_that_differ_a_little(
    tiny_model: Path, tokenizer: Any, tmp_path: Path, weights: torch.dtype
) -> None:
    base, losses = load(tiny_model, weights), {}
    for precision in ("float32", "bfloat16"):
        chosen = settings(precision, steps=6)
        losses[precision] = train(base, tokenizer, tmp_path / precision, settings=chosen).curves["loss"]
    assert not np.array_equal(losses["bfloat16"], losses["float32"])
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=2e-2)


KINDS = {
    "llama": MODELS["llama"],
    "gpt2": MODELS["gpt2"],
    "opt": MODELS["opt"],
    "gemma": MODELS["gemma"],
    "bloom": ("BloomConfig", {"vocab_size": 96, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_precision_beside_every_type_of_weights_works_or_is_refused(
    tokenizer: Any, tmp_path: Path, kind: str
) -> None:
    """Layer norms on a CPU do not mix one half precision with the other."""
    for dtype, precision in itertools.product(("float32", *HALVES), repeat=2):
        base = build(*KINDS[kind]).to(getattr(torch, dtype))
        home = tmp_path / f"{dtype} {precision}"
        normed = any(isinstance(module, nn.LayerNorm) for module in base.modules())
        if normed and {dtype, precision} == set(HALVES):
            said = rf'train.precision: found "{precision}" with model.dtype = "{dtype}", .* on a CPU \('
            with pytest.raises(UsageError, match=said):
                train(base, tokenizer, home, settings=settings(precision, steps=1))
            assert not list(home.rglob("*.safetensors"))
        else:
            trained = train(base, tokenizer, home, settings=settings(precision, steps=1))
            assert np.isfinite(trained.summary["train_loss"])


def test_float16_scales_its_gradients(tiny_model: Path, tokenizer: Any, tmp_path: Path) -> None:
    """Steps whose scaled gradients overflow are left out and counted; norms, and clipping, see true ones."""
    base = load(tiny_model)
    still = train(base, tokenizer, tmp_path / "still", settings=settings("float32", steps=8, lr=1e-12))
    chosen = settings("float16", steps=8)
    trained = train(base, tokenizer, tmp_path / "scaled", settings=chosen)
    finite = np.isfinite(trained.curves["grad_norm"])
    first = int(np.argmax(finite))  # its weights are still those at the beginning
    assert finite[first:].all() and first == trained.summary["train_steps_skipped"] < 6
    assert trained.curves["grad_norm"][first] == pytest.approx(still.curves["grad_norm"][first], rel=5e-2)
    interrupted(6, base, tokenizer, tmp_path / "stopped", settings=chosen)
    scaler = torch.load(next((tmp_path / "stopped").rglob("scaler.pt")), weights_only=True)
    assert scaler["scale"] == 2.0 ** (16 - first)
    resumed = train(base, tokenizer, tmp_path / "stopped", settings=chosen)
    np.testing.assert_array_equal(resumed.curves["loss"], trained.curves["loss"])


MODULES = ["norm", "lm_head", "embed_tokens"]
TINY = {
    "untied": ("LlamaConfig", SMALL | {"tie_word_embeddings": False}),
    "tied": ("LlamaConfig", SMALL | {"tie_word_embeddings": True}),
    "layer norms with biases": MODELS["gpt-neox"],
}


@pytest.mark.parametrize("precision", ["float32", "of the weights"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("kind", "modules"),
    [("untied", MODULES), ("tied", ["lm_head"]), ("tied", ["embed_tokens"]), ("tied", MODULES),
     ("untied", ["self_attn"]), ("layer norms with biases", ["final_layer_norm", "the head"])],
)  # fmt: skip
def test_modules_trained_in_full_are_kept_saved_and_loaded_in_float32(
    tokenizer: Any, tmp_path: Path, kind: str, modules: list[str], dtype: torch.dtype, precision: str
) -> None:
    """Half precision resolves no step of 2e-4 beside weights of 1: the modules would not move at all."""
    name, options = TINY[kind]
    base = build(name, options).to(dtype)
    ids = torch.tensor([[10, 11, 12]])
    before = base(input_ids=ids).logits
    names = {id(module): name for name, module in base.named_modules()}
    head = names[id(base.get_output_embeddings())]  # releases of transformers call it differently
    modules = [head if module == "the head" else module for module in modules]
    lora = Lora(
        r=2,
        modules_to_save=modules,
        target_modules="all-linear" if "self_attn" not in modules else ["up_proj"],
    )
    if precision != "float32":
        precision = str(dtype).removeprefix("torch.")
    chosen = Train(steps=18, batch_size=2, lr=2e-4, precision=precision)
    train(base, tokenizer, tmp_path, settings=chosen, lora=lora)
    weights = saved_weights(tmp_path)
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    originals = dict(base.named_parameters(remove_duplicate=False))
    full = {name: weight for name, weight in weights.items() if "lora_" not in name}
    assert full
    for key, weight in full.items():
        moved = (weight - originals[key.removeprefix("base_model.model.")].float()).abs()
        assert 1e-4 < moved.max() < 18 * 2e-4 * 1.1, key
    with as_it_was(base):
        loaded = load_adapter(base, place_of(tmp_path))
        for key, parameter in loaded.named_parameters():
            if "modules_to_save" in key:
                assert torch.equal(parameter, full[key.replace(".modules_to_save.default", "")])
        assert not torch.equal(loaded(input_ids=ids).logits, before)
        # Around the modules all has the type that it has without the adapter.
        assert find_lens(loaded).last_hidden(ids, torch.ones_like(ids)).dtype == dtype
        assert loaded.generate(input_ids=ids, max_new_tokens=2, do_sample=False).shape == (1, 5)
    assert torch.equal(base(input_ids=ids).logits, before)
