"""The unembeddings that the probe core is measured on, and made-up data of their shapes."""

import torch
from torch import Tensor

# Model → (D, V).
MODELS = {
    "SmolLM2-135M": (576, 49_152),
    "Qwen2.5-0.5B": (896, 151_936),
    "Llama-3.1-8B": (4096, 128_256),
}
WATCHED = 8
TOP = 5
LAYERS = 32  # rows per position: each position's rows share one final row


def data(model: str, rows: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Give (hidden [R, D], weight [V, D], watched ids, final rows); logits have a spread of about 1."""
    width, vocabulary = MODELS[model]
    generator = torch.Generator().manual_seed(0)
    weight = torch.empty(vocabulary, width, dtype=dtype)
    for part in weight.split(8192):  # no float32 copy of the whole
        part.copy_(torch.randn(part.shape, generator=generator) / width**0.5)
    hidden = torch.randn(rows, width, generator=generator).to(dtype)
    watched = torch.randint(0, vocabulary, (WATCHED,), generator=generator)
    final = (torch.arange(rows) // LAYERS * LAYERS + LAYERS - 1).clamp_max(rows - 1)
    return hidden, weight, watched, final
