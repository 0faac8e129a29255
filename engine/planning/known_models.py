"""Sizes of common models, for plans that are made before a model is on this machine.

Source: each repository's public `config.json` on the Hugging Face hub, under the names below; versions tuned
to instructions share them. Models with towers for pictures, such as the larger Gemma 3, are left out.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from engine.planning.sizes import ModelCard, card_of
from specs.tables.experiment import Model

# model type: (hidden, intermediate, layers, heads, heads of keys, width of a head, vocabulary, head is tied)
_Row = tuple[int, int, int, int, int, int, int, bool]
_ROWS: dict[str, dict[str, _Row]] = {
    "llama": {
        "meta-llama/Llama-3.2-1B": (2048, 8192, 16, 32, 8, 64, 128256, True),
        "meta-llama/Llama-3.2-3B": (3072, 8192, 28, 24, 8, 128, 128256, True),
        "meta-llama/Meta-Llama-3-8B": (4096, 14336, 32, 32, 8, 128, 128256, False),
        "meta-llama/Llama-3.1-8B": (4096, 14336, 32, 32, 8, 128, 128256, False),
        "meta-llama/Meta-Llama-3-70B": (8192, 28672, 80, 64, 8, 128, 128256, False),
        "meta-llama/Llama-3.1-70B": (8192, 28672, 80, 64, 8, 128, 128256, False),
        "meta-llama/Llama-3.3-70B": (8192, 28672, 80, 64, 8, 128, 128256, False),
        "HuggingFaceTB/SmolLM2-135M": (576, 1536, 30, 9, 3, 64, 49152, True),
        "HuggingFaceTB/SmolLM2-360M": (960, 2560, 32, 15, 5, 64, 49152, True),
        "HuggingFaceTB/SmolLM2-1.7B": (2048, 8192, 24, 32, 32, 64, 49152, True),
    },
    "mistral": {
        "mistralai/Mistral-7B-v0.1": (4096, 14336, 32, 32, 8, 128, 32000, False),
        "mistralai/Mistral-7B-v0.3": (4096, 14336, 32, 32, 8, 128, 32768, False),
        "mistralai/Mistral-7B-Instruct-v0.1": (4096, 14336, 32, 32, 8, 128, 32000, False),
        "mistralai/Mistral-7B-Instruct-v0.2": (4096, 14336, 32, 32, 8, 128, 32000, False),
        "mistralai/Mistral-7B-Instruct-v0.3": (4096, 14336, 32, 32, 8, 128, 32768, False),
    },
    "qwen2": {
        "Qwen/Qwen2.5-0.5B": (896, 4864, 24, 14, 2, 64, 151936, True),
        "Qwen/Qwen2.5-1.5B": (1536, 8960, 28, 12, 2, 128, 151936, True),
        "Qwen/Qwen2.5-3B": (2048, 11008, 36, 16, 2, 128, 151936, True),
        "Qwen/Qwen2.5-7B": (3584, 18944, 28, 28, 4, 128, 152064, False),
        "Qwen/Qwen2.5-14B": (5120, 13824, 48, 40, 8, 128, 152064, False),
        "Qwen/Qwen2.5-32B": (5120, 27648, 64, 40, 8, 128, 152064, False),
        "Qwen/Qwen2.5-72B": (8192, 29568, 80, 64, 8, 128, 152064, False),
    },
    "qwen3": {
        "Qwen/Qwen3-0.6B": (1024, 3072, 28, 16, 8, 128, 151936, True),
        "Qwen/Qwen3-1.7B": (2048, 6144, 28, 16, 8, 128, 151936, True),
        "Qwen/Qwen3-4B": (2560, 9728, 36, 32, 8, 128, 151936, True),
        "Qwen/Qwen3-8B": (4096, 12288, 36, 32, 8, 128, 151936, False),
        "Qwen/Qwen3-14B": (5120, 17408, 40, 40, 8, 128, 151936, False),
        "Qwen/Qwen3-32B": (5120, 25600, 64, 64, 8, 128, 151936, False),
    },
    "gemma2": {
        "google/gemma-2-2b": (2304, 9216, 26, 8, 4, 256, 256000, True),
        "google/gemma-2-9b": (3584, 14336, 42, 16, 8, 256, 256000, True),
        "google/gemma-2-27b": (4608, 36864, 46, 32, 16, 128, 256000, True),
    },
    "gemma3_text": {
        "google/gemma-3-270m": (640, 2048, 18, 4, 1, 256, 262144, True),
        "google/gemma-3-1b": (1152, 6912, 26, 4, 1, 256, 262144, True),
    },
    "phi": {
        "microsoft/phi-1_5": (2048, 8192, 24, 32, 32, 64, 51200, False),
        "microsoft/phi-2": (2560, 10240, 32, 32, 32, 80, 51200, False),
    },
    "phi3": {
        "microsoft/Phi-3-mini-4k-instruct": (3072, 8192, 32, 32, 32, 96, 32064, False),
        "microsoft/phi-4": (5120, 17920, 40, 40, 10, 128, 100352, False),
    },
    "gpt_neox": {
        "EleutherAI/pythia-70m": (512, 2048, 6, 8, 8, 64, 50304, False),
        "EleutherAI/pythia-160m": (768, 3072, 12, 12, 12, 64, 50304, False),
        "EleutherAI/pythia-410m": (1024, 4096, 24, 16, 16, 64, 50304, False),
        "EleutherAI/pythia-1b": (2048, 8192, 16, 8, 8, 256, 50304, False),
        "EleutherAI/pythia-1.4b": (2048, 8192, 24, 16, 16, 128, 50304, False),
        "EleutherAI/pythia-2.8b": (2560, 10240, 32, 32, 32, 80, 50304, False),
        "EleutherAI/pythia-6.9b": (4096, 16384, 32, 32, 32, 128, 50432, False),
        "EleutherAI/pythia-12b": (5120, 20480, 36, 40, 40, 128, 50688, False),
    },
    "gpt2": {
        "gpt2": (768, 3072, 12, 12, 12, 64, 50257, True),
        "gpt2-medium": (1024, 4096, 24, 16, 16, 64, 50257, True),
        "gpt2-large": (1280, 5120, 36, 20, 20, 64, 50257, True),
        "gpt2-xl": (1600, 6400, 48, 25, 25, 64, 50257, True),
    },
    "olmo2": {
        "allenai/OLMo-2-0425-1B": (2048, 8192, 16, 16, 16, 128, 100352, False),
        "allenai/OLMo-2-1124-7B": (4096, 11008, 32, 32, 32, 128, 100352, False),
        "allenai/OLMo-2-1124-13B": (5120, 13824, 40, 40, 40, 128, 100352, False),
        "allenai/OLMo-2-0325-32B": (5120, 27648, 64, 40, 8, 128, 100352, False),
    },
}
_SUFFIXES = ("-Instruct", "-Base", "-it", "-deduped")  # versions of the same shapes
_OWNERS = ("openai-community/",)  # that a hub id may leave out
_FUSED_NAMES = {
    "phi3": ("self_attn.qkv_proj", "mlp.gate_up_proj"),
    "gpt_neox": ("attention.query_key_value", "mlp.dense_h_to_4h"),
    "gpt2": ("attn.c_attn", "mlp.c_fc"),
}


@frozen
class KnownModel:
    """A common model: its type, and a configuration as `config.json` has it."""

    type: str
    config: dict[str, Any]
    card: ModelCard


def known_model(model: Model) -> KnownModel | None:
    """Look a model of the hub up in the table; None where it is not there."""
    name = model.id
    for owner in _OWNERS:
        name = name.removeprefix(owner)
    for suffix in ("", *_SUFFIXES):
        bare = name.removesuffix(suffix)
        for kind, rows in _ROWS.items():
            if bare in rows:
                config = _config(kind, rows[bare])
                card = card_of(config, _shapes(kind, rows[bare]))
                return KnownModel(kind, config, card) if card else None
    return None


def _config(kind: str, row: _Row) -> dict[str, Any]:
    hidden, inner, layers, heads, key_heads, width, vocabulary, tied = row
    config: dict[str, Any] = {"vocab_size": vocabulary, "tie_word_embeddings": tied}
    if kind == "gpt2":
        dropout = dict.fromkeys(("resid_pdrop", "attn_pdrop", "embd_pdrop"), 0.1)
        dimensions = {"n_embd": hidden, "n_layer": layers, "n_head": heads, "activation_function": "gelu_new"}
        return config | dimensions | dropout
    config |= {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }
    if kind == "gpt_neox":
        return config | {"hidden_act": "gelu"}
    config["num_key_value_heads"] = key_heads
    if kind == "phi":
        return config | {"hidden_act": "gelu_new"}
    if width * heads != hidden or kind.startswith(("gemma", "qwen3")):
        config["head_dim"] = width
    if kind.startswith("gemma"):
        config["hidden_activation"] = "gelu_pytorch_tanh"
    if kind == "gemma2":
        config |= {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
    return config


def _shapes(kind: str, row: _Row) -> dict[str, list[int]]:
    """Give the shapes of the weights, under the names that transformers saves them by."""
    hidden, _, layers, _, _, _, vocabulary, tied = row
    of_layer = _layer_shapes(kind, row)
    prefix = {"gpt2": "h", "gpt_neox": "gpt_neox.layers"}.get(kind, "model.layers")
    shapes = {
        f"{prefix}.{number}.{name}": shape for number in range(layers) for name, shape in of_layer.items()
    }
    shapes |= {"model.embed_tokens.weight": [vocabulary, hidden], "model.norm.weight": [hidden]}
    if kind == "gpt2":
        shapes["wpe.weight"] = [1024, hidden]
    if not tied:
        shapes["lm_head.weight"] = [vocabulary, hidden]
    return shapes


def _layer_shapes(kind: str, row: _Row) -> dict[str, list[int]]:
    hidden, inner, _, heads, key_heads, width, _, _ = row
    queries, keys = heads * width, key_heads * width
    biased = kind in ("gpt2", "gpt_neox", "phi")
    if kind in _FUSED_NAMES:
        into, up = _FUSED_NAMES[kind]
        out, down = {
            "phi3": ("self_attn.o_proj", "mlp.down_proj"),
            "gpt_neox": ("attention.dense", "mlp.dense_4h_to_h"),
            "gpt2": ("attn.c_proj", "mlp.c_proj"),
        }[kind]
        linear = {
            into: [queries + 2 * keys, hidden],
            out: [hidden, queries],
            up: [2 * inner if kind == "phi3" else inner, hidden],
            down: [hidden, inner],
        }
    else:
        linear = {
            "self_attn.q_proj": [queries, hidden],
            "self_attn.k_proj": [keys, hidden],
            "self_attn.v_proj": [keys, hidden],
        }
        if kind == "phi":
            linear |= {"self_attn.dense": [hidden, queries], "mlp.fc1": [inner, hidden]}
            linear |= {"mlp.fc2": [hidden, inner]}
        else:
            linear |= {
                "self_attn.o_proj": [hidden, queries],
                "mlp.gate_proj": [inner, hidden],
                "mlp.up_proj": [inner, hidden],
                "mlp.down_proj": [hidden, inner],
            }
    shapes = {f"{name}.weight": shape for name, shape in linear.items()}
    if biased:
        shapes |= {f"{name}.bias": [shape[0]] for name, shape in linear.items()}
    if kind == "qwen2":
        shapes |= {f"self_attn.{name}_proj.bias": [queries if name == "q" else keys] for name in "qkv"}
    if kind == "gpt2":  # its modules keep [inputs, outputs]
        shapes |= {name: shape[::-1] for name, shape in shapes.items() if len(shape) == 2}
    norms = {"phi": ["input_layernorm"], "gpt2": ["ln_1", "ln_2"]}
    names = norms.get(kind, ["input_layernorm", "post_attention_layernorm"])
    if kind.startswith("gemma"):
        names = [*names, "pre_feedforward_layernorm", "post_feedforward_layernorm"]
    shapes |= {f"{name}.weight": [hidden] for name in names}
    shapes |= {f"{name}.bias": [hidden] for name in names if biased}
    if kind in ("qwen3", "gemma3_text"):
        shapes |= {f"self_attn.{name}_norm.weight": [width] for name in "qk"}
    if kind == "olmo2":
        shapes |= {"self_attn.q_norm.weight": [queries], "self_attn.k_norm.weight": [keys]}
    return shapes
