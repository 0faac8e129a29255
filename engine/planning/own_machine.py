"""What this machine computes, as `engine doctor --measure` has found and kept in the user's cache."""

from __future__ import annotations

import json
import platform
from functools import lru_cache
from pathlib import Path
from typing import Any

from cattrs import structure
from cattrs.errors import BaseValidationError

from engine.planning.devices import DEVICES, Device
from specs.common.whole_files import whole_file
from specs.tables.executor import Executor
from store.backend.records import cache_root

# Of the measured rates, which a training does not reach: between its products lie norms and activations.
UTILISATION = 0.5


def rates_file() -> Path:
    """Give the file of this machine's rates."""
    return cache_root() / f"rates-{platform.node() or 'machine'}.json"


def keep_rates(rates: dict[str, Any]) -> Path:
    """Write the measured rates by kind of device, `cpu` and `cuda`; give the file."""
    file = rates_file()
    with whole_file(file) as written:
        written.write_text(json.dumps(rates, indent=2) + "\n", "utf-8")
    return file


def own_rates(wanted: str) -> tuple[str, Device] | None:
    """Give the kind and the rates of the device here that `model.device` means; None where unmeasured."""
    try:
        file = rates_file()
        known = _read(file, file.stat().st_mtime_ns)
        kind = ("cuda" if "cuda" in known else "cpu") if wanted == "auto" else wanted.partition(":")[0]
        return kind, structure(known[kind], Device)
    except (OSError, ValueError, LookupError, TypeError, BaseValidationError):
        return None


@lru_cache(maxsize=1)
def _read(file: Path, _written: int) -> dict[str, Any]:
    """Read the file once until it is written again: a plan asks for every training."""
    rates: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return rates


def expected_seconds(settings: Executor, wanted: str, flops: float, streamed: float, dtype: str) -> float:
    """Give a stage's seconds for one worker on `executor.device`, else on this machine; 0 where unknown.

    wanted: `model.device`. Workers on one CPU share it.
    """
    if settings.device is not None:
        return DEVICES[settings.device].seconds(flops, streamed, dtype)
    measured = own_rates(wanted) if settings.kind == "local" else None
    if measured is None:
        return 0.0
    kind, device = measured
    share = settings.workers_per_gpu if kind == "cuda" else settings.workers or 1
    return share * device.seconds(flops, streamed, dtype, products=UTILISATION, reads=UTILISATION)
