"""The directions that are added to residual streams: mean differences, and random ones as long."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
import xarray as xr
from attrs import field, frozen
from torch import Tensor

from engine.errors import DataError, UsageError
from engine.planning.changes import Addition, Change


@frozen(eq=False)
class Directions:
    """What additions add at a layer, read off the result of a cell's `differences`."""

    found: xr.Dataset  # mean_difference [layer, position, against, coordinate], and difference_examples
    seed: int  # of the cell
    _known: dict[tuple[str, tuple[str, ...], int], np.ndarray] = field(factory=dict, init=False)

    def of(self, addition: Addition, layer: int) -> Tensor:
        """Give what is added to every residual stream behind a layer: [D] in float64.

        Random directions depend on the seed, the layer and the number of the draw alone.
        """
        taken = layer if addition.layer is None else addition.layer
        direction = self._difference(addition.against, addition.positions, taken)
        if addition.draw is not None:
            generator = np.random.default_rng([self.seed, layer, addition.draw])
            drawn = generator.standard_normal(direction.shape)
            direction = drawn * (np.linalg.norm(direction) / np.linalg.norm(drawn))
        return torch.from_numpy(addition.strength * direction)

    def _difference(self, against: str, positions: tuple[str, ...], layer: int) -> np.ndarray:
        """Give the mean difference over all examples at all of some positions."""
        place = (against, positions, layer)
        if place not in self._known:
            of_layer = self.found.sel(layer=layer, against=against, position=list(positions))
            counts = of_layer["difference_examples"].values.astype(float)
            if not counts.any():
                raise DataError(
                    f"interventions: no test example has a token at {', '.join(positions)}, whose mean "
                    "difference is to be added; expected other from_positions"
                )
            means = of_layer["mean_difference"].transpose("position", "coordinate").values.astype(float)
            self._known[place] = counts[counts > 0] @ means[counts > 0] / counts.sum()
        return self._known[place]


def check_layers(changes: Iterable[Change], probed: Iterable[int]) -> None:
    """Raise UsageError where a change adds the difference of a layer that is not probed."""
    known = set(probed)
    for change in changes:
        if change.addition is None:
            continue
        taken = change.layers if change.addition.layer is None else (change.addition.layer,)
        if lacking := sorted(set(taken) - known):
            raise UsageError(
                f"interventions: {change.entry}: adds the difference of layer {lacking[0]}, which is not "
                f"among those of probe.layers ({', '.join(map(str, sorted(known)))}); expected one of these"
            )
