"""Cells whose true labels differ though their examples are the same, and cells with other layers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from facts import facts

from store import StoreError
from store.analysis import layer_specialisation, rank_trajectory, saturation

RNG = np.random.default_rng(0)
EXAMPLES = 6
WATCHED = ["1", "2"]


def probed(dimension: str, gold: str, layers: int) -> xr.Dataset:
    """Draw the probe of two seeds that were rated in a dimension."""
    shape, dims = (2, EXAMPLES, layers, 1), ("cell", "example", "layer", "position")
    ranks = RNG.integers(0, 50, (*shape, len(WATCHED))).astype("int32")
    data = xr.Dataset(
        {
            "watch_rank": ((*dims, "watch"), ranks, {"units": "1"}),
            "max_prob": (dims, RNG.random(shape), {"units": "1"}),
            "entropy": (dims, RNG.random(shape), {"units": "nat"}),
        },
        {
            "example": [f"e{number}" for number in range(EXAMPLES)],
            "gold": ("example", np.array(list(gold), object)),
            "layer": range(layers),
            "position": ["prompt_end"],
            "watch": WATCHED,
        },
    )
    cells = pd.MultiIndex.from_tuples([(dimension, 0), (dimension, 1)], names=["dimension", "seed"])
    return data.assign_coords(xr.Coordinates.from_pandas_multiindex(cells, "cell"))


def test_each_cell_has_the_ranks_of_its_own_true_labels() -> None:
    parts = {"valence": probed("valence", "121231", 3), "arousal": probed("arousal", "112211", 3)}
    tree = xr.DataTree.from_dict({f"/probe/{name}": part for name, part in parts.items()})
    found = rank_trajectory(tree, "dimension")["rank"].sel(watch="gold")
    for name, part in parts.items():
        known = [n for n, label in enumerate(part["gold"].values) if label in WATCHED]
        own = np.array([WATCHED.index(part["gold"].values[n]) for n in known])
        ranks = part["watch_rank"].values[:, known][:, np.arange(len(known)), ..., own]  # [example, cell, …]
        np.testing.assert_allclose(found.sel(level=name), np.median(ranks, axis=(0, 1)))


@pytest.mark.parametrize("analysis", [saturation, layer_specialisation])
def test_levels_with_other_layers_are_not_compared(analysis: Callable[..., xr.Dataset]) -> None:
    tree = xr.DataTree.from_dict(
        {"/probe/a": probed("valence", "121212", 3), "/probe/b": probed("arousal", "112211", 5)}
    )
    with pytest.raises(StoreError, match=facts("layer", "5", "3", "select")):
        analysis(tree, "dimension")
