"""Which architectures' blocks have no stream between attention and MLP, or cannot be taken apart.

By `model_type`, as `engine.models.block_streams` finds them when it runs them: a plan loads no model. What is
not listed is found out then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Blocks = Literal["", "parallel", "whole"]
"""parallel: both outputs are added at once. whole: what a block adds is no part of its output."""

_PARALLEL = frozenset({
    "codegen", "cohere", "cohere2", "cohere2_moe", "cohere_compass_text", "gptj", "phi",
})  # fmt: skip
# The setting that makes them parallel, and its default.
_PARALLEL_BY = {
    "falcon": ("parallel_attn", True),
    "gpt_neox": ("use_parallel_residual", True),
    "stablelm": ("use_parallel_residual", False),
}
# A norm behind the sum, or a stream that is multiplied by more than a number.
_WHOLE = frozenset({
    "bart", "bert", "bert-generation", "big_bird", "blenderbot-small", "camembert", "data2vec-text", "doge",
    "electra", "ernie", "git", "inkling2_text", "marian", "minimax", "mvp", "openai-gpt", "plbart",
    "prophetnet", "rembert", "roberta", "roc_bert", "roformer", "rwkv", "trocr", "xlm", "xlm-roberta",
    "zaya",
})  # fmt: skip


def block_kind(config: Mapping[str, Any]) -> Blocks:
    """Give what is known of the blocks of a configuration (`config.json`)."""
    kind = config.get("model_type", "")
    if kind in _WHOLE or (kind == "opt" and not config.get("do_layer_norm_before", True)):
        return "whole"
    setting, default = _PARALLEL_BY.get(kind, ("", False))
    one_norm = kind == "falcon" and config.get("new_decoder_architecture", False)
    return "parallel" if kind in _PARALLEL or one_norm or config.get(setting, default) else ""
