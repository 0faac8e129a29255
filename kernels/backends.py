"""The backends of every operation, imported when first used, and the choice among them."""

from __future__ import annotations

import os
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from warnings import warn

import torch

LENS = "lens_statistics"
# Operation → backend → (module, function), the fastest backends last.
OPERATIONS = {
    LENS: {
        "reference": ("kernels.reference", "reference"),
        "torch": ("kernels.torch_tiled", "torch_tiled"),
        "c": ("kernels.c_backend", "c_backend"),
        "triton": ("kernels.gpu.lens", "triton_backend"),
    },
    "lens_divergence": {
        "reference": ("kernels.divergence", "reference"),
        "torch": ("kernels.divergence", "torch_tiled"),
    },
    "attention_entropy": {
        "reference": ("kernels.attention_torch", "reference"),
        "torch": ("kernels.attention_torch", "torch_tiled"),
        "triton": ("kernels.gpu.attention", "triton_backend"),
    },
    "attention_row_entropy": {
        "reference": ("kernels.attention_rows", "reference"),
        "torch": ("kernels.attention_rows", "torch_tiled"),
    },
    "activation_entropy": {
        "reference": ("kernels.activation", "reference"),
        "torch": ("kernels.activation", "torch_rows"),
        "triton": ("kernels.gpu.activation", "triton_backend"),
    },
}
NO_C_CORE = (
    "the C core of the probe is not built ({reason}); install a C compiler, then run "
    "`pip install --force-reinstall --no-deps .` in the project"
)
OLDEST_TRITON = (3, 5)  # loops can do without hoisting from there on
NO_TRITON = (
    f"the package triton {OLDEST_TRITON[0]}.{OLDEST_TRITON[1]} or later is not installed; "
    "pip install 'ablation-engine[triton]' brings it"
)


def available_backends() -> list[str]:
    """Name the backends of the lens statistics that can run on this machine, on one device or another."""
    devices = [torch.device("cpu")]
    if torch.cuda.is_available():  # ROCm's devices go by the name of cuda as well
        devices.append(torch.device("cuda"))
    return [name for name in OPERATIONS[LENS] if not all(why_not(name, device) for device in devices)]


def choose_backend(device: torch.device, backend: str = "auto", operation: str = LENS) -> str:
    """Give the name of the backend to use: the one asked for, or the fastest for the device.

    Where the C core is not built torch serves on the CPU, and a RuntimeWarning says so once. Raises
    ValueError for a name that is no backend, or one that cannot serve here.
    """
    table = OPERATIONS[operation]
    if backend != "auto":
        if backend not in table:
            near = get_close_matches(backend, table, n=1, cutoff=0)[0]
            raise ValueError(
                f'backend: found "{backend}", expected auto, {", ".join(table)}; did you mean "{near}"?'
            )
        if reason := why_not(backend, device):
            raise ValueError(f'backend: found "{backend}", but {reason}')
        return backend
    fastest = "triton" if device.type == "cuda" else "c"
    if fastest in table and not why_not(fastest, device):
        return fastest
    if fastest == "c" and fastest in table and device.type == "cpu":
        _warn_once(f"{why_not('c', device)}. Until then the slower torch backend serves.")
    return "torch"


def get_backend(name: str, operation: str = LENS) -> Callable[..., Any]:
    """Import a backend's function."""
    module, function = OPERATIONS[operation][name]
    found: Callable[..., Any] = getattr(import_module(module), function)
    return found


def why_not(backend: str, device: torch.device) -> str:
    """Say why a backend cannot serve tensors on a device; "" where it can."""
    if backend == "c":
        return why_no_c_core() or (
            "" if device.type == "cpu" else f"it takes tensors on cpu, not on {device}"
        )
    if backend != "triton":
        return ""
    if not _has_triton():
        return NO_TRITON
    if device.type == "cuda" or interpreting():
        return ""
    return (
        f"it takes tensors on a CUDA or ROCm device, not on {device} (TRITON_INTERPRET=1 in the environment "
        "from the start interprets its kernels on the CPU)"
    )


@cache
def why_no_c_core() -> str:
    """Say why the C core cannot serve; "" where it can."""
    try:
        import_module("kernels._lens")
    except ImportError as error:
        return NO_C_CORE.format(reason=error)
    return ""


def cpu_paths() -> list[str]:
    """Name the C core's paths that this CPU supports, the one in use first; none where it is not built."""
    if why_no_c_core():
        return []
    found: list[str] = import_module("kernels.c_library").cpu_paths()
    return found


def interpreting() -> bool:
    """Tell whether Triton's kernels run in its interpreter, on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def _has_triton() -> bool:
    if find_spec("triton") is None:
        return False
    major, minor = import_module("triton").__version__.split(".")[:2]
    return (int(major), int(minor)) >= OLDEST_TRITON


@cache
def _warn_once(message: str) -> None:
    warn(message, RuntimeWarning, stacklevel=4)
