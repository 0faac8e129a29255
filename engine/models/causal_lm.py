"""What the engine asks of a causal language model: the names by which type checkers know it.

transformers and peft come without types that mypy reads here, and every architecture is a class of its own.
These two classes declare what the engine uses of any of them. No object is ever made of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn


class CausalLm(nn.Module):
    """A causal language model of transformers, with or without an adapter around it."""

    config: Any
    generation_config: Any
    device: torch.device
    dtype: torch.dtype

    def get_input_embeddings(self) -> nn.Embedding:
        """Give the table of token embeddings, [V, D]."""
        raise NotImplementedError

    def get_output_embeddings(self) -> nn.Linear:
        """Give the unembedding, [V, D]."""
        raise NotImplementedError

    def get_decoder(self) -> nn.Module:
        """Give the part that reads ids and gives hidden states."""
        raise NotImplementedError

    def gradient_checkpointing_enable(self) -> None:
        """Compute activations again in the backward pass in place of keeping them."""
        raise NotImplementedError

    def gradient_checkpointing_disable(self) -> None:
        """Keep activations again."""
        raise NotImplementedError

    def enable_input_require_grads(self) -> None:
        """Let gradients pass through the embeddings' output."""
        raise NotImplementedError

    def tie_weights(self, *_: Any, **__: Any) -> None:
        """Let embeddings and unembedding share their weights, where the configuration says so."""
        raise NotImplementedError

    def generate(self, **options: Any) -> Tensor:
        """Continue prompts: token ids, [rows, tokens]."""
        raise NotImplementedError


class AdaptedLm(CausalLm):
    """A causal language model with LoRA adapters: peft's PeftModel."""

    peft_config: Mapping[str, Any]

    def get_base_model(self) -> CausalLm:
        """Give the model around whose modules the adapters stand."""
        raise NotImplementedError

    def load_adapter(self, folder: str, *, adapter_name: str) -> Any:
        """Read a further adapter, or the values of one that the model has."""
        raise NotImplementedError

    def disable_adapter(self) -> AbstractContextManager[None]:
        """Let the model run without its adapters inside a `with` block."""
        raise NotImplementedError

    def save_pretrained(self, folder: str) -> None:
        """Write the adapters in peft's format."""
        raise NotImplementedError


def recompute_activations(model: CausalLm, *, anew: bool) -> None:
    """Have activations computed anew in the backward pass, or kept.

    Releases of transformers 5 differ in what they call it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        if anew:
            model.gradient_checkpointing_enable()
        else:
            model.gradient_checkpointing_disable()


def adapter_off(model: CausalLm) -> AbstractContextManager[None]:
    """Let a model run without its adapter, if it has one, inside the `with` block."""
    manager: AbstractContextManager[None] = (
        model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()  # type: ignore[operator]
    )
    return manager


def without_adapter(model: CausalLm) -> CausalLm:
    """Give the model of transformers, whose modules have an adapter's around them or none."""
    bare: CausalLm = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    return bare
