"""The backends of the probe core, imported when first used, and the choice among them."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from warnings import warn

import torch

from kernels.result import LensStatistics

Backend = Callable[..., LensStatistics]

# Name → (module, function).
BACKENDS = {
    "reference": ("kernels.reference", "reference"),
    "torch": ("kernels.torch_tiled", "torch_tiled"),
    "c": ("kernels.c_backend", "c_backend"),
}
NO_C_CORE = (
    "the C core of the probe is not built ({reason}); install a C compiler, then run "
    "`pip install --force-reinstall --no-deps .` in the project"
)


@cache
def why_no_c_core() -> str | None:
    """Say why the C core cannot serve, or None where it can."""
    try:
        import_module("kernels._lens")
    except ImportError as error:
        return NO_C_CORE.format(reason=error)
    return None


@cache
def _warn_once(message: str) -> None:
    warn(message, RuntimeWarning, stacklevel=4)


def available_backends() -> list[str]:
    """Name the backends that can run on this machine."""
    return [name for name in BACKENDS if name != "c" or why_no_c_core() is None]


def cpu_paths() -> list[str]:
    """Name the C core's paths that this CPU supports, the one in use first; none where it is not built."""
    if why_no_c_core():
        return []
    found: list[str] = import_module("kernels.c_library").cpu_paths()
    return found


def choose_backend(device: torch.device, backend: str = "auto") -> str:
    """Give the name of the backend to use: the one asked for, or the fastest for the device.

    On the CPU that is the C core; where it is not built, torch serves and a RuntimeWarning says so once.
    Raises ValueError for a name that is no backend, or one that cannot serve here.
    """
    missing = why_no_c_core() if device.type == "cpu" or backend == "c" else None
    if backend == "auto":
        if missing:
            _warn_once(f"{missing}. Until then the slower torch backend serves.")
        return "c" if device.type == "cpu" and not missing else "torch"
    if backend not in BACKENDS:
        near = get_close_matches(backend, BACKENDS, n=1, cutoff=0)[0]
        raise ValueError(
            f'backend: found "{backend}", expected auto, {", ".join(BACKENDS)}; did you mean "{near}"?'
        )
    if backend == "c" and missing:
        raise ValueError(f'backend: found "c", but {missing}')
    if backend == "c" and device.type != "cpu":
        raise ValueError(f'backend: found "c" for tensors on {device}, expected them on cpu')
    return backend


def get_backend(name: str) -> Backend:
    """Import a backend's function."""
    module, function = BACKENDS[name]
    found: Backend = getattr(import_module(module), function)
    return found
