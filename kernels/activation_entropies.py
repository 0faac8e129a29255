"""Entropy of a hidden vector's energy over its coordinates."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.backends import choose_backend, get_backend


def activation_entropy(hidden: Tensor, *, backend: str = "auto") -> Tensor:
    """Give the entropy, in nats, of how a vector's energy is spread: [...] float32 for hidden [..., D].

    H = −Σᵢ pᵢ log pᵢ with pᵢ = hᵢ² / Σ h²: 0 for one active coordinate, log D for equal magnitudes, and the
    same for any multiple of the vector (Shannon's entropy of the energy distribution; exp H is the effective
    number of coordinates). The float64 reference gives float64.

    A zero vector has no such distribution, so it gets NaN, as does one with a NaN or infinite entry. Error
    against the reference: at most 1e-5 nats.

    Args:
        hidden: any floating type.
        backend: "auto", "reference", "torch" or "triton".

    Raises:
        TypeError: the message names the argument, what was found and what was expected.
        ValueError: the message names the argument, what was found and what was expected.
    """
    if hidden.ndim == 0 or hidden.shape[-1] == 0:
        raise ValueError(f"hidden: found shape {tuple(hidden.shape)}, expected [..., D]")
    if not hidden.is_floating_point():
        raise TypeError(f"hidden: found {hidden.dtype}, expected a floating type")
    compute = get_backend(choose_backend(hidden.device, backend, "activation_entropy"), "activation_entropy")
    rows = compute(hidden.reshape(-1, hidden.shape[-1]))
    return torch.as_tensor(rows).reshape(hidden.shape[:-1])


def reference(rows: Tensor) -> Tensor:
    """Compute in float64: rows [R, D] → [R]."""
    return _entropy(rows.double(), torch.float64)


def torch_rows(rows: Tensor) -> Tensor:
    """Compute in float32, with sums in float64: rows [R, D] → [R]."""
    return _entropy(rows.float() if rows.dtype != torch.float64 else rows, torch.float64).float()


def _entropy(rows: Tensor, sums: torch.dtype) -> Tensor:
    largest = rows.abs().amax(dim=1, keepdim=True)
    relative = rows / largest  # no square overflows; 0 / 0 and ∞ / ∞ are NaN, as they should be
    energy = relative.square()
    total = energy.sum(dim=1, dtype=sums)
    return total.log() - torch.xlogy(energy, energy).sum(dim=1, dtype=sums) / total
