"""The backends of the probe core, imported when first used, and the choice among them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor

from kernels.result import LensStatistics

Backend = Callable[..., LensStatistics]

# Name → (module, function).
BACKENDS = {
    "reference": ("kernels.reference", "reference"),
    "torch": ("kernels.torch_tiled", "torch_tiled"),
    "triton": ("kernels.gpu.lens", "triton_backend"),
}

OLDEST_TRITON = (3, 5)  # loops can do without hoisting from there on

# Further operations: name → backend → (module, function).
OPERATIONS = {
    "attention_entropy": {
        "reference": ("kernels.attention_torch", "reference"),
        "torch": ("kernels.attention_torch", "torch_tiled"),
        "triton": ("kernels.gpu.attention", "triton_backend"),
    },
    "activation_entropy": {
        "reference": ("kernels.activation", "reference"),
        "torch": ("kernels.activation", "torch_rows"),
        "triton": ("kernels.gpu.activation", "triton_backend"),
    },
}


def available_backends() -> list[str]:
    """Name the backends that can run on this machine."""
    return [name for name in BACKENDS if name != "triton" or (_has_gpu() and _has_triton())]


def choose_backend(device: torch.device, backend: str = "auto") -> str:
    """Give the name of the backend to use: the one asked for, or the fastest for the device.

    Raises ValueError for a name that is no backend, and for one that cannot run on the device.
    """
    if backend == "auto":
        return "triton" if device.type == "cuda" and _has_triton() else "torch"
    _check_backend(backend, BACKENDS, device)
    return backend


def get_backend(name: str) -> Backend:
    """Import a backend's function."""
    module, function = BACKENDS[name]
    found: Backend = getattr(import_module(module), function)
    return found


def get_operation(operation: str, device: torch.device, backend: str) -> Callable[..., Tensor]:
    """Import the function of a further operation, by the backend asked for or the fastest for the device.

    Raises ValueError for a name that is no backend, and for one that cannot run on the device.
    """
    table = OPERATIONS[operation]
    if backend == "auto":
        backend = "triton" if device.type == "cuda" and _has_triton() else "torch"
    _check_backend(backend, table, device)
    module, function = table[backend]
    found: Callable[..., Tensor] = getattr(import_module(module), function)
    return found


def _check_backend(backend: str, table: Mapping[str, object], device: torch.device) -> None:
    if backend not in table:
        near = get_close_matches(backend, table, n=1, cutoff=0)[0]
        raise ValueError(
            f'backend: found "{backend}", expected auto, {", ".join(table)}; did you mean "{near}"?'
        )
    if backend == "triton":
        _check_triton(device)


def _has_triton() -> bool:
    if find_spec("triton") is None:
        return False
    major, minor = import_module("triton").__version__.split(".")[:2]
    return (int(major), int(minor)) >= OLDEST_TRITON


def interpreting() -> bool:
    """Tell whether Triton's kernels run in its interpreter, on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def _has_gpu() -> bool:
    return torch.cuda.is_available() or interpreting()  # ROCm's devices go by the name of cuda as well


def _check_triton(device: torch.device) -> None:
    if not _has_triton():
        raise ValueError(
            f'backend: "triton" needs the package triton {OLDEST_TRITON[0]}.{OLDEST_TRITON[1]} or later, '
            "which is not installed; pip install 'ablation-engine[triton]' brings it"
        )
    if device.type != "cuda" and not interpreting():
        raise ValueError(
            f'backend: found "triton" for tensors on {device}, expected a CUDA or ROCm device '
            "(or TRITON_INTERPRET=1 in the environment from the start, to interpret the kernels on the CPU)"
        )
