"""The lens of every architecture: at the last layer it is the model itself."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models
import torch
import transformers
from facts import facts
from tiny_models import MODELS

from engine.errors import EngineError
from engine.models.base_model import as_it_was
from engine.models.batching import pad_right
from engine.models.lens import find_lens
from engine.models.lens_check import check_lens
from engine.process_group.alone import IGNORED
from engine.stages.training.adapter import attach_adapter
from engine.stages.training.loss import completion_loss
from specs.tables.experiment import Lora

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


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", MODELS)
def test_right_padding_needs_no_mask(name: str, attention: str) -> None:
    """Not a bit differs, at any token, in any layer."""
    try:
        model = tiny_models.build(*MODELS[name], attn_implementation=attention)
    except ValueError:
        pytest.skip(f"has no {attention}")
    lens = find_lens(model)
    generator = torch.Generator().manual_seed(0)
    lengths = (9, 23, 1, 30)
    sequences = [torch.randint(3, 90, (count,), generator=generator).tolist() for count in lengths]
    ids, mask = pad_right(sequences, 0, lens.device)
    everywhere = torch.arange(ids.shape[1]).expand(ids.shape)
    with torch.no_grad():
        with lens.watching([0, 1, 2, 3], everywhere) as masked:
            masked.append(lens.last_hidden(ids, mask))
        with lens.watching([0, 1, 2, 3], everywhere) as plain:
            plain.append(lens.last_hidden(*lens.pad(sequences, 0)))
    kept = mask.bool()
    assert lens.pad(sequences, 0)[1] is None
    assert all(torch.equal(own[kept], other[kept]) for own, other in zip(plain, masked, strict=True))


def test_a_models_own_code_gets_its_mask() -> None:
    model = build("llama")
    lens = find_lens(model)
    model.model.__class__ = type("Own", (type(model.model),), {"__module__": "own_code"})
    ids, mask = lens.pad([[4, 5], [6]], 0)
    assert ids.tolist() == [[4, 5], [6, 0]] and mask.tolist() == [[1, 1], [1, 0]]


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_every_architecture_passes_the_check_that_loading_makes(name: str, dtype: torch.dtype) -> None:
    model = build(name).to(dtype)
    assert check_lens(model).layers is find_lens(model).layers
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name", [name for name in MODELS if name != "bart"])
def test_the_loss_of_the_training_is_the_models_own(name: str) -> None:
    """Bart's family is left out: its loss takes labels that the caller has shifted."""
    model = build(name)
    labels = torch.where(MASK.bool(), IDS, IGNORED).index_fill(1, torch.tensor([0, 1]), IGNORED)
    own = model(input_ids=IDS, attention_mask=MASK, labels=labels).loss
    batch = {"input_ids": IDS, "attention_mask": MASK, "labels": labels, "segments": torch.zeros_like(IDS)}
    assert completion_loss(find_lens(model), batch).item() == pytest.approx(own.item(), rel=1e-5)


class _Doing(transformers.LlamaForCausalLM):
    """A Llama that does something to its logits which no key of its configuration tells."""

    def forward(self, *args: Any, **options: Any) -> Any:
        output = super().forward(*args, **options)
        output.logits = self.doing(output.logits)
        return output


def doing(function: Any) -> Any:
    model = _Doing(transformers.LlamaConfig(**tiny_models.SMALL)).eval()
    model.doing = function
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x / 8, r"states of _Doing unembed to are (8|8\.00\d|7\.99\d) times the model's own"),
        (lambda x: x * 1.05, r"are 0\.952\d* times the model's own"),
        (lambda x: 50 * torch.tanh(x / 50), "differ from the model's own by up to"),
        (lambda x: x + torch.linspace(-3, 3, 96), "differ from the model's own by up to"),
        (lambda x: x.index_fill(-1, torch.arange(10), -100.0), "differ from the model's own by up to"),
        (lambda x: x[..., :90], r"_Doing.*90 logits.*96 tokens"),
        (lambda x: x.log(), r"_Doing.*finite"),
    ],
    ids=["scaled", "scaled a little", "soft-capped", "biased", "masked", "cut", "not finite"],
)  # fmt: skip
def test_what_is_done_to_logits_unknown_to_the_lens_is_refused(
    function: Any, message: str, dtype: torch.dtype
) -> None:
    """Logits of an untrained model are near 0, where no soft-cap shows unless the check makes them large."""
    with pytest.raises(EngineError, match=message):
        check_lens(doing(function).to(dtype))
    check_lens(doing(lambda x: x).to(dtype))


def test_a_wrong_cap_is_refused() -> None:
    model = build("gemma 2, soft-capped")
    model.config.final_logit_softcapping = 30.0
    check_lens(model)
    model.forward = _with_cap(model, 40.0)
    with pytest.raises(EngineError, match=facts("Gemma2ForCausalLM", "unembed")):
        check_lens(model)


def _with_cap(model: Any, cap: float) -> Any:
    own = type(model).forward

    def forward(**inputs: Any) -> Any:
        named, model.config.final_logit_softcapping = model.config.final_logit_softcapping, cap
        try:
            return own(model, **inputs)
        finally:
            model.config.final_logit_softcapping = named

    return forward


def test_a_norm_that_is_not_found_is_refused() -> None:
    model = build("llama")
    model.model.norm_of_another_name = model.model.norm
    del model.model.norm
    own = type(model.model).forward

    def forward(**inputs: Any) -> Any:
        model.model.norm = model.model.norm_of_another_name
        try:
            return own(model.model, **inputs)
        finally:
            del model.model.norm

    model.model.forward = forward
    with pytest.raises(EngineError, match=facts("last layer", "LlamaForCausalLM", "unembed")):
        check_lens(model)


def test_layers_that_run_twice_or_pass_several_streams_are_refused() -> None:
    model = build("llama")
    model.model.layers[1] = model.model.layers[0]
    with pytest.raises(EngineError, match=facts("3 layers")):
        check_lens(model)


def test_a_model_that_sees_later_tokens_is_refused() -> None:
    model = transformers.BertGenerationDecoder(
        transformers.BertGenerationConfig(
            vocab_size=96, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64
        )
    ).eval()
    with pytest.raises(EngineError, match=facts("BertGenerationDecoder", "tokens")):
        check_lens(model)


def test_a_model_without_an_unembedding_says_so() -> None:
    model = build("llama")
    model.lm_head = torch.nn.Identity()
    with pytest.raises(EngineError, match=facts("LlamaForCausalLM", "unembedding")):
        find_lens(model)
