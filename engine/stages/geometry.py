"""`probe.geometry`: how residual streams lie to each other, over the examples of a probe.

Residual streams are held in main memory while the probe runs, and are never stored: what is stored are
numbers for each example (`geometry_measures`), and on demand inner products.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from attrs import define, field
from numpy.typing import NDArray
from torch import Tensor

from engine.stages.geometry_measures import MEASURES, curvature, measured
from specs.common.names import GEOMETRY, GRAM, SIMILARITIES
from specs.tables.probe import PositionRange, Probe
from store import Coordinate, Variable
from store.analysis.gram import centred, similarity_values

AXES = ("example", "layer", "position")
NEIGHBOUR = "neighbour"
Part = tuple[str, dict[str, NDArray[np.generic]]]


def geometry_variables(probe: Probe) -> list[Variable]:
    """Give the variables of the store that a probe's geometry fills."""
    variables = [
        Variable(name, AXES, "float32", *described)
        for name, described in GEOMETRY.items()
        if name in probe.geometry
    ]
    for name, (units, meaning) in SIMILARITIES.items():
        if name in probe.geometry:
            variables.append(Variable(f"{name}_against", (*AXES, "against"), "float32", units, meaning))
    if GRAM in probe.geometry:
        meaning = "inner product of both examples' residual streams, their mean taken off"
        variables.append(Variable(GRAM, (*AXES, NEIGHBOUR), "float32", "1", meaning))
    return variables


def geometry_coordinates(probe: Probe, ids: Sequence[str]) -> list[Coordinate]:
    """Give the coordinates that these variables have beside those of all."""
    neighbours = Coordinate(NEIGHBOUR, NEIGHBOUR, list(ids), long_name="the other example")
    return [neighbours] if GRAM in probe.geometry else []


@define(eq=False)
class Geometry:
    """Collects the residual streams of E examples at P positions, of L layers and some models."""

    probe: Probe
    layers: Sequence[int]  # places of the L layers among those that a pass gives
    examples: int
    _present: NDArray[np.bool_] = field(init=False)  # [E, P]
    _streams: dict[str, Tensor] = field(init=False, factory=dict)  # by model, [L, E, P, D]; "": the cell's

    @_present.default
    def _nothing(self) -> NDArray[np.bool_]:
        return np.zeros((self.examples, len(self.probe.position_names)), bool)

    def add(self, rows: Sequence[int], present: Tensor, model: str, hidden: Sequence[Tensor]) -> None:
        """Take a model's streams of a batch, where they are asked for.

        Args:
            rows: [B] the examples.
            present: [B, P] which positions they have, N in all.
            model: the name of a reference, "" for the cell's own.
            hidden: [N, D] of each layer of the pass.
        """
        wanted = set(SIMILARITIES) if model else {*GEOMETRY, *SIMILARITIES, GRAM}
        if wanted.isdisjoint(self.probe.geometry):
            return
        batch, position = (places.cpu() for places in torch.nonzero(present, as_tuple=True))
        example = torch.tensor(rows)[batch]
        if model not in self._streams:
            shape = len(self.layers), *self._present.shape, hidden[0].shape[-1]
            self._streams[model] = torch.zeros(shape, dtype=hidden[0].dtype)
        for layer, place in enumerate(self.layers):
            self._streams[model][layer, example, position] = hidden[place].cpu()
        self._present[example.numpy(), position.numpy()] = True

    def results(self, others: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Give all variables, each [E, L, P, …]; others: the models that this one is compared with."""
        layers, (examples, positions) = len(self.layers), self._present.shape
        sizes = dict(zip(AXES, (examples, layers, positions), strict=True))
        sizes |= {NEIGHBOUR: examples, "against": len(others)}
        out = {
            variable.name: np.full([sizes[dim] for dim in variable.dims], np.nan, np.float32)
            for variable in geometry_variables(self.probe)
        }
        for layer in range(layers):
            for position in range(positions):
                rows = np.flatnonzero(self._present[:, position])
                for name, values in self._at(layer, position, rows, others).items():
                    out[name][rows, layer, position] = values
            if "curvature" in out:
                out["curvature"][:, layer] = self._curvature(layer)
        return out

    def _at(
        self, layer: int, position: int, rows: NDArray[np.intp], others: Sequence[str]
    ) -> dict[str, NDArray[np.float64]]:
        if not len(rows):
            return {}
        states = self._states("", layer, position, rows)
        values = measured(states, [name for name in MEASURES if name in self.probe.geometry])
        if GRAM in self.probe.geometry:
            whole = np.full((len(rows), self.examples), np.nan)
            whole[:, rows] = centred(states @ states.T)
            values[GRAM] = whole
        for name in SIMILARITIES:
            if name in self.probe.geometry:
                by_model = []
                for other in others:  # a model that is the cell's own was not run again
                    of_other = self._states(other if other in self._streams else "", layer, position, rows)
                    by_model.append(similarity_values(name, states @ states.T, of_other @ of_other.T))
                values[f"{name}_against"] = np.stack(by_model, axis=1)
        return values

    def _states(self, model: str, layer: int, position: int, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        states: NDArray[np.float64] = self._streams[model][layer, rows, position].double().numpy()
        return states

    def _curvature(self, layer: int) -> NDArray[np.float64]:
        """Give angles [E, P], NaN at positions that are in no range or at its ends."""
        whole, start = np.full(self._present.shape, np.nan), 0
        for place in self.probe.places:
            size = place.most if isinstance(place, PositionRange) else 1
            if isinstance(place, PositionRange):
                part = slice(start, start + size)
                path = self._streams[""][layer, :, part].double().numpy()
                path = np.where(self._present[:, part, None], path, np.nan)
                whole[:, part] = curvature(path.transpose(1, 0, 2)).T
            start += size
        return whole


def with_geometry(parts: Iterable[Part], geometry: Geometry, others: Sequence[str]) -> Iterator[Part]:
    """Yield all parts as one, with the geometry that is known only when all have come."""
    backend, held = "", list[dict[str, NDArray[np.generic]]]()
    for backend, values in parts:  # noqa: B007
        held.append(values)
    whole = {name: np.concatenate([part[name] for part in held]) for name in held[0]}
    yield backend, whole | geometry.results(others)
