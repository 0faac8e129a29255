"""The modules that an adapter may train: those that take part when the model reads text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from engine.errors import UsageError
from engine.lens import Lens, find_lens
from specs.model import Lora


def unseen_modules(base: Any, lora: Lora) -> list[str]:
    """Name what no adapter is put on: linear modules that take no part when the decoder reads text.

    Those are towers for pictures and sound, and what joins them to the decoder. "all-linear" also leaves out
    the output projection of state-space mixers, whose fused kernels read its weight past an adapter.
    """
    lens = find_lens(base)
    within = {id(module) for module in lens.layers.modules()}
    head = base.get_output_embeddings()
    outside = {
        name: module
        for name, module in base.named_modules()
        if id(module) not in within and module is not head and _is_linear(module)
    }
    unseen = outside.keys() - _ran(lens, outside) if outside else set[str]()
    if lora.target_modules == "all-linear":
        unseen |= {
            f"{name}.out_proj"
            for name, module in base.named_modules()
            if hasattr(module, "A_log") and hasattr(module, "out_proj")
        }
    return sorted(unseen)


def check_trained(model: Any, base: Any) -> None:
    """Raise UsageError where anything is trained in full that neither the decoder nor the unembedding is."""
    parts = (find_lens(model).decoder, base.get_output_embeddings())
    seen = {id(parameter) for part in parts for parameter in part.parameters()}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and id(parameter) not in seen:
            raise UsageError(
                f"lora.modules_to_save: found {name.removeprefix('base_model.model.')}, which takes no part "
                "when the model reads text; expected modules of the decoder, or its unembedding"
            )


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | Conv1D)


def _ran(lens: Lens, modules: Mapping[str, nn.Module]) -> set[str]:
    """Give the names of the modules that run when the decoder reads one token."""
    ran: set[str] = set()
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: ran.add(name))
        for name, module in modules.items()
    ]
    ids = torch.zeros((1, 1), dtype=torch.int64, device=lens.device)
    try:
        with torch.no_grad():
            lens.last_hidden(ids, torch.ones_like(ids))
    finally:
        for hook in hooks:
            hook.remove()
    return ran
