"""The residual stream followed from sum to sum through a block, while the model runs.

Architectures differ in what they do to the output of attention and MLP before they add it (norms, scales,
dropout), and in whether they add both at once. What they have in common is the addition: whatever else is
added to the stream is what the block contributes, of the kind of the modules that it comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from attrs import define, field
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from engine.models.block_parts import ATTENTION, KINDS, MLP, OTHER, stream_out
from engine.models.tensor_notes import TensorNotes
from specs.common.names import AFTER_ATTENTION, BEFORE_ATTENTION

_SUMS = {"add", "add_", "__add__", "__radd__", "__iadd__"}
_SCALES = {"mul", "mul_", "__mul__", "__rmul__", "__imul__", "div", "div_", "true_divide", "__truediv__"}
_MIXED = "mixed"  # of more than one kind
# What gives the same numbers, as far as the type holds them.
_SAME = {
    "to", "float", "double", "half", "bfloat16", "type", "type_as", "contiguous", "clone", "detach", "view",
    "reshape", "view_as", "reshape_as", "squeeze", "unsqueeze", "flatten", "unflatten", "dropout",
}  # fmt: skip


@define(eq=False)
class Block:
    """What is found of a block that has run."""

    rows: dict[str, Tensor] = field(factory=dict)  # by kind or stream, [B, P, D] at the watched positions
    # Some blocks multiply the stream by a number of theirs behind all sums. What they add is given as it is
    # then; what came into the block has been multiplied by this.
    carry: float = 1.0


class StreamReading(TorchFunctionMode):
    """Follows the residual stream from sum to sum through the block that runs.

    Tensors are known by their identity, and none is kept alive; of what is added only rows at the watched
    positions are kept.
    """

    def __init__(self, positions: Tensor) -> None:
        super().__init__()
        self._positions = positions  # [B, P]
        self._rows = torch.arange(len(positions), device=positions.device)[:, None]
        self._block: Block | None = None  # the one that runs
        self._inside: list[str] = []  # kinds of the modules that run within each other
        self._parallel = False  # the MLP has run before the attention's output was added
        self._trouble = ""
        self._size = 0, 0  # numbers of the residual stream, its width
        self._stream = TensorNotes[float]()  # tensors that hold the residual stream, times a number
        self._kinds = TensorNotes[frozenset[str]]()  # the kinds of modules that a tensor comes from
        self._terms = TensorNotes[dict[str, Tensor]]()  # of a sum, its terms' watched rows by kind

    def begin(self, stream: Tensor, block: Block) -> None:
        """Follow the stream through a block, and note what is found of it."""
        block.rows[BEFORE_ATTENTION] = self._at(stream)
        self._size = stream.numel(), stream.shape[-1]
        for notes in (self._stream, self._kinds, self._terms):
            notes.clear()
        self._stream[stream] = 1.0
        self._block, self._inside, self._parallel, self._trouble = block, [], False, ""

    def end(self, output: Tensor) -> str:
        """Stop behind a block; why it could not be followed, "" where it could."""
        trouble, factor = self._trouble, self._stream.of(output)
        if not trouble and factor is None:
            trouble = "its output is no sum of its input and what its modules give"
        self._multiply(1.0 if factor is None else factor)
        self._block = None
        return trouble

    def enter(self, kind: str, _: nn.Module, _args: Any) -> None:
        """A module of this kind begins to run."""
        self._inside.append(kind)
        if self._block is not None and kind == MLP and ATTENTION not in self._block.rows:
            self._parallel = True

    def leave(self, kind: str, _: nn.Module, _args: Any, output: Any) -> None:
        """A module of this kind has run: what it gives is of its kind, unless it adds by itself."""
        self._inside.pop()
        result = stream_out(output)
        if self._block is not None and torch.is_tensor(result) and result not in self._stream:
            self._kinds[result] = frozenset({kind})
            self._terms.drop(result)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Call a function of torch, and follow what it does to the stream."""
        options = kwargs or {}
        if self._block is None:
            return func(*args, **options)
        name = getattr(func, "__name__", "")
        tensors = [value for value in args if torch.is_tensor(value)]
        if name in _SUMS and len(tensors) == 2 and not options:
            return self._sum(func, tensors[0], tensors[1])
        if tensors and tensors[0] in self._stream:
            return self._on_stream(func, name, tensors, args, options)
        kinds = self._kinds_of([*tensors, *(value for value in options.values() if torch.is_tensor(value))])
        terms = self._changed_terms(name, tensors, args)
        result = func(*args, **options)
        if kinds:
            for part in result if isinstance(result, tuple | list) else [result]:
                if torch.is_tensor(part):
                    self._kinds[part] = kinds
            if terms is not None and self._like(result):
                self._terms[result] = terms
        return result

    def _on_stream(
        self,
        func: Callable[..., Any],
        name: str,
        tensors: Sequence[Tensor],
        args: Sequence[Any],
        options: Any,
    ) -> Any:
        """Call a function of the stream: what gives the same, or all times a number, is the stream still."""
        before = self._stream.of(tensors[0]) or 0.0
        factor = 1.0 if name in _SAME else _factor(name, tensors, args)
        if name == "__setitem__" or (name.endswith("_") and not name.startswith("__")):
            self._stream.drop(tensors[0])  # changed in place
        result = func(*args, **options)
        if factor is not None and self._like(result):
            self._stream[result] = before * factor
        return result

    def _multiply(self, factor: float) -> None:
        """Note that the stream goes on as a multiple of what it was."""
        if factor != 1 and self._block is not None:
            self._block.carry *= factor
            for kind in self._block.rows.keys() & set(KINDS):
                self._block.rows[kind] = self._block.rows[kind] * factor

    def _sum(self, func: Callable[..., Any], left: Tensor, right: Tensor) -> Any:
        """Add two tensors: one to the stream, two of what may be added to it, or any others."""
        streams = [self._stream.of(tensor) for tensor in (left, right)]
        known = [factor for factor in streams if factor is not None]
        whole = self._like(left) and self._like(right)
        if whole and len(known) == 1:
            added = self._terms_of(left if streams[0] is None else right)
            result = func(left, right)
            self._multiply(known[0])
            self._stream.clear()
            self._stream[result] = 1.0
            self._take(added, result)
            return result
        kinds = self._kinds_of([left, right])
        terms = self._joined(left, right) if whole and kinds and not known else None
        result = func(left, right)
        if kinds:
            self._kinds[result] = kinds
        if terms is not None:
            self._terms[result] = terms
        return result

    def _take(self, added: dict[str, Tensor], result: Tensor) -> None:
        """Note what has been added, and the stream behind it where attention's output has come alone."""
        assert self._block is not None
        if _MIXED in added:
            self._trouble = "outputs of attention and MLP are mixed before they are added"
        _put(self._block.rows, added)
        if ATTENTION in added and MLP not in added and not self._parallel:
            self._block.rows[AFTER_ATTENTION] = self._at(result)

    def _joined(self, left: Tensor, right: Tensor) -> dict[str, Tensor] | None:
        """Give the terms of a sum of tensors of different kinds; None where they are of one, or of none."""
        kinds = [self._kinds.of(side) for side in (left, right)]
        if not all(kinds) or (kinds[0] == kinds[1] and len(kinds[0] or ()) == 1):
            return None
        terms = dict(self._terms_of(left))
        _put(terms, self._terms_of(right))
        return terms

    def _terms_of(self, added: Tensor) -> dict[str, Tensor]:
        """Give the rows of what is added, by kind."""
        terms = self._terms.of(added)
        if terms is not None:
            return terms
        kinds = self._kinds.of(added) or frozenset(self._inside[-1:] or [OTHER])
        return {next(iter(kinds)) if len(kinds) == 1 else _MIXED: self._at(added)}

    def _changed_terms(
        self, name: str, tensors: Sequence[Tensor], args: Sequence[Any]
    ) -> dict[str, Tensor] | None:
        """Give the terms of what a function makes of a sum, None where that is none any more."""
        terms = self._terms.of(tensors[0]) if tensors else None
        factor = 1.0 if name in _SAME else _factor(name, tensors, args)
        if terms is None or factor is None:
            return None
        return {kind: rows * factor for kind, rows in terms.items()}

    def _kinds_of(self, tensors: Sequence[Tensor]) -> frozenset[str]:
        return frozenset[str]().union(*(self._kinds.of(tensor) or () for tensor in tensors))

    def _like(self, value: Any) -> bool:
        """Tell whether it has a number for each of the residual stream, in rows of its width."""
        numbers, width = self._size
        return torch.is_tensor(value) and value.numel() == numbers and value.shape[-1] == width

    def _at(self, states: Tensor) -> Tensor:
        """Give the watched rows of states [B, T, D]: [B, P, D]."""
        by_token = states.reshape(len(self._positions), -1, states.shape[-1])
        return by_token[self._rows, self._positions]


def _factor(name: str, tensors: Sequence[Tensor], args: Sequence[Any]) -> float | None:
    """Give the number by which a function multiplies its first tensor, None where it does something else."""
    numbers = [float(value) for value in args if isinstance(value, int | float)]
    numbers += [float(tensor) for tensor in tensors[1:] if tensor.ndim < 2 and tensor.numel() == 1]
    if name not in _SCALES or len(args) != 2 or len(numbers) != 1:
        return None
    return 1 / numbers[0] if "div" in name else numbers[0]


def _put(terms: dict[str, Tensor], more: dict[str, Tensor]) -> None:
    """Add rows by kind to others."""
    for kind, rows in more.items():
        terms[kind] = terms[kind] + rows if kind in terms else rows
