"""Mean differences as the stage `differences` stores them, of random numbers."""

from __future__ import annotations

import numpy as np
import xarray as xr

POSITIONS, COUNTS = ["prompt_end", "completion_end", "explanation[0]"], (5, 3, 0)


def drawn(width: int, layers: int = 3) -> xr.Dataset:
    """Differences of streams of this width from two models; no example has the last position."""
    rng = np.random.default_rng(0)
    values = 0.5 * rng.normal(size=(layers + 1, len(POSITIONS), 2, width))
    values[:, 2] = np.nan
    counts = np.broadcast_to(np.array(COUNTS)[None, :, None], values.shape[:3])
    return xr.Dataset(
        {
            "mean_difference": (("layer", "position", "against", "coordinate"), values.astype(np.float32)),
            "difference_examples": (("layer", "position", "against"), counts),
        },
        {"layer": range(layers + 1), "position": POSITIONS, "against": ["base", "target=label"]},
    )
