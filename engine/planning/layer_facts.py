"""What a model's layers are made of, as far as the memory of a training depends on it, without torch.

Read from a configuration's keys and from the names and shapes of weights, as files of safetensors give them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import field, frozen

from engine.planning.block_kinds import Blocks, block_kind

# The parts of a layer that linear modules belong to, by the last part of their name.
_READS_STREAM = (
    "q_proj", "k_proj", "v_proj", "qkv_proj", "query_key_value", "c_attn", "Wqkv", "qkv",
)  # fmt: skip
_READS_ATTENTION = ("o_proj", "out_proj", "dense", "wo", "out")
_FEEDS_MLP = ("gate_proj", "up_proj", "gate_up_proj", "fc1", "c_fc", "dense_h_to_4h", "w1", "w3", "fc_in")
_ENDS_MLP = ("down_proj", "fc2", "dense_4h_to_h", "w2", "fc_out")
_FUSED = ("qkv_proj", "query_key_value", "Wqkv")
_TRANSPOSED = ("c_attn", "c_fc", "c_proj")  # GPT-2's Conv1D keeps [inputs, outputs]
_GGUF = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_qkv": "self_attn.qkv_proj",
}  # fmt: skip
ACTIVATIONS = {"gelu_new": "new", "gelu_fast": "new", "relu": "relu", "relu2": "relu"}


@frozen
class Linear:
    """A linear module of all layers, under its name in the first of them."""

    path: str
    inputs: int
    outputs: int
    count: int

    @property
    def part(self) -> str:
        """Give what the module reads: "stream", "attention", "mlp" (the stream, into it) or "inner"."""
        name = self.path.rpartition(".")[2]
        if name == "c_proj":
            return "attention" if ".attn" in self.path else "inner"
        if name in _READS_STREAM:
            return "stream"
        if name in _READS_ATTENTION:
            return "attention"
        return "inner" if name in _ENDS_MLP else "mlp"

    @property
    def is_expert(self) -> bool:
        """Whether it is one of many that each read a part of the tokens."""
        return ".experts." in self.path


@frozen
class Layer:
    """What a layer is made of; sizes are numbers per token."""

    intermediate: int
    queries: int  # heads × their width
    keys: int  # the same of keys, which several heads may share
    norms: float  # of the whole width
    head_norms: float  # numbers of queries and keys that are normed
    rms: bool  # norms that are written out in float32, without a bias
    gated: bool
    fused: bool  # queries, keys and values come from one module
    activation: str  # "plain", "relu", or "new": GELU written out, powers and all
    dropout: float  # on the residual stream, in the model's own configuration
    attention_dropout: float
    softcapped: bool  # scores of attention
    experts: int
    chosen: int  # experts that read a token


@frozen
class Facts:
    """A model's layers, and the parameters of each of its modules."""

    layer: Layer
    linear: list[Linear]
    modules: dict[str, int] = field(factory=dict)  # name, without numbers → parameters in all layers
    softcapped: bool = False  # logits
    keeps_all: bool = False  # keys and values of all tokens, in every layer
    blocks: Blocks = ""
    recurrent: bool = False  # some layers keep states, for which the rule of memory has nothing

    def adapted(self, target_modules: str | list[str]) -> list[Linear]:
        """Give the modules that a spec's `lora.target_modules` means."""
        if target_modules == "all-linear":
            return [module for module in self.linear if module.path.rpartition(".")[2] != "gate"]
        if isinstance(target_modules, str):
            return [module for module in self.linear if re.fullmatch(target_modules, module.path)]
        return [
            module
            for module in self.linear
            if any(module.path == name or module.path.endswith(f".{name}") for name in target_modules)
        ]

    def trained(self, modules_to_save: Iterable[str], unembedding: int) -> int:
        """Count the parameters of modules that are trained in full; a head may be the embedding's own."""
        names = tuple(modules_to_save)
        count = sum(size for name, size in self.modules.items() if f".{name}".endswith(names))
        tied = "lm_head" in names and not any(name.endswith("lm_head") for name in self.modules)
        return count + unembedding * tied


def is_block(name: str) -> bool:
    """Tell whether a weight belongs to a layer."""
    return any(part in f".{name}" for part in (".layers.", ".h.", ".blk."))


_RECURRENT = (
    "mamba",
    "ssm",
    "lru_",
    "state_size",
    "linear_num",
    "linear_key",
    "conv_",
)  # what settings begin with


