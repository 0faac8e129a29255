"""What the fields of several tables share."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

PositiveInt = Annotated[int, Meta(ge=1)]

FloatType = Literal["float32", "bfloat16", "float16"]
"""Types of weights and of arithmetic."""

Quantization = Literal["none", "int8", "nf4"]
"""How weights are quantised when they are loaded."""

# A key that came later than results that stand: at its default it is no part of their identity.
LATER = {"later": True}

EXECUTION_ONLY: dict[str, tuple[str, ...]] = {"stages": ()}


def read_by(*stages: str) -> dict[str, tuple[str, ...]]:
    """Metadata of a field that other stages read than its table's own."""
    return {"stages": stages}
