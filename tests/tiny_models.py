"""Random-weight models of many architectures, a few thousand parameters each."""

from __future__ import annotations

from typing import Any

import torch
import transformers

SMALL = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "head_dim": 8,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
SAME_HEADS = {**SMALL, "num_key_value_heads": 4}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", SMALL | {"tie_word_embeddings": False}),
    "llama, tied": ("LlamaConfig", SMALL | {"tie_word_embeddings": True}),
    "mistral": ("MistralConfig", SMALL | {"sliding_window": 4}),
    "qwen2": ("Qwen2Config", SMALL),
    "qwen3": ("Qwen3Config", SMALL),
    "gemma": ("GemmaConfig", SMALL),
    "gemma 2, soft-capped": ("Gemma2Config", SMALL | {"final_logit_softcapping": 3.0}),
    "gemma 3": ("Gemma3TextConfig", SMALL),
    "cohere, scaled": ("CohereConfig", SMALL | {"logit_scale": 0.25}),
    "phi, biased head": ("PhiConfig", SAME_HEADS),
    "phi3": ("Phi3Config", SMALL),
    "gpt2": ("GPT2Config", {"vocab_size": 96, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}),
    "gpt-neox": ("GPTNeoXConfig", SAME_HEADS),
    "opt": ("OPTConfig", {**SAME_HEADS, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    "mixtral": ("MixtralConfig", SMALL | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2-moe": (
        "Qwen2MoeConfig",
        SMALL | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
                 "shared_expert_intermediate_size": 16},
    ),
}  # fmt: skip


def build(kind: str, options: dict[str, Any], **more: Any) -> Any:
    """A model of a config class, its output bias drawn as well; `more` goes to `from_config`."""
    torch.manual_seed(0)
    config = getattr(transformers, kind)(**options)
    model = transformers.AutoModelForCausalLM.from_config(config, **more).float().eval()
    head = model.get_output_embeddings()
    if head.bias is not None:
        torch.nn.init.normal_(head.bias)
    return model.requires_grad_(False)


def adapt(model: Any) -> Any:
    """The model under a LoRA adapter that does something."""
    from engine.training.adapter import attach_adapter
    from specs.model import Lora

    adapted = attach_adapter(model, Lora(r=2)).eval()
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    return adapted
