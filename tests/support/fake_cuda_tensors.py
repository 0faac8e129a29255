"""Tensors that say "cuda" and lie on the CPU, and what a GPU would do with them.

torch's own fake tensors have no values, so that nothing that reads one (`.item()`, a mask as an index) runs,
and on a build of torch without CUDA they cannot be indexed or trained. These have values: each operation is
computed on the CPU, behind the check that CUDA makes: operands on one device, but for numbers. Whatever makes
the CPU wait for a GPU is noted, as `torch.cuda.set_sync_debug_mode` would.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

ROOT = Path(__file__).parents[2]
CPU, CUDA, META = torch.device("cpu"), torch.device("cuda:0"), torch.device("meta")
aten = torch.ops.aten
MOVES = {aten.copy_.default, aten._foreach_copy_.default}  # from any device to any other
COPIES = MOVES | {aten._to_copy.default}
INDEXED = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}
# Operations whose result the CPU has to know before it goes on: a number, or a tensor's size.
WAITED_FOR = {
    aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.equal.default,
    aten.repeat_interleave.Tensor, aten._unique2.default, aten.unique_dim.default,
    aten.unique_consecutive.default,
}  # fmt: skip


class MixedDevices(RuntimeError):
    """An operation took tensors of both devices, which CUDA refuses."""


class Away(Tensor):
    """A CPU tensor that says it is on the GPU; to torch's C++ it is a meta tensor."""

    inner: Tensor
    device = CUDA
    is_cuda, is_cpu, is_meta = True, False, False

    @staticmethod
    def __new__(cls, inner: Tensor) -> Away:
        made: Away = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=META,
        )
        made.inner = inner
        return made

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        """Let modules move their parameters in place (`Module.to`), as they do on a GPU."""
        return ["inner"], None

    def __reduce_ex__(self, _protocol: Any) -> Any:
        return unpickled, (self.inner, self.requires_grad)

    def get_device(self) -> int:
        """Give the GPU's number."""
        return 0

    def data_ptr(self) -> int:
        """Give an address that is aligned as memory of a GPU is."""
        return self.inner.data_ptr()

    def tolist(self) -> Any:
        """Copy the values over."""
        return self.cpu().tolist()

    def numpy(self, **_: Any) -> Any:
        """Refuse, as tensors on a GPU do."""
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def __array__(self, *_: Any) -> Any:
        return self.numpy()

    def __repr__(self, **_: Any) -> str:
        return f"Away({self.inner})"

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(function, args, kwargs or {}, [])


def unpickled(inner: Tensor, requires_grad: bool) -> Tensor:
    return inner.to(CUDA).requires_grad_(requires_grad)


def compute(function: Any, args: Any, kwargs: dict[str, Any], waits: list[str]) -> Any:
    """Compute on the CPU, behind CUDA's check; `kwargs` that name the meta device mean the GPU."""
    asked = kwargs.get("device")
    tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
    away = [value for value in tensors if isinstance(value, Away)]
    if away and len(away) < len(tensors):
        _check(function, args, tensors)
    if asked is not None:
        kwargs = kwargs | {"device": CPU} | ({"pin_memory": False} if "pin_memory" in kwargs else {})
    elif any(value.is_meta for value in tensors):
        assert not away, f"{function}: a tensor on the GPU beside one that holds nothing"
        return function(*args, **kwargs)
    if function in MOVES:
        to_gpu = isinstance(tensors[0], Away)
    else:
        to_gpu = bool(away) if asked is None else asked.type == "meta"
    if _waits(function, args, kwargs, away, to_gpu):
        waits.append(_place())
    inside, options = tree_map(_inside, args), tree_map(_inside, kwargs)
    if function is aten.mm.dtype:  # float32 of halves, which CUDA has and the CPU has not
        result = inside[0].float() @ inside[1].float()
    else:
        result = function(*inside, **options)
    known = {id(value.inner): value for value in away}  # an operation in place gives its argument back
    return tree_map(lambda value: _outside(value, known), result) if to_gpu else result


def _inside(value: Any) -> Any:
    return value.inner if isinstance(value, Away) else value


def _outside(value: Any, known: dict[int, Away]) -> Any:
    if not isinstance(value, Tensor):
        return value
    return known[id(value)] if id(value) in known else Away(value)


def _check(function: Any, args: Any, tensors: list[Tensor]) -> None:
    """Raise MixedDevices for what CUDA would not compute."""
    if function in MOVES:
        return
    here = [value for value in tensors if not isinstance(value, Away)]
    if function in INDEXED and isinstance(args[0], Away):  # places may lie on the CPU
        here = [value for value in args[2:3] if not isinstance(value, Away)]
    written = function._schema.arguments[0].alias_info
    into_cpu = written is not None and written.is_write and not isinstance(tensors[0], Away)
    numbers = all(value.dim() == 0 for value in here)
    if not numbers or into_cpu or not _takes_numbers(function):
        shapes = [f"{value.device} {tuple(value.shape)}" for value in tensors]
        raise MixedDevices(f"{function}: expected all tensors to be on the same device, found {shapes}")


def _takes_numbers(function: Any) -> bool:
    pointwise = torch.Tag.pointwise in function.tags
    return pointwise or function in INDEXED or "_foreach_" in function._schema.name


def _waits(function: Any, args: Any, kwargs: dict[str, Any], away: list[Any], to_gpu: bool) -> bool:
    """Tell whether the CPU waits for the GPU here: for a number, a size, or the end of a copy."""
    if function in COPIES:
        blocking = not (kwargs.get("non_blocking") or (function in MOVES and args[2:3] == (True,)))
        crosses = to_gpu != isinstance(args[0 if function not in MOVES else 1], Away)
        return crosses and blocking
    if not away:
        return False
    if function in INDEXED:
        return any(value is not None and value.dtype == torch.bool for value in args[1])
    return function in WAITED_FOR and not kwargs.get("output_size")


def _place() -> str:
    """Name the innermost line of the project that is running."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(ROOT) and file.parts[len(ROOT.parts)] in ("engine", "kernels"):
            return f"{file.relative_to(ROOT)}:{frame.f_lineno}"
        frame = frame.f_back
    return ""
