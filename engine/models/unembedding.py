"""The map from a model's last normed hidden states to its logits, as its own forward makes them."""

from __future__ import annotations

from typing import Any

from peft.utils import ModulesToSaveWrapper
from torch import nn

from engine.errors import EngineError
from engine.models.causal_lm import CausalLm
from kernels import Unembedding

# Keys of transformers' configurations for what a causal model does to its logits. Granite divides by its
# scaling, HyperCLOVAX multiplies; MiniCPM3 and Inkling divide the hidden states instead, which is the same
# where the unembedding has no bias. `engine.models.lens_check` holds the outcome against the model itself.
FACTORS = ("logit_scale", "lm_head_multiplier", "output_multiplier")
DIVISORS = ("logits_scaling", "logits_mup_width_multiplier")
SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
# Model types whose forward does something else with a key.
MULTIPLIED = {"hyperclovax": ("logits_scaling",)}
UNREAD = {"mpt": ("logit_scale",), "gemma3": ("final_logit_softcapping",)}


def unembedding_of(base: CausalLm) -> Unembedding:
    """Give the unembedding of a causal model, with the scale and soft-cap that its configuration names."""
    head = base.get_output_embeddings()
    name = type(base).__name__
    if isinstance(head, ModulesToSaveWrapper):  # trained in full: the lens goes through the trained copy
        head = head.modules_to_save[head.active_adapter]
    if not isinstance(getattr(head, "weight", None), nn.Parameter):
        raise EngineError(
            f"model.id: {name} has no unembedding that the lens knows; expected a linear lm_head"
        )
    config = base.config.get_text_config(decoder=True)
    sizes = (config.vocab_size, getattr(config, "unpadded_vocab_size", None), len(head.weight))
    scale, softcap = _transform(config, {base.config.model_type, config.model_type})
    try:
        return Unembedding(
            head.weight,
            bias=getattr(head, "bias", None),
            scale=scale,
            softcap=softcap,
            vocab_size=min(int(size) for size in sizes if size is not None),
        )
    except (TypeError, ValueError) as error:  # its weights are packed, or of an unusual shape
        raise EngineError(f"model.id: the unembedding of {name} cannot serve as a lens: {error}") from error


def _transform(config: Any, types: set[str]) -> tuple[float, float | None]:
    """Give the factor on the logits, and their soft-cap."""
    unread = [key for kind in types for key in UNREAD.get(kind, ())]
    multiplied = [key for kind in types for key in MULTIPLIED.get(kind, ())]
    scale, softcap = 1.0, None
    for key in (*FACTORS, *DIVISORS, *SOFTCAPS):
        value = getattr(config, key, None)
        if value is None or key in unread:
            continue
        if key in SOFTCAPS:
            softcap = float(value)
        elif key in FACTORS or key in multiplied:
            scale *= float(value)
        else:
            scale /= float(value)
    return scale, softcap
