"""The built C core: its paths, checked pointers into tensors, and the sharing of its work among threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from kernels._lens import ffi, lib
from specs.common.spelling import least_far

__all__ = ["ThreadTeam", "cpu_paths", "ffi", "lib", "path_number", "pointer", "regular"]

C_TYPES = {
    torch.float32: "float *",
    torch.float64: "double *",
    torch.bfloat16: "uint16_t *",
    torch.int32: "int32_t *",
    torch.int64: "int64_t *",
    torch.uint8: "void *",
}


def cpu_paths() -> list[str]:
    """Name the paths that this CPU supports, best first; the first is used unless another is forced."""
    return [
        ffi.string(lib.lens_path_name(index)).decode()
        for index in range(lib.lens_path_count())
        if lib.lens_path_supported(index)
    ]


@lru_cache
def path_number(name: str | None) -> int:
    """Give the C core's number of a path, by default of the best one.

    Raises ValueError for a path that this CPU does not support.
    """
    supported = cpu_paths()
    if name is not None and name not in supported:
        near = least_far(name, supported)
        raise ValueError(f'path: found "{name}", expected {", ".join(supported)}; did you mean "{near}"?')
    names = [ffi.string(lib.lens_path_name(index)).decode() for index in range(lib.lens_path_count())]
    return names.index(name or supported[0])


def pointer(name: str, tensor: Tensor, dtype: torch.dtype) -> Any:
    """Give a C pointer to a tensor's elements, after checking all that C takes on trust.

    The tensor must outlive the pointer. Raises TypeError or ValueError that names the argument.
    """
    if tensor.dtype != dtype:
        raise TypeError(f"{name}: found {tensor.dtype}, expected {dtype}")
    if tensor.device.type != "cpu":
        raise ValueError(f"{name}: found on {tensor.device}, expected on cpu")
    if not tensor.is_contiguous():
        raise ValueError(f"{name}: found strides {tensor.stride()}, expected contiguous rows")
    if tensor.data_ptr() % tensor.element_size():
        raise ValueError(
            f"{name}: found address {tensor.data_ptr():#x}, expected one aligned to its elements"
        )
    return ffi.cast(C_TYPES[dtype], tensor.data_ptr())


def regular(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Give a tensor as `pointer` wants it; the same one where it already is."""
    tensor = tensor.detach().to(dtype).contiguous()
    return tensor.clone() if tensor.data_ptr() % tensor.element_size() else tensor


class ThreadTeam:
    """As many threads as torch uses, for work that releases the interpreter's lock."""

    def __init__(self) -> None:
        """Start no thread before there is work for it."""
        self.size = torch.get_num_threads()

    def share(self, work: Callable[[int, int], object], count: int) -> None:
        """Call work(i, slot) once for every i below `count`; a slot is in use by one thread at a time."""
        todo = iter(range(count))  # threads take turns at it under the interpreter's lock

        def run(slot: int) -> None:
            for item in todo:
                work(item, slot)

        others = [
            _threads(os.getpid(), self.size).submit(run, slot) for slot in range(1, min(self.size, count))
        ]
        run(0)
        for other in others:
            other.result()


@lru_cache(maxsize=1)
def _threads(process: int, number: int) -> ThreadPoolExecutor:
    """Start threads, which wait for the next call of this process: a fork has none of its parent's.

    A new thread starts on the core of its caller, and the two share that core for milliseconds.
    """
    return ThreadPoolExecutor(number)
