"""Entropies of attention heads and activations while a model runs, against transformers' own weights."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models
import torch
from facts import facts
from tiny_models import MODELS, SAME_HEADS, SMALL, adapt
from torch import Tensor
from transformers import AttentionInterface

from engine.errors import EngineError
from engine.models.attention_heads import check_heads, watching_heads
from engine.models.lens import find_lens

# Weights this large make rows that are far from even, so that a wrong mask or scale shows.
SPREAD = {"initializer_range": 0.7}
# By ways that nobody can watch: past transformers' interface, or with a position bias.
REFUSED = ("falcon", "inkling", "mpt, a scale that it does not read", "recurrent gemma")
ATTENDING = {
    **{name: model for name, model in MODELS.items() if name not in REFUSED},
    "gemma 2, soft-capped": (
        "Gemma2Config",
        SMALL | {"attn_logit_softcapping": 2.0, "sliding_window": 3, "query_pre_attn_scalar": 3},
    ),
    "gemma 3, sliding": ("Gemma3TextConfig", SMALL | {"sliding_window": 3, "sliding_window_pattern": 2}),
    "gpt-oss, with sinks": ("GptOssConfig", SMALL | {"num_local_experts": 4, "sliding_window": 3}),
    "gpt2, scaled by layer": (
        "GPT2Config", MODELS["gpt2"][1] | {"scale_attn_by_inverse_layer_idx": True},
    ),
}  # fmt: skip
IDS = torch.tensor([[5, 9, 33, 2, 71, 8, 14], [4, 4, 90, 17, 6, 3, 3]])
RIGHT = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0]])
LEFT = RIGHT.flip(1)


def build(name: str, implementation: str = "eager") -> Any:
    kind, options = ATTENDING[name]
    model = tiny_models.build(kind, options | SPREAD, attn_implementation=implementation)
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith("sinks"):
            torch.nn.init.normal_(parameter)
    return model


def own_entropies(model: Any, mask: Tensor, positions: Tensor) -> Tensor:
    """Entropies [L, B, P, H] of the weights that the model itself gives out."""
    with torch.no_grad():
        weights = model(input_ids=IDS, attention_mask=mask, output_attentions=True).attentions
    rows = torch.arange(2)[:, None]
    return torch.stack([-torch.xlogy(w, w).sum(dim=3).transpose(1, 2)[rows, positions] for w in weights])


def watched(model: Any, mask: Tensor, positions: Tensor, layers: list[int]) -> Tensor:
    lens = find_lens(model)
    with torch.no_grad(), watching_heads(lens, layers, positions) as caught:
        lens.last_hidden(IDS, mask)
    return torch.stack(caught)


@pytest.mark.parametrize("mask", [RIGHT, LEFT], ids=["right", "left"])
@pytest.mark.parametrize("name", ATTENDING)
def test_entropies_are_those_of_the_models_own_weights(name: str, mask: Tensor) -> None:
    model = build(name)
    positions = torch.tensor([[0, 3, 6], [1, 4, 2]] if mask is RIGHT else [[0, 3, 6], [2, 6, 5]])
    truth = own_entropies(model, mask, positions)
    ours = watched(model, mask, positions, [0, 1, 2, 3])
    assert ours[0].isnan().all()  # an embedding does not attend
    torch.testing.assert_close(ours[1:], truth, atol=2e-5, rtol=0)
    assert truth.std() > 0.05


@pytest.mark.parametrize("name", REFUSED)
def test_attention_that_cannot_be_watched_is_refused(name: str) -> None:
    with pytest.raises(EngineError, match=facts("probe.heads")):
        check_heads(find_lens(tiny_models.build(*MODELS[name], attn_implementation="eager")))


@pytest.mark.parametrize("name", ["llama", "mistral", "gpt2", "gpt-neox", "mixtral"])
def test_an_adapter_changes_the_heads_and_an_attention_function_does_not(name: str) -> None:
    positions = torch.tensor([[5, 6], [3, 4]])
    plain = watched(build(name), RIGHT, positions, [1, 3])
    for mask in (RIGHT, torch.ones_like(RIGHT)):  # without padding sdpa is given no mask at all
        eager = watched(build(name), mask, positions, [1, 3])
        torch.testing.assert_close(watched(build(name, "sdpa"), mask, positions, [1, 3]), eager)
    adapted = adapt(build(name))
    ours = watched(adapted, RIGHT, positions, [1, 3])
    truth = own_entropies(adapted, RIGHT, positions)
    torch.testing.assert_close(ours, truth[[0, 2]], atol=2e-5, rtol=0)
    assert (ours - plain).abs().max() > 1e-3


def test_watching_changes_no_output_and_leaves_nothing_behind() -> None:
    before = AttentionInterface.get_interface
    model = build("qwen3", "sdpa")
    lens = find_lens(model)
    with torch.no_grad():
        plain = lens.last_hidden(IDS, RIGHT)
        with watching_heads(lens, [1], torch.tensor([[0], [0]])):
            assert torch.equal(lens.last_hidden(IDS, RIGHT), plain)
    assert AttentionInterface.get_interface is before
    with pytest.raises(ZeroDivisionError), watching_heads(lens, [1], torch.tensor([[0]])):
        raise ZeroDivisionError
    assert AttentionInterface.get_interface is before


def test_a_mask_that_is_left_to_the_function_is_made_here() -> None:
    """Flash attention is given the padding alone, and window and causality as options.

    So it is where queries are only the last tokens, and keys of those before are kept.
    """
    model = build("mistral")
    positions = torch.tensor([[3, 6], [2, 4]])
    truth = watched(model, RIGHT, positions, [1])

    from engine.models import attention_heads as heads

    def with_padding_alone(
        module: Any, query: Tensor, key: Tensor, mask: Any, positions: Tensor, options: Any
    ) -> Tensor:
        assert options["sliding_window"] == 4
        seen = rows(module, query, key, RIGHT, positions, options)
        assert torch.equal(rows(module, query[:, :, 2:], key, RIGHT, positions - 2, options), seen)
        return seen

    rows = heads._mask_rows
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heads, "_mask_rows", with_padding_alone)
        torch.testing.assert_close(watched(model, RIGHT, positions, [1]), truth)


@pytest.mark.parametrize(
    ("kind", "options", "why"),
    [
        ("FalconConfig",
         {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
         "layer 1 … FalconModel"),
        ("BloomConfig", {"vocab_size": 96, "hidden_size": 32, "n_layer": 2, "n_head": 4},
         "layer 1 of BloomModel"),
    ],
)  # fmt: skip
def test_an_attention_that_cannot_be_caught_is_named_with_the_key(
    kind: str, options: dict[str, Any], why: str
) -> None:
    lens = find_lens(tiny_models.build(kind, options))
    with pytest.raises(EngineError, match=facts("probe.heads", "true", why, "false")):
        check_heads(lens)


def test_heads_that_the_config_does_not_know_are_named() -> None:
    model = tiny_models.build("LlamaConfig", SAME_HEADS)
    model.config.num_attention_heads = 2
    with pytest.raises(EngineError, match=facts("layer 1", "4 heads", "config", "2")):
        check_heads(find_lens(model))
