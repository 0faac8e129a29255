"""What blocks add to the residual stream, held against the modules' own outputs and the stream itself."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import tiny_models
import torch
import transformers
from followed_models import EVERYWHERE, FOLLOWED, IDS, NORMED_AFTER, build, read
from tiny_models import MODELS, SMALL
from torch import Tensor, nn

from engine.errors import EngineError
from engine.models.block_streams import check_blocks, watching_blocks
from engine.models.lens import Lens, find_lens
from engine.planning.block_kinds import block_kind

PARALLEL = {"phi, biased head", "cohere, scaled", "cohere, scaled by 0", "falcon", "gpt-neox", "gpt-j"}

Output = tuple[str, float]  # a module within the block, and what its output is multiplied by before the sum
PLAIN = ("self_attn", 1.0), ("mlp", 1.0)
NORMED = ("post_attention_layernorm", 1.0), ("post_feedforward_layernorm", 1.0)
DEPTH = 1.4 / math.sqrt(3)
# What a block of an architecture adds of attention, and of its MLP, as its code says.
ADDED: dict[str, tuple[Output, Output]] = {
    "llama": PLAIN, "mistral": PLAIN, "qwen2": PLAIN, "qwen3": PLAIN, "gemma": PLAIN, "cohere, scaled": PLAIN,
    "phi, biased head": PLAIN, "phi3": PLAIN, "mixtral": PLAIN, "qwen2-moe": PLAIN, "stablelm": PLAIN,
    "gemma 2, soft-capped": NORMED, "gemma 3": NORMED, "olmo 2": NORMED,
    "glm 4": (("post_self_attn_layernorm", 1.0), ("post_mlp_layernorm", 1.0)),
    "granite": PLAIN, "granite, scaled": (("self_attn", 0.22), ("mlp", 0.22)),
    "minicpm3, scaled": (("self_attn", DEPTH), ("mlp", DEPTH)),
    "granite-moe": (("self_attn", 1.0), ("block_sparse_moe", 1.0)),
    "gpt2": (("attn", 1.0), ("mlp", 1.0)), "gpt-j": (("attn", 1.0), ("mlp", 1.0)),
    "gpt-neox": (("attention", 1.0), ("mlp", 1.0)), "gpt-neox, in order": (("attention", 1.0), ("mlp", 1.0)),
    "falcon": (("self_attention", 1.0), ("mlp", 1.0)),
    "falcon, one norm": (("self_attention", 1.0), ("mlp", 1.0)),
    "opt": (("self_attn", 1.0), ("fc2", 1.0)),
    "bloom": (("self_attention.dense", 1.0), ("mlp.dense_4h_to_h", 1.0)),
    "mpt, a scale that it does not read": (("attn", 1.0), ("ffn.down_proj", 1.0)),
    "recurrent gemma": (("temporal_block", 1.0), ("mlp_block", 1.0)),
}  # fmt: skip


def outputs_of(lens: Lens, paths: list[str]) -> dict[str, list[Tensor]]:
    """What these modules of every block give, [B, T, D] each."""
    found: dict[str, list[Tensor]] = {path: [] for path in paths}

    def keep(path: str) -> Callable[..., None]:
        def hook(_: nn.Module, _args: Any, output: Any) -> None:
            found[path].append((output[0] if isinstance(output, tuple) else output).reshape(2, 6, 32).clone())

        return hook

    hooks = [
        layer.get_submodule(path).register_forward_hook(keep(path)) for layer in lens.layers for path in paths
    ]
    with torch.no_grad():
        lens.last_hidden(IDS, torch.ones_like(IDS))
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("adapted", [False, True], ids=["base", "lora"])
@pytest.mark.parametrize("name", FOLLOWED)
def test_embedding_and_contributions_sum_to_the_final_stream(name: str, adapted: bool) -> None:
    lens = find_lens(build(name, adapted=adapted))
    kinds = check_blocks(lens).kinds
    assert set(kinds) <= {"attention", "mlp"}
    streams, within = read(lens, list(kinds))
    total = streams[0].clone()
    for layer in range(1, len(lens.layers) + 1):
        total += within[layer].nan_to_num().sum(dim=2)
        torch.testing.assert_close(total, streams[layer], rtol=1e-10, atol=1e-10)
    assert within[0].isnan().all() and within[1].isfinite().any()


@pytest.mark.parametrize("name", [name for name in ADDED if name in FOLLOWED])
def test_a_contribution_is_what_the_architecture_s_code_adds(name: str) -> None:
    lens = find_lens(build(name))
    streams, within = read(lens, ["attention", "mlp", "before_attention", "after_attention"])
    (attention, scale), (mlp, scale_of_mlp) = ADDED[name]
    outputs = outputs_of(lens, [attention, mlp])
    for layer in range(1, len(lens.layers) + 1):
        added, added_by_mlp, before, after = within[layer].unbind(2)
        torch.testing.assert_close(added, scale * outputs[attention][layer - 1])
        torch.testing.assert_close(added_by_mlp, scale_of_mlp * outputs[mlp][layer - 1])
        torch.testing.assert_close(before, streams[layer - 1])
        if name in PARALLEL:
            assert after.isnan().all()
        else:
            torch.testing.assert_close(after, before + added)


def test_only_the_layers_and_positions_asked_for_are_kept() -> None:
    lens = find_lens(build("llama"))
    _, whole = read(lens, ["mlp", "attention"])
    places = torch.tensor([[3, 1], [5, 0]])
    with torch.no_grad(), watching_blocks(lens, [0, 2], places, ["mlp"]) as within:
        lens.last_hidden(IDS, torch.ones_like(IDS))
    assert [tuple(part.shape) for part in within] == [(2, 2, 1, 32)] * 2 and within[0].isnan().all()
    torch.testing.assert_close(within[1][:, :, 0], whole[2][torch.arange(2)[:, None], places, 0])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in lens.decoder.modules())


def test_the_pass_is_the_same_to_the_bit() -> None:
    lens = find_lens(tiny_models.build(*MODELS["llama"]))
    with torch.no_grad():
        plain = lens.last_hidden(IDS)
        with watching_blocks(lens, [1, 2, 3], EVERYWHERE, ["mlp"]):
            watched = lens.last_hidden(IDS)
    assert torch.equal(plain, watched)


@pytest.mark.skipif(not hasattr(transformers, "Gemma4TextConfig"), reason="needs a newer transformers")
def test_blocks_that_multiply_the_stream_are_followed() -> None:
    """Gemma 4 multiplies what a block gives by a number of the block's, and adds a third output."""
    config = transformers.Gemma4TextConfig(
        **SMALL | {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 96, "global_head_dim": 8}
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).double().eval()
    lens = find_lens(model)
    for number, layer in enumerate(lens.layers):
        layer.layer_scalar.fill_(0.5 + number / 4)
    blocks = check_blocks(lens)
    assert blocks.kinds == ("attention", "mlp", "other") and blocks.carries == (0.5, 0.75, 1.0)
    streams, within = read(lens, list(blocks.kinds))
    total = blocks.reaching(0) * streams[0]
    for layer in (1, 2, 3):
        total += blocks.reaching(layer) * within[layer].sum(dim=2)
    torch.testing.assert_close(total, streams[3], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["llama", "gemma 2, soft-capped", "gpt-neox", "mixtral"])
