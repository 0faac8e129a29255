"""Direct logit attribution: exact sums for every architecture, and formulas written out for some."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models
import torch
from attrs import evolve
from followed_models import EVERYWHERE, FOLLOWED, IDS, build, read
from tiny_models import MODELS
from torch import Tensor, nn

from engine.errors import EngineError
from engine.models.block_streams import check_blocks
from engine.models.head_outputs import output_projection, watching_head_outputs
from engine.models.lens import Lens, find_lens
from engine.stages.attribution import Attribution, FrozenNorm, check_attribution, head_parts

TOKENS = torch.tensor([7, 3, 80])


def flat(states: Tensor) -> Tensor:
    """[B, T, …] as [N, …]."""
    return states.flatten(0, 1)


def uncapped(lens: Lens, final: Tensor, ids: Tensor) -> Tensor:
    """The logits [N, J] of final streams [N, D], before any soft-cap, by the model's own norm."""
    head = lens.unembedding
    logits = lens.norm(final) @ head.weight[ids].mT
    return head.scale * (logits if head.bias is None else logits + head.bias[ids])


def close(found: Tensor, expected: Tensor, lens: Lens) -> None:
    """Equal in float64, or up to float32 where the model's own norm computes in that."""
    rtol = 1e-9 if isinstance(lens.norm, nn.LayerNorm) else 3e-6
    torch.testing.assert_close(found, expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("name", FOLLOWED)
def test_the_parts_sum_to_the_logit(name: str) -> None:
    lens = find_lens(build(name))
    blocks = check_blocks(lens)
    check_attribution(lens, per_head=False)
    streams, within = read(lens, list(blocks.kinds))
    final = flat(streams[-1])
    found = Attribution.of(lens, final, TOKENS)
    total = found.bias + blocks.reaching(0) * found.apply(flat(streams[0]))
    for layer in range(1, len(streams)):
        parts = flat(within[layer]).nan_to_num().transpose(0, 1)  # [S, N, D]
        total = total + blocks.reaching(layer) * found.apply(parts).sum(dim=0)
    torch.testing.assert_close(total, found.bias + found.apply(final), rtol=1e-10, atol=1e-10)
    close(total, uncapped(lens, final, TOKENS), lens)


def test_each_row_may_have_tokens_of_its_own() -> None:
    lens = find_lens(build("phi, biased head"))
    streams, _ = read(lens, ["mlp"])
    final = flat(streams[-1])
    ids = torch.randint(96, (len(final), 1), generator=torch.Generator().manual_seed(0))
    own, all_of_them = Attribution.of(lens, final, ids), Attribution.of(lens, final, torch.arange(96))
    part = flat(streams[1])
    torch.testing.assert_close(own.apply(part), all_of_them.apply(part).gather(1, ids))
    torch.testing.assert_close(own.bias, all_of_them.bias.gather(1, ids))


def test_rms_norms_and_layer_norms_are_as_the_formulas_say() -> None:
    """The part of c: γ ⊙ c / rms(h) W for RMS norm; γ ⊙ (c − mean c) / sd(h) W for layer norm."""
    for name in ("llama", "gpt2"):
        lens = find_lens(build(name))
        streams, within = read(lens, ["mlp"])
        h, c = flat(streams[-1]), flat(within[2][:, :, 0])
        weight = lens.unembedding.weight[TOKENS]
        norm: Any = lens.norm
        if name == "llama":
            scaled = norm.weight * c / (h.square().mean(-1, keepdim=True) + norm.variance_epsilon).sqrt()
        else:
            spread = (h.var(-1, keepdim=True, unbiased=False) + norm.eps).sqrt()
            scaled = norm.weight * (c - c.mean(-1, keepdim=True)) / spread
        close(Attribution.of(lens, h, TOKENS).apply(c), scaled @ weight.mT, lens)


@pytest.mark.parametrize("width", [31, 33])
def test_an_odd_width_serves_too(width: int) -> None:
    lens = find_lens(build("llama"))
    norm = nn.LayerNorm(width).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    rows = torch.randn(5, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    frozen = FrozenNorm.of(evolve(lens, norm=norm), rows)
    torch.testing.assert_close(frozen.apply(rows) + frozen.bias, norm(rows), rtol=1e-9, atol=1e-10)
    assert frozen.centred


def test_a_norm_that_is_none_is_refused() -> None:
    lens = find_lens(build("llama"))
    with pytest.raises(EngineError, match=r"probe.attribution: the final norm of LlamaModel"):
        check_attribution(evolve(lens, norm=nn.Tanh()), per_head=False)


def heads_of(lens: Lens) -> tuple[list[Tensor], list[Tensor]]:
    """What all heads give, of each block [N, H * width]; and what its attention adds, [N, D]."""
    layers = list(range(1, len(lens.layers) + 1))
    _, within = read(lens, ["attention"])
    with torch.no_grad(), watching_head_outputs(lens, layers, EVERYWHERE) as outputs:
        lens.last_hidden(IDS, torch.ones_like(IDS))
    return [flat(output) for output in outputs], [flat(part[:, :, 0]) for part in within[1:]]


HEADED = [
    "llama", "mistral", "qwen3", "gemma 2, soft-capped", "gemma 3", "granite, scaled", "gpt2", "gpt-neox",
    "opt", "falcon", "phi, biased head", "mixtral", "bloom", "minicpm3, scaled", "glm 4", "olmo 2",
    "cohere, scaled",
]  # fmt: skip


@pytest.mark.parametrize("adapted", [False, True], ids=["base", "lora"])
@pytest.mark.parametrize("name", [name for name in HEADED if name in FOLLOWED])
def test_heads_sum_to_what_attention_adds_but_for_the_bias(name: str, adapted: bool) -> None:
    lens = find_lens(build(name, adapted=adapted))
    check_attribution(lens, per_head=True)
    for layer, (outputs, added) in enumerate(zip(*heads_of(lens), strict=True), start=1):
        parts = head_parts(lens, layer, outputs, added)
        assert len(parts) == 4
        projection: Any = output_projection(lens, layer)
        bias = getattr(projection, "bias", None)
        with torch.no_grad():
            ratio = added / projection(outputs)
        rest = 0 if bias is None else ratio * bias
        torch.testing.assert_close(sum(parts) + rest, added, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma 2, soft-capped"])
def test_a_head_s_part_is_its_columns_of_the_projection(name: str) -> None:
    """Heads that share keys and values (2 of 4 have the same here) are told apart by the projection."""
    lens = find_lens(build(name))
    for layer, (outputs, added) in enumerate(zip(*heads_of(lens), strict=True), start=1):
        projection: Any = output_projection(lens, layer)
        weight = projection.weight.mT if name == "gpt2" else projection.weight  # [D, H * width]
        whole = outputs @ weight.mT
        for head, part in enumerate(head_parts(lens, layer, outputs, added)):
            own = slice(8 * head, 8 * head + 8)
            plain = outputs[:, own] @ weight[:, own].mT
            if name == "gemma 2, soft-capped":  # a norm stands behind the projection; its scale is held
                norm: Any = lens.layers[layer - 1].post_attention_layernorm
                rms = (whole.square().mean(-1, keepdim=True) + norm.eps).sqrt()
                plain = (1 + norm.weight) * plain / rms
            torch.testing.assert_close(part, plain, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", ["falcon-h1", "mamba", "recurrent gemma"])
def test_attention_without_heads_of_its_own_is_refused(name: str) -> None:
    if name not in FOLLOWED:
        pytest.skip("not in this release")
    with pytest.raises(EngineError, match=r"probe.attribution_per_head: "):
        check_attribution(find_lens(build(name)), per_head=True)


def test_half_precision_sums_to_the_logit_but_for_its_rounding() -> None:
    lens = find_lens(tiny_models.build(*MODELS["llama"]).to(torch.bfloat16))
    check_attribution(lens, per_head=True)
    streams, within = read(lens, ["attention", "mlp"])
    final = flat(streams[-1])
    found = Attribution.of(lens, final, TOKENS)
    total = found.apply(flat(streams[0])) + sum(
        found.apply(flat(part).transpose(0, 1)).sum(0) for part in within[1:]
    )
    expected = uncapped(lens, final, TOKENS).float()
    assert total.dtype == torch.float32
    assert (total - expected).norm() < 0.02 * expected.norm()
