"""Where a result comes from: package versions, git state and hardware."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "ablation-engine", "accelerate", "datasets", "numpy", "peft", "tokenizers", "torch", "transformers",
    "xarray", "zarr",
)  # fmt: skip


def provenance() -> dict[str, Any]:
    """Give versions, git state of this code's checkout, and the machine, as plain JSON values."""
    return {
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "git": _git_state(Path(__file__).resolve().parent),
        "hardware": _hardware(),
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _git_state(folder: Path) -> str:
    """Give the commit, with `-dirty` where files differ from it; "" outside a checkout.

    git is in a session of its own, where no Ctrl-C of the terminal reaches it.
    """
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True, start_new_session=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _hardware() -> dict[str, Any]:
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
    }
