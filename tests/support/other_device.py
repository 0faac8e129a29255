"""A device that is not the CPU, as far as the code under test can see; the CPU does its work.

Tensors say that they are elsewhere, and products of half-precision operands are rounded to their type, as
every device rounds them; those of float32 operands are TF32's where the process allows that. A device that
widens, as CUDA's, also gives float32 for halves (`mm` with `out_dtype`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from kernels import product

CPU = torch.device("cpu")
DEVICE = torch.device("meta")  # the one other device that every build of torch can index on
PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.bmm.default, torch.ops.aten.addmm.default)


class Elsewhere(Tensor):
    """A CPU tensor that names another device."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor, device: torch.device) -> Elsewhere:
        made: Elsewhere = Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device=device
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is Tensor.tolist:
            return args[0].inner.tolist()
        return super().__torch_function__(function, types, args, kwargs)

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError("used outside of `elsewhere`")


class _Mode(TorchDispatchMode):
    def __init__(self, *, widens: bool) -> None:
        super().__init__()
        self.widens = widens

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        asked = kwargs.get("device")
        away = asked is not None and torch.device(asked) == DEVICE
        if asked is not None:
            kwargs["device"] = CPU
        inside: list[Elsewhere] = []

        def unwrap(value: Any) -> Any:
            if isinstance(value, Elsewhere):
                inside.append(value)
                return value.inner
            assert not (isinstance(value, Tensor) and value.is_meta), "a tensor that holds nothing"
            return value

        args, kwargs = tree_map(unwrap, args), tree_map(unwrap, kwargs)
        if function is torch.ops.aten.mm.dtype and self.widens:
            result = args[0].float() @ args[1].float()
        elif function in PRODUCTS and torch.backends.cuda.matmul.fp32_precision == "tf32":
            result = function(*map(_to_tf32, args), **kwargs)
        else:
            result = function(*args, **kwargs)
        if not (away or (inside and asked is None)):
            return result
        known = {id(value.inner): value for value in inside}  # an operation in place gives its argument back

        def wrap(value: Any) -> Any:
            if isinstance(value, Tensor):
                return known[id(value)] if id(value) in known else Elsewhere(value, DEVICE)
            return value

        return tree_map(wrap, result)


def _to_tf32(value: Any) -> Any:
    """Keep the 10 bits of a float32's mantissa that TF32 has."""
    if not (isinstance(value, Tensor) and value.dtype == torch.float32):
        return value
    return (value.contiguous().view(torch.int32) & ~0x1FFF).view(torch.float32)


class _Literals(TorchFunctionMode):
    """Makes tensors of Python numbers, which would be real meta tensors else."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function not in (torch.as_tensor, torch.tensor) or isinstance(args[0], Tensor):
            return function(*args, **kwargs)
        away = kwargs.pop("device", None) == DEVICE
        made = function(*args, **kwargs)
        return Elsewhere(made, DEVICE) if away else made


@contextmanager
def elsewhere(*, widens: bool) -> Iterator[Callable[[Tensor], Tensor]]:
    """Give a function that moves tensors to the device, which works inside the block."""
    product._gives_float32.cache_clear()
    try:
        with _Literals(), _Mode(widens=widens):
            yield lambda tensor: Elsewhere(tensor, DEVICE)
    finally:
        product._gives_float32.cache_clear()


def home(tensor: Tensor) -> Tensor:
    """Give back the CPU's tensor."""
    return tensor.inner if isinstance(tensor, Elsewhere) else tensor
