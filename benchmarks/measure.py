"""Interleaved timing, peak memory, and what the CPU can do at most."""

import ctypes
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

Action = Callable[[], object]
CUDA = torch.cuda.is_available()


def interleaved(actions: Mapping[str, Action], rounds: int) -> dict[str, dict[str, float]]:
    """Time actions in turn, after one untimed round: seconds of each, and its ratio to the first one.

    A ratio is the median over rounds of the two times of one round, so that what else the machine does weighs
    on both. `cpu` counts the processor seconds of all threads.
    """
    wall: dict[str, list[float]] = {name: [] for name in actions}
    processor: dict[str, list[float]] = {name: [] for name in actions}
    for action in actions.values():
        action()
    for _ in range(rounds):
        for name, action in actions.items():
            started, cpu = time.perf_counter(), time.process_time()
            action()
            if CUDA:
                torch.cuda.synchronize()
            wall[name].append(time.perf_counter() - started)
            processor[name].append(time.process_time() - cpu)
    first = next(iter(actions))
    found = {}
    for name, times in wall.items():
        ratios = sorted(mine / base for mine, base in zip(times, wall[first], strict=True))
        found[name] = {
            "seconds": statistics.median(times),
            "fastest": min(times),
            "slowest": max(times),
            "cpu": statistics.median(processor[name]),
            "ratio": statistics.median(ratios),
            "ratio_low": ratios[len(ratios) // 4],
            "ratio_high": ratios[-1 - len(ratios) // 4],
            "cpu_ratio": statistics.median(
                mine / base for mine, base in zip(processor[name], processor[first], strict=True)
            ),
        }
    return found


def peak_extra_mib(action: Action) -> float | None:
    """Give the memory that an action takes beyond what was in use before it; None where it is not Linux."""
    action()  # brings in what the system had put aside of its input
    try:
        ctypes.CDLL(None).malloc_trim(0)  # freed memory that is still held would hide what is taken
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
        before = _status("VmRSS")
        action()
        return (_status("VmHWM") - before) / 1024
    except (OSError, AttributeError):
        return None


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def compiled_peaks() -> ctypes.CDLL | None:
    """Compile peaks.c; None where that cannot be, or the CPU has no AVX-512."""
    source = Path(__file__).with_name("peaks.c")
    library = Path(tempfile.mkdtemp()) / "peaks.so"
    command = [os.environ.get("CC", "cc"), "-O2", "-shared", "-fPIC", str(source), "-o", str(library)]
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or subprocess.run(command, check=False).returncode:
        return None
    found = ctypes.CDLL(str(library))
    for name in ("peak_float32", "peak_bfloat16"):
        getattr(found, name).restype = ctypes.c_double
        getattr(found, name).argtypes = [ctypes.c_int64]
    found.read_once.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return found


def on_all_threads(function: Callable[[int, int], float], threads: int) -> float:
    """Call function(thread, threads) on every thread at once; give the sum of what they return."""
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(lambda thread: function(thread, threads), range(threads)))


def multiply_adds(library: ctypes.CDLL, dtype: str, operations: int) -> Action:
    """Give an action that does so many floating-point operations from registers, on all threads."""
    function = getattr(library, f"peak_{dtype}")
    per_round = function(1)

    def part(_: int, threads: int) -> float:
        return float(function(int(operations / per_round / threads)))

    return lambda: on_all_threads(part, torch.get_num_threads())


def read_through(library: ctypes.CDLL, tensor: torch.Tensor) -> Action:
    """Give an action that reads a tensor once from memory, its parts on all of torch's threads."""

    def part(thread: int, threads: int) -> float:
        size = tensor.nbytes // threads // 64 * 64
        library.read_once(tensor.data_ptr() + thread * size, size)
        return 0.0

    return lambda: on_all_threads(part, torch.get_num_threads())
