"""Notes on tensors, each known by its identity and for as long as it lives."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from attrs import define, field
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

T = TypeVar("T")


@define(eq=False)
class TensorNotes(Generic[T]):
    """A value for some tensors; keeps none of them alive."""

    _notes: Any = field(factory=WeakIdKeyDictionary, init=False)

    def __contains__(self, tensor: Tensor) -> bool:
        return tensor in self._notes

    def __setitem__(self, tensor: Tensor, value: T) -> None:
        self._notes[tensor] = value

    def of(self, tensor: Tensor) -> T | None:
        """Give a tensor's value, None where it has none."""
        value: T | None = self._notes.get(tensor)
        return value

    def drop(self, tensor: Tensor) -> None:
        """Forget a tensor, noted or not."""
        self._notes.pop(tensor, None)

    def clear(self) -> None:
        """Forget all."""
        self._notes = WeakIdKeyDictionary()
