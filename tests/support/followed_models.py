"""Models whose blocks can be taken apart, in float64, and what is read of them."""

from __future__ import annotations

from typing import Any

import tiny_models
import torch
import transformers
from tiny_models import LATENT, MODELS, SAME_HEADS, SMALL
from torch import Tensor

from engine.models.block_streams import watching_blocks
from engine.models.lens import Lens

IDS = torch.tensor([[5, 9, 33, 2, 71, 8], [4, 4, 90, 17, 6, 11]])
EVERYWHERE = torch.arange(6).expand(2, 6)
# Blocks that norm the sum of stream and output: what they add is no part of what they give.
NORMED_AFTER = {"opt, projected, normed after", "bart"}
FOLLOWED = {name: model for name, model in MODELS.items() if name not in NORMED_AFTER} | {
    "granite, scaled": ("GraniteConfig", SMALL | {"residual_multiplier": 0.22}),
    "minicpm3, scaled": ("MiniCPM3Config", SAME_HEADS | LATENT | {"scale_depth": 1.4}),
    "stablelm": ("StableLmConfig", SMALL),
    "olmo 2": ("Olmo2Config", SMALL),
    "glm 4": ("Glm4Config", SMALL),
    "gpt-j": ("GPTJConfig", {"vocab_size": 96, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64,
                             "rotary_dim": 4}),
    "bloom": ("BloomConfig", {"vocab_size": 96, "hidden_size": 32, "n_layer": 3, "n_head": 4}),
    "mamba": ("MambaConfig", {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 3, "state_size": 4,
                             "residual_in_fp32": False}),
    "falcon, one norm": (
        "FalconConfig",
        {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
         "parallel_attn": False},
    ),
    "gpt-neox, in order": ("GPTNeoXConfig", SAME_HEADS | {"use_parallel_residual": False}),
}  # fmt: skip
FOLLOWED = {name: model for name, model in FOLLOWED.items() if hasattr(transformers, model[0])}


def build(name: str, *, adapted: bool = False) -> Any:
    """A float64 model whose norms and biases are drawn, too."""
    model = tiny_models.build(*FOLLOWED[name])
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    model.set_experts_implementation("eager")  # grouped products know no float64
    return (tiny_models.adapt(model) if adapted else model).double()


def read(lens: Lens, names: list[str]) -> tuple[list[Tensor], list[Tensor]]:
    """The streams behind all layers, [B, T, D] each, and those within blocks, [B, T, S, D]."""
    layers = list(range(len(lens.layers) + 1))
    with (
        torch.no_grad(),
        lens.watching(layers, EVERYWHERE) as streams,
        watching_blocks(lens, layers, EVERYWHERE, names) as within,
    ):
        lens.last_hidden(IDS, torch.ones_like(IDS))
    return streams, within
