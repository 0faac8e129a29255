"""How much memory this process may take, and what to say where that was too little."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from engine.errors import EngineError
from engine.planning.memory_fit import advice
from engine.planning.plan import Plan, PlannedCell
from engine.quantities import si

CGROUPS, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_UNLIMITED = 2**60  # version 1 writes a number near 2^63 for "no limit"
_SAID = ("can't allocate memory", "not enough memory: you tried to allocate", "out of memory")  # by torch


@frozen
class Limit:
    """Bytes, and what sets them."""

    size: float
    source: str


def limit() -> Limit:
    """Give the least limit of this process's memory: its cgroup's, its address space's, or the machine's."""
    limits = [Limit(size, f"{file}") for file, size in _cgroup_limits()]
    space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if space != resource.RLIM_INFINITY:
        limits.append(Limit(space, "ulimit -v"))
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([*limits, Limit(machine, "of this machine")], key=lambda each: each.size)


def oom_kills() -> int | None:
    """Count the processes of this one's cgroup that the kernel has killed for memory; None where unknown."""
    for folder in _groups():
        for name in ("memory.events", "memory.oom_control"):
            with suppress(OSError, ValueError):
                counts = dict(line.split() for line in (folder / name).read_text().splitlines())
                if "oom_kill" in counts:
                    return int(counts["oom_kill"])
    return None


def _cgroup_limits() -> Iterator[tuple[Path, int]]:
    for folder in _groups():
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(OSError, ValueError):  # "max" is no number
                size = int((folder / name).read_text())
                if size < _UNLIMITED:
                    yield folder / name, size


def _groups() -> Iterator[Path]:
    """Yield the folders of this process's memory cgroups, of versions 1 and 2, each before those above it."""
    try:
        lines = MEMBERSHIP.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        tops = [CGROUPS / "memory"] if controllers else [CGROUPS, CGROUPS / "unified"]
        for top in tops:
            group = top / path.lstrip("/")
            folder = group if group.is_dir() else top  # a container may see its own group as the highest
            yield folder
            yield from (above for above in folder.parents if above.is_relative_to(top))


def memory_error(error: BaseException | None) -> str | None:
    """Tell whether an error, or what it comes from, is that of full memory: of the "cpu" or of a "gpu"."""
    while error is not None:
        if type(error).__name__ == "OutOfMemoryError":  # torch's, of any accelerator
            return "gpu"
        full = isinstance(error, OSError) and error.errno == errno.ENOMEM
        in_words = isinstance(error, RuntimeError) and any(words in str(error) for words in _SAID)
        if in_words and "CUDA" in str(error):
            return "gpu"
        if isinstance(error, MemoryError) or full or in_words:
            return "cpu"
        error = error.__cause__
    return None


def out_of_memory(plan: Plan, cell: PlannedCell, stage: str, found: Limit | None, processes: int = 1) -> str:
    """Say that a stage ran out of memory, the limit, what the plan has estimated, and what to try."""
    need = needed(plan, cell, stage)
    allowed = f"limit {si(found.size, 'B')} ({found.source})" if found else "limit unknown here"
    wanted = f"estimate {si(need, 'B')} for {stage}" if need else f"no estimate for {stage}"
    wanted += f" in each of {processes} processes" * (processes > 1)
    return f"out of memory: {allowed}, {wanted}; try {advice(plan, cell, stage)}"


def needed(plan: Plan, cell: PlannedCell, stage: str) -> float | None:
    """Give a stage's peak memory by the plan's estimate; None where there is none."""
    from engine.planning.estimate import stage_memory

    with suppress(EngineError, OSError, MemoryError):
        return stage_memory(plan, cell, stage)
    return None


def failure(plan: Plan, cell: PlannedCell, stage: str, error: Exception) -> str:
    """Give a failure's message: one sentence with limit and estimate where memory was full."""
    message = f"{type(error).__name__}: {error}"
    where = memory_error(error)
    if where is None:
        return message
    memory_limit = _gpu_limit() if where == "gpu" else limit()
    with suppress(MemoryError):
        return f"{out_of_memory(plan, cell, stage, memory_limit)} ({message.partition(chr(10))[0][:200]})"
    return message


def _gpu_limit() -> Limit | None:
    import torch

    if not torch.cuda.is_available():
        return None
    return Limit(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory, "of the GPU")
