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
LATENT = {
    "q_lora_rank": 16, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,
}  # fmt: skip
VISION = {
    "text_config": SMALL | {"final_logit_softcapping": 5.0},
    "vision_config": {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "image_size": 28, "patch_size": 14,
    },
    "mm_tokens_per_image": 4, "boi_token_index": 3, "eoi_token_index": 4, "image_token_index": 95,
}  # fmt: skip
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
    "gemma 3 with a vision tower": ("Gemma3Config", VISION),
    "cohere, scaled by 0": ("CohereConfig", SMALL | {"logit_scale": 0.0}),
    "granite": ("GraniteConfig", SMALL | {"logits_scaling": 8.0}),
    "granite-moe": (
        "GraniteMoeConfig",
        SMALL | {"logits_scaling": 6.0, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "hyperclovax": ("HyperCLOVAXConfig", SMALL | {"logits_scaling": 0.125}),
    "minicpm3": ("MiniCPM3Config", SAME_HEADS | LATENT | {"dim_model_base": 4}),
    "inkling": (
        "InklingTextConfig",
        SMALL | {"unpadded_vocab_size": 92, "logits_mup_width_multiplier": 24.0, "swa_num_attention_heads": 4,
                 "swa_num_key_value_heads": 2, "swa_head_dim": 8, "d_rel": 4, "rel_extent": 16,
                 "sliding_window_size": 16, "moe_intermediate_size": 16, "n_routed_experts": 4,
                 "num_experts_per_tok": 2, "n_shared_experts": 1},
    ),
    "falcon-h1": (
        "FalconH1Config",
        SMALL | {"lm_head_multiplier": 0.05, "mamba_d_ssm": 64, "mamba_n_heads": 8, "mamba_d_head": 8,
                 "mamba_d_state": 8, "mamba_chunk_size": 16},
    ),
    "recurrent gemma": (
        "RecurrentGemmaConfig",
        SMALL | {"lru_width": 32, "attention_window_size": 16, "logits_soft_cap": 5.0,
                 "block_types": ["recurrent", "attention"]},
    ),
    "nanochat, soft-capped": ("NanoChatConfig", SMALL | {"final_logit_softcapping": 15.0}),
    "mpt, a scale that it does not read": (
        "MptConfig",
        {"vocab_size": 96, "d_model": 32, "n_layers": 3, "n_heads": 4, "max_seq_len": 64, "logit_scale": 0.5},
    ),
    "bart": (
        "BartConfig",
        {"vocab_size": 96, "d_model": 32, "encoder_layers": 3, "decoder_layers": 3, "decoder_ffn_dim": 64,
         "encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 64},
    ),
    "phimoe": ("PhimoeConfig", SMALL | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "falcon": (
        "FalconConfig",
        {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
         "max_position_embeddings": 64},
    ),
    "gpt2": ("GPT2Config", {"vocab_size": 96, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}),
    "gpt-neox": ("GPTNeoXConfig", SAME_HEADS),
    "opt": ("OPTConfig", {**SAME_HEADS, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    "opt, projected, normed after": (
        "OPTConfig",
        {**SAME_HEADS, "ffn_dim": 64, "word_embed_proj_dim": 16, "do_layer_norm_before": False},
    ),
    "mixtral": ("MixtralConfig", SMALL | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2-moe": (
        "Qwen2MoeConfig",
        SMALL | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
                 "shared_expert_intermediate_size": 16},
    ),
}  # fmt: skip

# Releases of transformers differ in which they have.
MODELS = {name: model for name, model in MODELS.items() if hasattr(transformers, model[0])}

# Of the family of each of these a mask might do more than hide padding: sliding windows, soft-caps, positions
# counted by the mask, routers, states that run on.
MORE: dict[str, tuple[str, dict[str, Any]]] = {
    "mamba": ("MambaConfig", {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 3, "state_size": 8}),
    "bloom": ("BloomConfig", {"vocab_size": 96, "hidden_size": 32, "n_layer": 3, "n_head": 4}),
    "gemma 2, windows of 4": ("Gemma2Config", SMALL | {"sliding_window": 4, "attn_logit_softcapping": 2.0}),
    "gpt-j": ("GPTJConfig", {"vocab_size": 96, "n_embd": 32, "n_layer": 3, "n_head": 4, "rotary_dim": 4}),
    "olmo2": ("Olmo2Config", SAME_HEADS),
    "qwen3-moe": (
        "Qwen3MoeConfig",
        SMALL | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    ),
}  # fmt: skip
TRAINABLE = MODELS | {name: model for name, model in MORE.items() if hasattr(transformers, model[0])}
del TRAINABLE["cohere, scaled by 0"]  # which has no gradient


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
    from engine.stages.training.adapter import attach_adapter
    from specs.tables.experiment import Lora

    adapted = attach_adapter(model, Lora(r=2)).eval()
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    return adapted


def without_dropout(kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options with every dropout that a config class has by default set to 0."""
    known = getattr(transformers, kind)(**options).to_dict()
    shares = {name for name, value in known.items() if "drop" in name and isinstance(value, float)}
    return options | dict.fromkeys(shares, 0.0)
