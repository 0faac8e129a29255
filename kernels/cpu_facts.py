"""What this CPU says of itself."""

from __future__ import annotations

import platform
from pathlib import Path

FILE = Path("/proc/cpuinfo")


def cpu_name() -> str:
    """Give its model's name; empty where that is not known."""
    return _fact("model name") or platform.processor()


def cpu_maker() -> str:
    """Give its maker by the CPU's own word, such as "AuthenticAMD"; empty where that is not known."""
    return _fact("vendor_id") or platform.processor().rpartition(" ")[2]  # on Windows, the last word


def _fact(name: str) -> str:
    try:
        with FILE.open(encoding="utf-8") as lines:
            return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
    except OSError:
        return ""