def facts_of(config: Mapping[str, Any], shapes: Mapping[str, list[int]]) -> Facts:
    """Give the facts of a configuration (`config.json`) and its weights' shapes by name."""
    linear, modules = _linear(shapes), dict[str, int]()
    for name, shape in shapes.items():
        bare = _numberless(name.rpartition(".")[0])
        modules[bare] = modules.get(bare, 0) + math.prod(shape)
    softcapped = bool(config.get("final_logit_softcapping"))
    layer = _layer(config, shapes, linear)
    recurrent = _is_recurrent(config)
    return Facts(layer, linear, modules, softcapped, _keeps_all(config), block_kind(config), recurrent)


def _keeps_all(config: Mapping[str, Any]) -> bool:
    """Tell whether no layer has a sliding window or a recurrent state, by the names of settings."""
    windows = config.get("sliding_window") and config.get("use_sliding_window", True)
    kinds = set(config.get("layer_types") or ()) - {"full_attention"}
    return not (windows or kinds or _is_recurrent(config))


def _is_recurrent(config: Mapping[str, Any]) -> bool:
    return any(name.startswith(_RECURRENT) for name in config)


def _numberless(name: str) -> str:
    return re.sub(r"\.\d+(?=\.|$)", "", name)


def _linear(shapes: Mapping[str, list[int]]) -> list[Linear]:
    by_name: dict[str, Linear] = {}
    for name, shape in shapes.items():
        path = _from_gguf(name)
        if path is None:
            continue
        fused = len(shape) == 3 and ".experts." in path  # all experts of a layer in one tensor
        if not is_block(path) or (len(shape) != 2 and not fused) or not (path.endswith(".weight") or fused):
            continue
        path = path.removesuffix(".weight")
        bare, count = _numberless(path), shape[0] if fused else 1
        outputs, inputs = shape[-2:]
        if path.rpartition(".")[2] in _TRANSPOSED:
            inputs, outputs = outputs, inputs
        known = by_name.get(bare)
        if known is None:
            by_name[bare] = Linear(path, inputs, outputs, count)
        else:
            by_name[bare] = Linear(known.path, inputs, outputs, known.count + count)
    return list(by_name.values())


def _from_gguf(name: str) -> str | None:
    """Give a weight's name in transformers for one of a GGUF file; other names as they are."""
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
    if match is None:
        return name
    return f"model.layers.{match[1]}.{_GGUF.get(match[2], match[2])}.weight"


def _layer(config: Mapping[str, Any], shapes: Mapping[str, list[int]], linear: list[Linear]) -> Layer:
    def of(*names: str, default: Any = 0) -> Any:
        """Give the first that is there and of the default's kind: some give one value for each layer."""
        kind = (int, float) if isinstance(default, float) else type(default)
        return next((value for name in names if isinstance(value := config.get(name), kind)), default)

    hidden, heads = of("hidden_size", "n_embd"), of("num_attention_heads", "n_head")
    layers = of("num_hidden_layers", "n_layer")
    width = of("head_dim") or hidden // max(1, heads)
    by_name = {module.path.rpartition(".")[2]: module for module in linear}
    inner = [module for module in linear if module.part == "inner"]
    queries = by_name["q_proj"].outputs if "q_proj" in by_name else heads * width
    key_heads = of("num_key_value_heads", default=heads)
    keys = by_name["k_proj"].outputs if "k_proj" in by_name else key_heads * width
    norms, head_norms, biased = 0, 0, False
    for name, shape in shapes.items():
        last = name.split(".")[-2] if "." in name else ""
        if not is_block(name) or len(shape) != 1 or not ("norm" in last or last.startswith("ln_")):
            continue
        if name.endswith("bias"):
            biased = True
        elif last in ("q_norm", "k_norm", "q_layernorm", "k_layernorm", "attn_q_norm", "attn_k_norm"):
            head_norms += queries if "q_" in last else keys
        else:
            norms += 1
    experts = of("num_local_experts", "num_experts", "n_routed_experts")
    activation = of("hidden_activation", "hidden_act", "activation_function", default="silu")
    return Layer(
        intermediate=inner[0].inputs if inner else of("intermediate_size", "ffn_dim", default=4 * hidden),
        queries=queries,
        keys=keys,
        norms=norms / layers,
        head_norms=head_norms / layers,
        rms=not biased,
        gated=any(name in by_name for name in ("gate_proj", "gate_up_proj", "w3")),
        fused=any(name in by_name for name in _FUSED),
        activation=ACTIVATIONS.get(activation, "plain"),
        dropout=float(of("resid_pdrop", "dropout", "hidden_dropout", default=0.0)),
        attention_dropout=float(of("attn_pdrop", "attention_dropout", default=0.0)),
        softcapped=bool(of("attn_logit_softcapping")),
        experts=experts,
        chosen=of("num_experts_per_tok", "experts_per_token", default=1) if experts else 0,
    )
