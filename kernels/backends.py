"""The backends of the probe core, imported when first used, and the choice among them."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module

import torch

from kernels.result import LensStatistics

Backend = Callable[..., LensStatistics]

# Name → (module, function).
BACKENDS = {
    "reference": ("kernels.reference", "reference"),
    "torch": ("kernels.torch_tiled", "torch_tiled"),
}


def available_backends() -> list[str]:
    """Name the backends that can run on this machine."""
    return list(BACKENDS)


def choose_backend(device: torch.device, backend: str = "auto") -> str:
    """Give the name of the backend to use: the one asked for, or the fastest for the device.

    Raises ValueError for a name that is no backend.
    """
    if backend == "auto":
        return "torch"
    if backend not in BACKENDS:
        near = get_close_matches(backend, BACKENDS, n=1, cutoff=0)[0]
        raise ValueError(
            f'backend: found "{backend}", expected auto, {", ".join(BACKENDS)}; did you mean "{near}"?'
        )
    return backend


def get_backend(name: str) -> Backend:
    """Import a backend's function."""
    module, function = BACKENDS[name]
    found: Backend = getattr(import_module(module), function)
    return found
