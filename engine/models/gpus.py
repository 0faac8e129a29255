"""GPUs of this machine, by the signs that show without torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

DEVICES, DRIVER = Path("/dev"), Path("/proc/driver/nvidia/gpus")


def missing_gpu(wanted: str) -> str | None:
    """Say that this machine has no such `model.device`; None where it has, or may have.

    Device files tell how many GPUs there are; where there are none of these, a driver may know of some. Other
    makers' GPUs, which torch calls "cuda" as well, are not counted.
    """
    kind, _, number = wanted.partition(":")
    if kind != "cuda" or (DEVICES / "kfd").exists():
        return None
    problem = f'model.device: found "{wanted}", but '
    if all_hidden():
        return f"{problem}CUDA_VISIBLE_DEVICES hides all GPUs here"
    if (nodes := _nodes()) and int(number or 0) >= len(nodes):
        return f"{problem}this machine has {len(nodes)} NVIDIA GPU{'s' * (len(nodes) > 1)}"
    return None if nodes or nvidia_gpu() else f"{problem}this machine has no NVIDIA GPU"


def all_hidden() -> bool:
    """Tell whether `CUDA_VISIBLE_DEVICES` leaves torch no GPU."""
    return os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1", "none", "NoDevFiles")


def nvidia_gpu() -> str | None:
    """Give the sign by which an NVIDIA GPU shows, whatever torch may think of it."""
    nodes = _nodes()
    if nodes:
        return str(nodes[0])
    if DRIVER.is_dir() and any(DRIVER.iterdir()):
        return str(DRIVER)
    if program := shutil.which("nvidia-smi"):
        try:
            listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        if listed.returncode == 0 and listed.stdout.startswith("GPU "):
            return f"nvidia-smi: {listed.stdout.partition(' (UUID')[0].strip()}"
    return None


def _nodes() -> list[Path]:
    return sorted(node for node in DEVICES.glob("nvidia*") if node.name.removeprefix("nvidia").isdigit())
