"""Tiny configurations of the architectures of transformers: their defaults, with every size brought down."""

from __future__ import annotations

import re
from typing import Any

from transformers import CONFIG_MAPPING, PretrainedConfig

LAYERS = 2
VOCABULARY = 96

# What a configuration's whole number becomes, by the first pattern that its name matches in full.
SIZES: list[tuple[str, int]] = [
    (r"(unpadded_|decoder_)?vocab_size(_per_layer_input)?|ngram_vocab_size_base", VOCABULARY),
    (r"pad_token_id", 0),
    (r"bos_token_id|decoder_start_token_id", 1),
    (r"eos_token_id|sep_token_id|eod_token_id", 2),
    (r"(image|video|audio|vision|boi|eoi|boa|eoa|mask|cls)_?\w*token_(id|index)", 3),
    (r"(num|n)_?(hidden_|decoder_|encoder_)?layers?|(encoder|decoder)_layers|num_layers_per_stack", LAYERS),
    (r"(num_|n_)?(attention_|encoder_attention_|decoder_attention_|encoder_|decoder_)*heads?|n_head", 4),
    (r"(conf_|swa_)?num_(encoder_|decoder_)?attention_heads|index_n_heads", 4),
    (r"(swa_)?num_key_value_heads|num_kv_heads|kv_n_heads", 2),
    (r"head_dim|\w+_head_dim|head_size|d_kv|d_head|attention_head_size|kv_channels|linear_head_dim", 8),
    (r"rotary_dim", 4),
    (r"\w*hidden_size|d_model|n_embd|emb_dim|embedding_dim|embedding_size|word_embed_proj_dim", 32),
    (r"adapter_(in|out)_dim|adapter_input_size", 32),
    (r"(input|output)_embedding_size", 32),
    (r"\w*intermediate_size|\w*ffn_dim|dff|d_ff|dim_ff|d_inner|feed_forward_size|mlp_dim", 64),
    (r"max_position_embeddings|n_positions|n_ctx|max_seq_len|original_max_position_embeddings", 64),
    (r"num_(local_)?experts|n_routed_experts|moe_num_experts", 4),
    (r"num_experts_per_tok(en)?|moe_top_?k|moe_k|topk_group|n_group|num_expert_group", 2),
    (r"\w*lora_rank|\w*_rank", 8),
    (r"\w*sliding_window|window_size|attention_window_size", 16),
    (r"\w*chunk_size", 16),
]  # fmt: skip

# Sizes that have to agree in some other way, by model type.
LATENT = {"num_key_value_heads": 4}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}
HEADS_OF_8 = {"head_dim": 8}
ROPE = {kind: {"rope_type": "default", "rope_theta": 1e4} for kind in ("sliding_attention", "full_attention")}
ROUTED = {
    "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "axk1": LATENT, "axk2": LATENT, "bailing_hybrid": LATENT, "deepseek_v3": LATENT,
    "deepseek_v32": LATENT, "dots3_note_text": LATENT, "glm4_moe_lite": LATENT, "glm_moe_dsa": LATENT,
    "minicpm3": LATENT, "youtu": LATENT, "longcat_flash": LATENT | {"qk_head_dim": 16},
    "bamba": MAMBA, "granitemoehybrid": MAMBA,
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1},
    "hunyuan_v1_dense": HEADS_OF_8, "hunyuan_v1_moe": HEADS_OF_8, "ministral": HEADS_OF_8,
    "nemotron": HEADS_OF_8 | {"num_key_value_heads": 2},
    "deepseek_v2": LATENT | ROUTED, "dots1": ROUTED, "zaya": {"num_experts_per_tok": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "reformer": {"is_decoder": True, "axial_pos_embds": False, "attn_layers": ["local", "lsh"]},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "qwen4_exp_text": {"indexer_budget": 8, "indexer_compress_ratio": 2, "indexer_n_heads": 4,
                       "indexer_kv_heads": 1, "indexer_head_dim": 8},
    "cohere_compass_text": {"layer_types": [*ROPE], "rope_parameters": ROPE},
    "bert": {"is_decoder": True}, "roberta": {"is_decoder": True},
}  # fmt: skip


def tiny(kind: str, **more: Any) -> PretrainedConfig:
    """Give a small configuration of a model type; `more` overrides what the patterns make of it."""
    default = CONFIG_MAPPING[kind]()
    return type(default)(**{**_shrunk(default), **OWN.get(kind, {}), **more})


def _shrunk(config: PretrainedConfig) -> dict[str, Any]:
    """Give the small values of all sizes that a configuration has, and of those of its parts."""
    made: dict[str, Any] = {}
    layers = getattr(config, "num_hidden_layers", None)
    for name, value in vars(config).items():
        if name.startswith("_"):
            continue
        if isinstance(value, PretrainedConfig):
            made[name] = {**_shrunk(value), **OWN.get(value.model_type, {}), "model_type": value.model_type}
        elif isinstance(value, int) and not isinstance(value, bool) and value > 0:
            size = next((size for pattern, size in SIZES if re.fullmatch(pattern, name)), None)
            if size is not None:
                made[name] = size
        elif isinstance(value, list) and len(value) == layers and layers != LAYERS:
            made[name] = [value[0], value[-1]]
    return made
