"""What machine this is, and its ceilings: memory copied and the largest product per second."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata

import torch

from benchmarks.device.clock import milliseconds
from benchmarks.device.record import NotHereError, Recorder
from kernels import available_backends, choose_backend, cpu_paths

PACKAGES = (
    "torch", "triton", "transformers", "peft", "accelerate", "numpy", "safetensors", "datasets", "zarr",
    "xarray", "bitsandbytes", "liger-kernel", "cut-cross-entropy", "nvidia-cutlass-dsl", "flash-attn",
)  # fmt: skip


def run(record: Recorder) -> None:
    with record.item("machine") as values:
        values |= {"python": platform.python_version(), "cores": os.cpu_count()}
        values |= {
            "cpu paths": ", ".join(cpu_paths()) or "no C core",
            "backends": ", ".join(available_backends()),
        }
        values["auto takes"] = choose_backend(record.device)
    with record.item("packages") as values:
        for name in PACKAGES:
            try:
                values[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                values[name] = "none"
    with record.item("GPU") as values:
        if record.device.type != "cuda":
            raise NotHereError("torch finds no GPU")
        found = torch.cuda.get_device_properties(0)
        values |= {"name": found.name, "capability": f"{found.major}.{found.minor}"}
        values |= {"multiprocessors": found.multi_processor_count, "GiB": found.total_memory / 2**30}
    with record.item("nvidia-smi") as values:
        query = "driver_version,clocks.max.sm,clocks.max.mem,clocks.sm,power.limit,temperature.gpu"
        try:
            said = subprocess.run(
                ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"],
                capture_output=True, text=True, timeout=20, check=True,
            ).stdout  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            raise NotHereError(str(error)) from error
        values |= dict(zip(query.split(","), (part.strip() for part in said.split(",")), strict=False))
    with record.item("copy") as values:
        size = 2**22 if record.tiny else 2**33
        source = torch.empty(size, dtype=torch.uint8, device=record.device).fill_(1)
        target = torch.empty_like(source)
        time = milliseconds(lambda: target.copy_(source), record.device)
        values |= {"GB": 2 * size / 1e9, "ms": time.median, "GB/s": 2 * size / 1e6 / time.median}
    for dtype in (torch.bfloat16, torch.float32):
        side = 64 if record.tiny else 8192 if dtype == torch.bfloat16 else 4096
        with record.item(f"product {side}³ {str(dtype).removeprefix('torch.')}") as values:
            left, right = (torch.randn(side, side, device=record.device).to(dtype) for _ in range(2))
            time = milliseconds(lambda left=left, right=right: left @ right, record.device)
            values |= {"ms": time.median, "TFLOP/s": 2e-9 * side**3 / time.median}