def test_models_of_half_precision_are_taken_apart(name: str, dtype: torch.dtype) -> None:
    lens = find_lens(build(name).to(dtype))
    assert check_blocks(lens).kinds == ("attention", "mlp")
    streams, within = read(lens, ["attention", "mlp"])
    assert within[1].dtype == dtype
    total = streams[0].float() + sum(part.float().sum(dim=2) for part in within[1:])
    assert (total - streams[3].float()).norm() < 0.02 * streams[3].float().norm()


@pytest.mark.parametrize("name", sorted(NORMED_AFTER & MODELS.keys()))
def test_blocks_that_norm_the_sum_are_refused(name: str) -> None:
    model = tiny_models.build(*MODELS[name])
    with pytest.raises(EngineError, match=f"block 1 of {type(find_lens(model).decoder).__name__} cannot be"):
        check_blocks(find_lens(model))


@pytest.mark.parametrize("name", sorted(PARALLEL & FOLLOWED.keys()))
def test_blocks_that_add_both_at_once_have_nothing_between(name: str) -> None:
    lens = find_lens(build(name))
    check_blocks(lens, ["attention", "before_attention"])
    with pytest.raises(EngineError, match=r"probe.streams: found 'after_attention'"):
        check_blocks(lens, ["after_attention"])


@pytest.mark.parametrize("name", sorted(FOLLOWED.keys() | (NORMED_AFTER & MODELS.keys())))
def test_a_plan_knows_blocks_as_they_are_found(name: str) -> None:
    """It reads a configuration, and refuses no model whose blocks are found to have what is asked for."""
    model = tiny_models.build(*(FOLLOWED | MODELS)[name])
    try:
        check_blocks(find_lens(model), ["after_attention"])
        found = ""
    except EngineError as error:
        found = "parallel" if "no residual stream between" in str(error) else "whole"
    known = block_kind(json.loads(model.config.to_json_string(use_diff=False)))
    assert known == found, model.config.model_type


def test_the_gate_of_a_norm_is_no_mlp() -> None:
    """An MLP within the norm before attention does not make a block parallel, and adds nothing itself."""

    class Gated(nn.Module):
        def __init__(self, norm: nn.Module) -> None:
            super().__init__()
            self.norm, self.mlp = norm, nn.Linear(32, 32)

        def forward(self, rows: Tensor) -> Tensor:
            normed = self.norm(rows)
            return normed * self.mlp(normed).sigmoid()

    model = build("llama")
    lens = find_lens(model)
    for layer in lens.layers:
        layer.input_layernorm = Gated(layer.input_layernorm).double()
    assert check_blocks(lens, ["after_attention"]).kinds == ("attention", "mlp")


def test_what_a_block_does_beside_its_sums_is_refused() -> None:
    """A clamp of the stream is no sum, and a sum behind the modules' back is found by the numbers."""
    model = build("llama")
    lens = find_lens(model)
    plain = lens.layers[1].forward
    lens.layers[1].forward = lambda *args, **kwargs: plain(*args, **kwargs).clamp(-0.1, 0.1)
    with pytest.raises(EngineError, match=r"block 2 .*its output is no sum"):
        check_blocks(lens)

    def hidden(*args: Any, **kwargs: Any) -> Tensor:
        output = plain(*args, **kwargs)
        output.data[:] = output.data * 2  # of a view, which is not the tensor itself
        return output

    lens.layers[1].forward = hidden
    with pytest.raises(EngineError, match=r"block 2 .*does not make up its output"):
        check_blocks(lens)
