"""What autograd keeps for a backward pass, by the storages that it is handed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, UntypedStorage, nn


def itself(tensor: Tensor) -> Tensor:
    """The tensor whose storage counts."""
    return tensor


@contextmanager
def saved_storages(
    model: nn.Module, inner: Callable[[Tensor], Tensor] = itself
) -> Iterator[Iterable[UntypedStorage]]:
    """Collect the storages that are kept inside the `with` block, each once, but for the model's own."""
    known = {inner(tensor).untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = inner(tensor).untyped_storage()
        if storage.data_ptr() not in known:
            kept.setdefault(storage.data_ptr(), storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, itself):
        yield kept.values()
