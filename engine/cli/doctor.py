"""What this machine can use: versions, compiler, CPU paths, GPU, and a self-check of every probe backend."""

from __future__ import annotations

import itertools
import math
import platform
import shutil
import subprocess
from collections.abc import Iterator
from importlib import metadata

import torch
from attrs import frozen
from rich.table import Table
from rich.text import Text

from engine.cpu_share import told_threads
from engine.models.devices import unused_gpu
from engine.terminal import joined, styled
from kernels import choose_backend, cpu_paths, why_not
from kernels.backends import LENS, NO_TRITON, OPERATIONS
from kernels.cpu_facts import cpu_name
from kernels.cpu_product import onednn_is_faster
from kernels.lens_checks import LIMIT, largest_error
from specs.registry import plugins

VERSIONS = (
    "ablation-engine", "torch", "triton", "transformers", "peft", "accelerate", "bitsandbytes", "datasets",
    "zarr", "xarray", "numpy", "ray",
)  # fmt: skip
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@frozen
class Check:
    """One backend's self-check: the largest error of any statistic in nats, or why it cannot run."""

    backend: str
    device: torch.device
    dtype: torch.dtype
    error: float | None
    reason: str

    @property
    def passed(self) -> bool:
        """Whether the backend keeps its promise; one that cannot run here breaks none."""
        return self.error is None or self.error <= LIMIT


def machine() -> Table:
    """Give the machine and the versions of what runs on it."""
    table = Table(title="machine", show_header=False)
    for name, value in _facts():
        table.add_row(name, value)
    return table


def _facts() -> Iterator[tuple[str, str | Text]]:
    yield "system", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    features = torch.backends.cpu.get_cpu_capability()
    yield "CPU", f"{cpu_name() or 'unknown'}, torch uses {features}"
    yield "threads", told_threads(torch.get_num_threads())
    yield "CPU products", "oneDNN" if onednn_is_faster() else "torch's own"
    yield "C compiler", _compiler()
    yield "CPU paths", ", ".join(cpu_paths()) or "none: the C core is not built"
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield f"GPU {index}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if not torch.cuda.is_available():
        yield "GPU", styled(unused, "red") if (unused := unused_gpu()) else "none that torch can use"
    yield "plug-ins", ", ".join(plugins()) or "none"
    for name in VERSIONS:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            yield name, "not installed"


def _compiler() -> str:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return "none"
    lines = subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, check=False
    ).stdout.splitlines()
    return lines[0] if lines else compiler


def self_check() -> list[Check]:
    """Hold every backend, on each device here and with operands of each type, against the reference."""
    devices = [torch.device("cpu")] + [torch.device("cuda")] * torch.cuda.is_available()
    checks = []
    for backend in OPERATIONS[LENS]:
        serving = [device for device in devices if not why_not(backend, device)]
        pairs = itertools.product(serving or devices[-1:], DTYPES)
        checks += [_check(backend, device, dtype) for device, dtype in pairs]
    return checks


def _check(backend: str, device: torch.device, dtype: torch.dtype) -> Check:
    if reason := why_not(backend, device):
        fault = backend == "triton" and device.type == "cuda" and reason != NO_TRITON
        return Check(backend, device, dtype, math.inf if fault else None, reason)
    try:
        largest, what = largest_error(backend, device, dtype)
    except Exception as error:  # whatever a driver or a compiler may say, the other checks go on
        return Check(backend, device, dtype, math.inf, f"{type(error).__name__}: {error}")
    return Check(backend, device, dtype, largest, f"{what} is off" if largest > LIMIT else "")


def backends_table(checks: list[Check]) -> Table:
    """Give the backends, which of them `auto` takes, and how the checks ended."""
    table = Table(title=f"probe backends, compared with the float64 reference (limit {LIMIT:g} nat)")
    for column in ("backend", "device", "numbers", "largest error", "result"):
        table.add_column(column)
    for check in checks:
        names = check.backend, check.device.type, str(check.dtype).removeprefix("torch.")
        if check.error is None:
            table.add_row(*names, "", f"not here: {check.reason}")
        else:
            failed = joined([styled("FAILED", "red"), f" {check.reason}"])
            result = styled("passed", "green") if check.passed else failed
            table.add_row(*names, f"{check.error:.1e}", result)
    return table


def choice() -> str:
    """Say what `probe.backend = "auto"` takes."""
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    return "; ".join(f"auto takes {choose_backend(torch.device(name))} on {name}" for name in devices)
