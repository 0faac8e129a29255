"""Numbers small enough for a page: rounded JSON, and fixed-point arrays in base64."""

import base64
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIGITS = 4
NOTHING = 65535
"""Stands for a missing value in a fixed-point array."""


def rounded(values: Any) -> Any:
    """Return numbers (nested lists for arrays) at four significant digits, what is not finite as None."""
    return _each_rounded(np.asarray(values, dtype=float).tolist())


def _each_rounded(values: Any) -> Any:
    if isinstance(values, list):
        return [_each_rounded(value) for value in values]
    return float(f"{values:.{DIGITS}g}") if math.isfinite(values) else None


def fixed_point(values: NDArray[Any], scale: float) -> dict[str, Any]:
    """Return values ≥ 0 as 16-bit multiples of 1 / scale, the largest for all beyond it, NaN as NOTHING."""
    with np.errstate(invalid="ignore"):
        steps = np.clip(np.rint(np.asarray(values, float) * scale), 0, NOTHING - 1)
    whole = np.where(np.isnan(steps), NOTHING, steps).astype("<u2")
    return {"kind": "u2", "scale": scale, "data": base64.b64encode(whole.tobytes()).decode()}


def whole_numbers(values: NDArray[Any]) -> dict[str, Any]:
    """Return whole numbers of at most 32 bits; -1 stays -1."""
    raw = np.asarray(values).astype("<i4").tobytes()
    return {"kind": "i4", "scale": 1, "data": base64.b64encode(raw).decode()}
