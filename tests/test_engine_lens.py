"""The lens of every architecture: at the last layer it is the model itself."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models
import torch
from tiny_models import MODELS

from engine.base_model import as_it_was
from engine.errors import EngineError
from engine.lens import find_lens
from engine.training.adapter import attach_adapter
from specs.model import Lora

IDS = torch.tensor([[5, 9, 33, 2, 71, 8], [4, 4, 90, 17, 6, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]])


def build(name: str) -> Any:
    return tiny_models.build(*MODELS[name])


@pytest.mark.parametrize("adapted", [False, True], ids=["base", "lora"])
@pytest.mark.parametrize("name", MODELS)
def test_the_last_layer_unembeds_to_the_models_own_logits(name: str, adapted: bool) -> None:
    model = build(name)
    if adapted:
        model = tiny_models.adapt(model)
    lens = find_lens(model)
    with torch.no_grad():
        truth = model(input_ids=IDS, attention_mask=MASK).logits
        torch.testing.assert_close(lens.logits(lens.last_hidden(IDS, MASK)), truth, rtol=1e-4, atol=1e-4)
        # The residual stream behind the last block, caught by a hook, goes the same way.
        positions = torch.tensor([[0, 3, 5], [1, 2, 4]])
        with lens.watching([0, 1, 2, 3], positions) as caught:
            lens.last_hidden(IDS, MASK)
        assert [tuple(hidden.shape) for hidden in caught] == [(2, 3, 32)] * 4
        own = truth[torch.arange(2)[:, None], positions]
        torch.testing.assert_close(lens.logits(lens.norm(caught[3])), own, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_is_the_models_own_residual_stream(name: str) -> None:
    model = build(name)
    lens = find_lens(model)
    positions = torch.arange(6).expand(2, 6)
    with torch.no_grad(), lens.watching([0, 1, 2], positions) as caught:
        # transformers lists the embedding, then each block's output; the last entry may be normed already.
        states = model(input_ids=IDS, attention_mask=MASK, output_hidden_states=True).hidden_states
    for own, theirs in zip(caught, states[:3], strict=True):
        torch.testing.assert_close(own[0], theirs[0])


def test_an_adapter_changes_the_layers_above_it_and_leaves_no_hook(tiny_model: Any) -> None:
    model = build("llama")
    before = {name: p.clone() for name, p in model.named_parameters()}
    with as_it_was(model):
        attach_adapter(model, Lora(r=2))
    assert {name: torch.equal(p, before[name]) for name, p in model.named_parameters()} == dict.fromkeys(
        before, True
    )
    lens = find_lens(model)
    with lens.watching([1, 2], torch.tensor([[0]])):
        pass
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_padded_vocabulary_is_cut_off() -> None:
    model = build("llama")
    model.config.vocab_size = 90
    lens = find_lens(model)
    assert lens.unembedding.vocab_size == 90
    assert lens.logits(torch.zeros(1, 32)).shape == (1, 90)


def test_a_model_without_a_known_norm_says_so() -> None:
    model = build("llama")
    model.model.norm_of_another_name = model.model.norm
    del model.model.norm
    with pytest.raises(EngineError, match="LlamaForCausalLM has no final norm or unembedding"):
        find_lens(model)
