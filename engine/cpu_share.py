"""How many CPUs this process may use, and how its threads wait for each other.

The number of threads is part of how results round. So it follows from what the process is allowed, which
stays the same from call to call, and not from what others do. How threads wait changes no result. By
default those of OpenMP spin: the fastest way alone, but many times as slow where others need the CPU on which
a thread waits. So they sleep where others are busy.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import MutableMapping
from contextlib import suppress

from attrs import frozen

from engine.full_memory import groups

THREADS, WAITING = "OMP_NUM_THREADS", "OMP_WAIT_POLICY"
BUSY = 0.5  # of the CPUs that are allowed, by the processes that run or wait for one


@frozen
class CpuShare:
    """CPUs that a process may use, and what says so."""

    count: int
    source: str


def cpu_share() -> CpuShare:
    """Give the least of what affinity and cgroups allow."""
    affine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shares = [CpuShare(affine, "affinity")]
    for folder in groups("cpu"):
        with suppress(OSError, ValueError):  # "max" is no number
            quota, period = map(int, (folder / "cpu.max").read_text().split())
            shares.append(CpuShare(max(1, math.ceil(quota / period)), f"{folder / 'cpu.max'}"))
        with suppress(OSError, ValueError):
            quota = int((folder / "cpu.cfs_quota_us").read_text())
            period = int((folder / "cpu.cfs_period_us").read_text())
            if quota > 0:
                shares.append(CpuShare(max(1, math.ceil(quota / period)), f"{folder / 'cpu.cfs_quota_us'}"))
    return min(shares, key=lambda share: share.count)


def set_threads(environment: MutableMapping[str, str] = os.environ) -> None:
    """Choose the threads of OpenMP and how they wait, where a person has not, before torch reads it."""
    if "torch" in sys.modules:
        return
    share = cpu_share()
    if share.source != "affinity":  # which OpenMP sees by itself
        environment.setdefault(THREADS, str(share.count))
    if _load() > BUSY * share.count:
        environment.setdefault(WAITING, "passive")


def told_threads(threads: int) -> str:
    """Say how many threads there are, of how many CPUs, and how they wait."""
    share = cpu_share()
    waiting = os.environ.get(WAITING, "").lower() or "as OpenMP does by default"
    return f"{threads} of {share.count} CPUs ({share.source}); load {_load():.1f}; waiting: {waiting}"


def _load() -> float:
    try:
        return os.getloadavg()[0]
    except OSError:
        return 0.0
