"""How much memory this process may take, and the errors that tell of full memory."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from attrs import frozen

CGROUPS, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_UNLIMITED = 2**60  # version 1 writes a number near 2^63 for "no limit"
_SAID = ("can't allocate memory", "not enough memory: you tried to allocate", "out of memory")  # by torch


@frozen
class Limit:
    """Bytes, and what sets them."""

    size: float
    source: str


@frozen
class Sharing:
    """How many processes of one execution share what this one uses."""

    processes: int = 1  # this machine's memory
    on_gpu: int = 1  # a GPU's


SOLE = Sharing()


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
    for folder in groups():
        for name in ("memory.events", "memory.oom_control"):
            with suppress(OSError, ValueError):
                counts = dict(line.split() for line in (folder / name).read_text().splitlines())
                if "oom_kill" in counts:
                    return int(counts["oom_kill"])
    return None


def _cgroup_limits() -> Iterator[tuple[Path, int]]:
    for folder in groups():
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(OSError, ValueError):  # "max" is no number
                size = int((folder / name).read_text())
                if size < _UNLIMITED:
                    yield folder / name, size


def groups(controller: str = "memory") -> Iterator[Path]:
    """Yield the folders of this process's cgroups of a kind, versions 1 and 2, each before those above it."""
    try:
        lines = MEMBERSHIP.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        tops = [CGROUPS / controller] if controllers else [CGROUPS, CGROUPS / "unified"]
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
