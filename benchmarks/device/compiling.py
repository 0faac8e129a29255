"""How long Triton took to compile which kernel."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def compile_seconds() -> Iterator[dict[str, float]]:
    """Yield a dict that fills with kernel → seconds of what is compiled meanwhile; cached ones count 0."""
    found: dict[str, float] = defaultdict(float)

    def heard(*, src: Any, times: Any, cache_hit: bool, **_: Any) -> None:
        name = getattr(getattr(src, "fn", None), "__name__", None) or str(getattr(src, "name", "kernel"))
        found[name] += 0.0 if cache_hit else round(times.total / 1e6, 2)

    try:
        from triton import knobs
    except ImportError:  # no Triton, or one without this door
        yield found
        return
    before, knobs.compilation.listener = knobs.compilation.listener, heard
    try:
        yield found
    finally:
        knobs.compilation.listener = before
