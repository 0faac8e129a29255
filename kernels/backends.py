"""The backends of every operation, imported when first used, and the choice among them."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from warnings import warn

import torch

from specs.common.spelling import least_far

LENS = "lens_statistics"
LENS_BY_ROW = "lens_statistics with ids by row"
# Operation → backend → (module, function), the fastest backends last.
OPERATIONS = {
    LENS: {
        "reference": ("kernels.lens_reference", "reference"),
        "torch": ("kernels.lens_torch", "torch_tiled"),
        "c": ("kernels.lens_c", "c_backend"),
        "triton": ("kernels.gpu.lens", "triton_backend"),
    },
    "lens_divergence": {
        "reference": ("kernels.lens_divergences", "reference"),
        "torch": ("kernels.lens_divergences_torch", "torch_tiled"),
        "c": ("kernels.lens_divergences_c", "c_backend"),
        "triton": ("kernels.gpu.lens_gradients", "triton_backend"),
    },
    "attention_entropy": {
        "reference": ("kernels.attention_entropies_torch", "reference"),
        "torch": ("kernels.attention_entropies_torch", "torch_tiled"),
        "triton": ("kernels.gpu.attention_entropies", "triton_backend"),
    },
    "attention_row_entropy": {
        "reference": ("kernels.attention_row_entropies", "reference"),
        "torch": ("kernels.attention_row_entropies", "torch_tiled"),
    },
    "activation_entropy": {
        "reference": ("kernels.activation_entropies", "reference"),
        "torch": ("kernels.activation_entropies", "torch_rows"),
        "triton": ("kernels.gpu.activation_entropies", "triton_backend"),
    },
}
OPERATIONS[LENS_BY_ROW] = OPERATIONS[LENS]
NO_C_CORE = (
    "the C core of the probe is not built ({reason}); install a C compiler, then run "
    "`pip install --force-reinstall --no-deps .` in the project"
)
OLDEST_TRITON = (3, 5)  # loops can do without hoisting from there on
NO_TRITON = (
    f"the package triton {OLDEST_TRITON[0]}.{OLDEST_TRITON[1]} or later is not installed; "
    "pip install 'ablation-engine[triton]' brings it"
)
BROKEN_TRITON = (
    "Triton cannot compile or run its kernels on {device} ({error}); it needs a C compiler, Python's headers "
    "(python3-dev) and a driver that fits, and `engine doctor` tries it again"
)


def available_backends() -> list[str]:
    """Name the backends of the lens statistics that can run on this machine, on one device or another."""
    devices = [torch.device("cpu")]
    if torch.cuda.is_available():  # ROCm's devices go by the name of cuda as well
        devices.append(torch.device("cuda"))
    return [name for name in OPERATIONS[LENS] if not all(why_not(name, device) for device in devices)]


def choose_backend(device: torch.device, backend: str = "auto", operation: str = LENS) -> str:
    """Give the name of the backend to use: the one asked for, or the fastest for the device.

    Where the C core is not built, or Triton cannot compile its kernels on a GPU, torch serves, and a
    RuntimeWarning says so once. On devices beside CPU and GPU torch serves.

    Raises:
        ValueError: for a name that is no backend, or one that cannot serve here.
    """
    table = OPERATIONS[operation]
    if backend != "auto":
        if backend not in table:
            near = least_far(backend, table)
            raise ValueError(
                f'backend: found "{backend}", expected auto, {", ".join(table)}; did you mean "{near}"?'
            )
        if reason := why_not(backend, device, operation):
            raise ValueError(f'backend: found "{backend}", but {reason}')
        return backend
    fastest = {"cpu": "c", "cuda": "triton"}.get(device.type)
    if fastest not in table:
        return "torch"
    if reason := why_not(fastest, device, operation):
        _warn_once(f"{reason}. Until then the slower torch backend serves.")
        return "torch"
    return fastest


def get_backend(name: str, operation: str = LENS) -> Callable[..., Any]:
    """Import a backend's function."""
    module, function = OPERATIONS[operation][name]
    function_found: Callable[..., Any] = getattr(import_module(module), function)
    return function_found


def why_not(backend: str, device: torch.device, operation: str = LENS) -> str:
    """Say why a backend cannot serve an operation on tensors of a device; "" where it can."""
    if backend == "c":
        return _why_no_c_function(operation) or (
            "" if device.type == "cpu" else f"it takes tensors on cpu, not on {device}"
        )
    if backend != "triton":
        return ""
    if not _has_triton():
        return NO_TRITON
    if interpreting():
        return ""
    if device.type == "cuda":
        return why_triton_fails(device)
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


def _why_no_c_function(operation: str) -> str:
    """Say why the C core cannot serve an operation: it may also be older than the code around it."""
    if reason := why_no_c_core():
        return reason
    core = import_module("kernels._lens")
    if operation == "lens_divergence" and not hasattr(core.lib, "lens_add_gradient"):
        return NO_C_CORE.format(reason="the one that is there is older and has no lens_add_gradient")
    if operation == LENS_BY_ROW and "watch_stride" not in dict(core.ffi.typeof("lens_block").fields):
        return NO_C_CORE.format(reason="the one that is there is older and watches no tokens by row")
    return ""


@cache
def why_triton_fails(device: torch.device) -> str:
    """Say why Triton cannot compile or run the kernels on a CUDA or ROCm device; "" where it can.

    Tried once, on a problem of the largest tiles: seconds where Triton's cache on disk is empty.
    """
    try:
        checks = import_module("kernels.lens_checks")
        for dtype in (torch.bfloat16, torch.float32):
            error, what = checks.largest_error("triton", device, dtype)
            if error > checks.LIMIT:
                return f"on {device} Triton's kernels are wrong: {what} is off by {error:.1e}"
    except Exception as error:  # whatever a driver, a compiler or its absence may say
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        return BROKEN_TRITON.format(device=device, error=f"{type(error).__name__}: {reason}")
    return ""


def cpu_paths() -> list[str]:
    """Name the C core's paths that this CPU supports, the one in use first; none where it is not built."""
    if why_no_c_core():
        return []
    paths: list[str] = import_module("kernels.c_library").cpu_paths()
    return paths


def interpreting() -> bool:
    """Tell whether Triton's kernels run in its interpreter, on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def _has_triton() -> bool:
    if find_spec("triton") is None:
        return False
    try:
        major, minor = import_module("triton").__version__.split(".")[:2]
    except ImportError:
        return True  # but broken; the trial on a device says how
    return (int(major), int(minor)) >= OLDEST_TRITON


@cache
def _warn_once(message: str) -> None:
    warn(message, RuntimeWarning, stacklevel=4)
