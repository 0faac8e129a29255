"""`engine doctor --measure`: products as a training makes them, and reads of weights as a generation does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from engine.full_memory import limit

WIDTHS = {"cpu": (1024, 4096), "cuda": (4096, 14336)}  # of the weight: D, and that of an MLP
ROWS = (64, 256, 1024, 4096)  # tokens of a batch
LONG, SECONDS = 0.1, 1.0  # of a product that is long enough to time, and of all that are timed
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def measured_rates() -> dict[str, dict[str, float]]:
    """Measure each device here, four seconds each, and some more where it is slow: 10¹² operations and bytes
    per second, by the names of `planning.devices.Device`.
    """
    kinds = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    return {kind: _measured(torch.device(kind)) for kind in kinds}


@torch.inference_mode()
def _measured(device: torch.device) -> dict[str, float]:
    rates = {name: _products(device, dtype) for name, dtype in TYPES.items()}
    total = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else limit().size
    return rates | {"bandwidth": _reads(device), "memory": total / 1e9}


def _products(device: torch.device, dtype: torch.dtype) -> float:
    """Give 10¹² operations per second of a batch's product with a weight, of as many rows as take a while."""
    width, wide = WIDTHS[device.type]
    weight = torch.randn(wide, width).to(device, dtype)
    for count in ROWS:
        rows = torch.randn(count, width).to(device, dtype)
        seconds = _once(partial(torch.matmul, rows, weight.mT), device, 2)
        if seconds >= LONG:
            break
    return 2 * count * width * wide / _mean(partial(torch.matmul, rows, weight.mT), device) / 1e12


def _reads(device: torch.device) -> float:
    """Give 10¹² bytes per second of a weight that one row of activations is multiplied by."""
    width, wide = WIDTHS[device.type]
    weight, row = torch.randn(8 * wide, width, device=device), torch.randn(width, device=device)
    return weight.nbytes / _mean(partial(torch.mv, weight, row), device) / 1e12


def _mean(work: Callable[[], Any], device: torch.device) -> float:
    seconds = _once(work, device, 2)
    return _once(work, device, max(1, round(SECONDS / seconds)))


def _once(work: Callable[[], Any], device: torch.device, times: int) -> float:
    """Give the mean seconds of some calls."""
    _wait(device)
    started = time.perf_counter()
    for _ in range(times):
        work()
    _wait(device)
    return (time.perf_counter() - started) / times


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def told_rates(rates: dict[str, dict[str, float]]) -> Iterator[str]:
    """Say the rates of each device in a line."""
    for kind, found in rates.items():
        products = ", ".join(f"{name} {1e3 * found[name]:,.0f} GFLOP/s" for name in TYPES)
        yield f"{kind}: products in {products}; weights are read at {1e3 * found['bandwidth']:,.0f} GB/s"
