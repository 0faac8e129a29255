"""Times and peak memory of a call on a GPU, or on the CPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median, quantiles

import torch
from attrs import frozen

ENOUGH = 400.0  # milliseconds of timed runs
FEWEST, MOST = 3, 60  # timed runs


@frozen
class Time:
    """Milliseconds: the median, and the quantiles of 20 and 80 per cent."""

    median: float
    low: float
    high: float
    runs: int


def milliseconds(run: Callable[[], object], device: torch.device) -> Time:
    """Time a call after two warm runs. Its inputs are to be larger than the caches: they are not emptied."""
    run()
    estimate = _once(run, device)
    count = int(min(MOST, max(FEWEST, ENOUGH / max(estimate, 1e-3))))
    times = [_once(run, device) for _ in range(count)]
    fifths = quantiles(times, n=5, method="inclusive")
    return Time(median(times), fifths[0], fifths[-1], count)


def _once(run: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        started = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - started)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def peak_bytes(run: Callable[[], object], device: torch.device) -> int | None:
    """Give the GPU memory that a call takes beyond what was there before it, at the highest."""
    if device.type != "cuda":
        run()
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
