"""A base model that trainings use one after another, each finding it as it was loaded.

Training, loading an adapter and measuring all change a model: they wrap modules, hook into them, set flags.
None of that is undone piece by piece. What the model is made of is noted before and put back behind, whatever
has happened in between; that no weight has changed is told by checksums.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import GenerationConfig, PreTrainedConfig

from engine.models.causal_lm import CausalLm
from engine.models.tokenizer import Tokenizer

_OWNERS = (nn.Module, PreTrainedConfig, GenerationConfig)  # whose attributes are a model's state
_WORDS = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}  # bytes → type


@frozen(eq=False)
class BaseModel:
    """A frozen model without an adapter, as it has just been loaded, and its tokenizer."""

    model: CausalLm
    tokenizer: Tokenizer
    _modules: list[nn.Module] = field(init=False)  # known also where others are wrapped around them
    _buffers: list[Tensor] = field(init=False)  # but for frequencies, which follow the length of what is read
    _checksums: list[int] = field(init=False)

    @_modules.default
    def _loaded_modules(self) -> list[nn.Module]:
        return list(self.model.modules())

    @_buffers.default
    def _loaded_buffers(self) -> list[Tensor]:
        fixed = [module for module in self._modules if not hasattr(module, "rope_type")]
        return [buffer for module in fixed for buffer in module.buffers(recurse=False)]

    @_checksums.default
    def _loaded(self) -> list[int]:
        return checksums(self._modules, self._buffers)

    def has_changed(self) -> bool:
        """Tell whether a weight is not the one that was loaded, with adapters on the model or without.

        Reads all of them once; RuntimeError where their device does not answer any more.
        """
        return checksums(self._modules, self._buffers) != self._checksums

    def is_usable(self) -> bool:
        """Tell whether the weights are those that were loaded, on a device that still answers."""
        try:
            return not self.has_changed()
        except RuntimeError:
            return False


@contextmanager
def as_it_was(model: nn.Module) -> Iterator[None]:
    """Put a model's modules, hooks, flags and configs back behind the `with` block, however that ends.

    What was wrapped around the model itself (peft's model) is of no use any more. Weights that were written
    over stay so.
    """
    containers, kinds, parameters = _parts(model)
    contents = [(container, container.copy()) for container in containers]
    trained = [(parameter, parameter.requires_grad) for parameter in parameters]
    try:
        yield
    finally:
        for owner, kind in kinds:
            if isinstance(owner, FSDPModule):
                owner.reshard()  # it may have been left whole in the middle of a run
            if type(owner) is not kind:
                owner.__class__ = kind
        for container, content in contents:
            _put_back(container, content)
        for parameter, requires_grad in trained:
            parameter.requires_grad_(requires_grad)
            parameter.grad = None


def _parts(model: nn.Module) -> tuple[list[Any], list[tuple[Any, type]], list[nn.Parameter]]:
    """Give what a model consists of: the containers that hold its state, their owners, its parameters.

    An owner's attributes are one container; modules, hooks and buffers are others that it holds.
    """
    seen: dict[int, Any] = {}
    containers, kinds, parameters = list[Any](), list[tuple[Any, type]](), list[nn.Parameter]()
    pending: list[Any] = [model]
    while pending:
        part = pending.pop()
        if id(part) in seen:
            continue
        seen[id(part)] = part
        if isinstance(part, _OWNERS):
            kinds.append((part, type(part)))
            pending.append(vars(part))
        elif isinstance(part, dict | list | set):
            containers.append(part)
            pending += part.values() if isinstance(part, dict) else part
        elif isinstance(part, nn.Parameter):
            parameters.append(part)
    return containers, kinds, parameters


def _put_back(container: Any, content: Any) -> None:
    """Give a dict, list or set its former content."""
    if isinstance(container, list):
        container[:] = content
    elif isinstance(container, set):
        container.clear()
        container |= content
    elif container.keys() != content.keys() or any(container[key] is not content[key] for key in content):
        container.clear()
        container.update(content)


def checksums(modules: Iterable[nn.Module], buffers: Iterable[Tensor]) -> list[int]:
    """Give a sum over the bits of each weight, constant of quantisation and buffer, of this rank's shares.

    Reads all of them once, where they are: milliseconds per 10 GB on a GPU.
    """
    state: dict[str, Any] = {}
    for number, module in enumerate(modules):
        if isinstance(module, FSDPModule):
            module.reshard()
        module._save_to_state_dict(state, f"{number}.", True)  # its own alone, and none that wraps it
    tensors = [*state.values(), *buffers]
    unique = {id(tensor): tensor for tensor in tensors if isinstance(tensor, Tensor)}
    with torch.no_grad():
        return [int(total) for total in [_bit_sum(tensor) for tensor in unique.values()]]


def _bit_sum(tensor: Tensor) -> Tensor:
    """Sum the widest whole words that a tensor's bytes make; the sum wraps around, and so has one value."""
    local = getattr(tensor, "_local_tensor", tensor).detach().contiguous().flatten().view(torch.uint8)
    width = next(width for width in _WORDS if local.numel() % width == 0)
    return local.view(_WORDS[width]).sum(dtype=torch.int64)
