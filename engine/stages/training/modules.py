"""The modules that an adapter may train: those that take part when the model reads text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from engine.errors import UsageError
from engine.models.causal_lm import CausalLm
from engine.models.lens import Lens, find_lens
from specs.tables.experiment import Lora


def unseen_modules(base: CausalLm, lora: Lora) -> list[str]:
    """Name what no adapter is put on: linear modules that take no part when the decoder reads text.

    Those are towers for pictures and sound, and what joins them to the decoder. Routers that give more than
    one value are left out, too. "all-linear" also leaves out the output projection of state-space mixers,
    whose fused kernels read its weight past an adapter.
    """
    lens, head = find_lens(base), base.get_output_embeddings()
    within = {id(module) for module in lens.layers.modules()}
    linear = {
        name: module
        for name, module in base.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }
    outside = {name for name, module in linear.items() if id(module) not in within}
    forward = {name for name, module in linear.items() if _has_own_forward(module)}
    gives_tensor = _run(lens, {name: linear[name] for name in outside | forward}) if outside | forward else {}
    unseen = (outside - gives_tensor.keys()) | {name for name in forward if not gives_tensor.get(name, True)}
    if lora.target_modules == "all-linear":
        unseen |= {
            f"{name}.out_proj"
            for name, module in base.named_modules()
            if hasattr(module, "A_log") and hasattr(module, "out_proj")
        }
    return sorted(unseen)


def _has_own_forward(module: nn.Module) -> bool:
    """Tell whether an architecture's own code makes something else of a linear module."""
    kind = type(module)
    is_own = kind.__module__.startswith(("transformers.models.", "transformers_modules."))
    return is_own and kind.forward is not nn.Linear.forward


def _run(lens: Lens, modules: Mapping[str, nn.Module]) -> dict[str, bool]:
    """Let the decoder read one token; tell of the modules that run whether they give a single tensor."""
    gives_tensor: dict[str, bool] = {}

    def note(name: str, output: Any) -> None:
        gives_tensor[name] = torch.is_tensor(output)

    hooks = [
        module.register_forward_hook(lambda _, _args, output, name=name: note(name, output))
        for name, module in modules.items()
    ]
    ids = torch.zeros((1, 1), dtype=torch.int64, device=lens.device)
    try:
        with torch.no_grad():
            lens.last_hidden(ids, torch.ones_like(ids))
    finally:
        for hook in hooks:
            hook.remove()
    return gives_tensor


def check_named(base: CausalLm, lora: Lora) -> None:
    """Raise UsageError where a listed module is none of the model's: peft leaves it out without a word."""
    modules = [name for name, _ in base.named_modules()]
    lists = {"target_modules": lora.target_modules, "modules_to_save": lora.modules_to_save}
    for key, names in lists.items():
        for name in [] if isinstance(names, str) else names:
            # As peft compares: any end of the name for what is saved, its last parts for what is adapted.
            end = name if key == "modules_to_save" else f".{name}"
            if not any(module == name or module.endswith(end) for module in modules):
                last = {module.rpartition(".")[2] for module in modules if not module[-1:].isdigit()} - {""}
                near = get_close_matches(name, sorted(last), n=3) or sorted(last)
                raise UsageError(
                    f"lora.{key}: found {list(names)!r}, but {type(base).__name__} has no module {name!r}; "
                    f"expected names of its modules, such as {', '.join(map(repr, near))}"
                )


def trained_modules(model: CausalLm) -> list[str]:
    """Name the modules that are trained, under an adapter or in full, as the base model calls them."""
    names = (name for name, parameter in model.named_parameters() if parameter.requires_grad)
    bare = (name.removeprefix("base_model.model.") for name in names)
    return list(dict.fromkeys(re.split(r"\.lora_|\.modules_to_save\.", name)[0] for name in bare))


def check_trained(model: CausalLm, base: CausalLm) -> None:
    """Raise UsageError where anything is trained in full that neither the decoder nor the unembedding is."""
    parts = (find_lens(model).decoder, base.get_output_embeddings())
    seen = {id(parameter) for part in parts for parameter in part.parameters()}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and id(parameter) not in seen:
            raise UsageError(
                f"lora.modules_to_save: found {name.removeprefix('base_model.model.')}, which takes no part "
                "when the model reads text; expected modules of the decoder, or its unembedding"
            )
