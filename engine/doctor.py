"""What this machine can use: versions, compiler, CPU paths, GPU, and a self-check of every probe backend."""

from __future__ import annotations

import math
import platform
import shutil
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import torch
from attrs import frozen
from rich.markup import escape
from rich.table import Table

from engine.devices import unused_gpu
from kernels import LensStatistics, Unembedding, choose_backend, cpu_paths, lens_statistics, why_not
from kernels.backends import LENS, OPERATIONS

VERSIONS = (
    "ablation-engine", "torch", "triton", "transformers", "peft", "accelerate", "bitsandbytes", "datasets",
    "zarr", "xarray", "numpy", "ray",
)  # fmt: skip
ORDERS = ("watch_rank", "top_ids")
NUMBERS = (
    "logsumexp", "entropy", "max_prob", "top_logprobs", "watch_logprob", "watch_mass", "watch_entropy",
    "kl_final", "js_final",
)  # fmt: skip
LIMIT = 1e-4  # nats; what each backend promises at the sizes of the check


@frozen
class Check:
    """One backend's self-check: the largest error of any statistic in nats, or why it cannot run."""

    backend: str
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


def _facts() -> Iterator[tuple[str, str]]:
    yield "system", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    features = torch.backends.cpu.get_cpu_capability()
    yield "CPU", f"{_cpu_name()}, {torch.get_num_threads()} threads, torch uses {features}"
    yield "C compiler", _compiler()
    yield "CPU paths", ", ".join(cpu_paths()) or "none: the C core is not built"
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield f"GPU {index}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if not torch.cuda.is_available():
        yield "GPU", f"[red]{escape(unused)}[/]" if (unused := unused_gpu()) else "none that torch can use"
    for name in VERSIONS:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            yield name, "not installed"


def _cpu_name() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
            return next(names, platform.processor())
    except OSError:
        return platform.processor() or "unknown"


def _compiler() -> str:
    found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if found is None:
        return "none"
    lines = subprocess.run(
        [found, "--version"], capture_output=True, text=True, check=False
    ).stdout.splitlines()
    return lines[0] if lines else found


def self_check() -> list[Check]:
    """Run every backend on a small problem, in float32 and bfloat16, and hold it against the reference."""
    return [_check(name, dtype) for name in OPERATIONS[LENS] for dtype in (torch.float32, torch.bfloat16)]


def _check(backend: str, dtype: torch.dtype) -> Check:
    gpu = backend == "triton" and torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    reason = why_not(backend, device)
    if reason:
        return Check(backend, dtype, None, reason)
    try:
        ours = _statistics(backend, dtype, device)
    except Exception as error:  # whatever a driver or a compiler may say, the other checks go on
        return Check(backend, dtype, math.inf, f"{type(error).__name__}: {error}")
    truth = _statistics("reference", dtype, torch.device("cpu"))
    if not all(torch.equal(getattr(ours, name).cpu(), getattr(truth, name)) for name in ORDERS):
        return Check(backend, dtype, math.inf, "ranks or top tokens differ")
    pairs = [(getattr(ours, name).cpu().double(), getattr(truth, name).double()) for name in NUMBERS]
    return Check(backend, dtype, max(float((left - right).abs().max()) for left, right in pairs), "")


def _statistics(backend: str, dtype: torch.dtype, device: torch.device) -> LensStatistics:
    """Whole numbers make exact products with many ties, so ranks must agree to the last one."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randint(-2, 3, (48, 96), generator=generator)
    weight = torch.randint(-2, 3, (4010, 96), generator=generator)
    head = Unembedding(weight.to(device, dtype), scale=0.125, vocab_size=4003)
    final = torch.arange(48) % 12 + 36
    return lens_statistics(
        hidden.to(device, dtype),
        head,
        watch_ids=[0, 7, 7, 4002],
        final_rows=final.to(device),
        backend=backend,
    )


def backends_table(checks: list[Check]) -> Table:
    """Give the backends, which of them `auto` takes, and how the checks ended."""
    table = Table(title=f"probe backends, held against the float64 reference (limit {LIMIT:g} nat)")
    for column in ("backend", "numbers", "largest error", "result"):
        table.add_column(column)
    for check in checks:
        numbers = str(check.dtype).removeprefix("torch.")
        if check.error is None:
            table.add_row(check.backend, numbers, "", f"not here: {check.reason}")
        else:
            result = "[green]passed[/]" if check.passed else f"[red]FAILED[/] {check.reason}"
            table.add_row(check.backend, numbers, f"{check.error:.1e}", result)
    return table


def choice() -> str:
    """Say what `probe.backend = "auto"` takes."""
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    return "; ".join(f"auto takes {choose_backend(torch.device(name))} on {name}" for name in devices)
