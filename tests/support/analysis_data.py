"""Data with planted properties, as `open_store` would give it; simulations lie along `position`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr


def cells(
    values: np.ndarray, name: str, factors: dict[str, Sequence[Any]], dims: Sequence[str]
) -> xr.Dataset:
    """Give a dataset of `values` [*levels of each factor, seed, *dims] with one cell per combination."""
    seeds = values.shape[len(factors)]
    index = pd.MultiIndex.from_tuples(
        list(product(*factors.values(), range(seeds))), names=[*factors, "seed"]
    )
    flat = values.reshape(len(index), *values.shape[len(factors) + 1 :])
    coordinates = {dim: np.arange(size) for dim, size in zip(dims, flat.shape[1:], strict=True)}
    if "example" in dims:
        examples = flat.shape[1 + list(dims).index("example")]
        coordinates["example"] = np.array([f"e{number}" for number in range(examples)], object)
    found = xr.Dataset({name: (("cell", *dims), flat, {"units": "nat", "long_name": name})}, coordinates)
    return found.assign_coords(xr.Coordinates.from_pandas_multiindex(index, "cell"))


def probe(values: np.ndarray, levels: Sequence[Any] = ("a", "b"), name: str = "entropy") -> xr.Dataset:
    """Give probe data of `values` [level of `target`, seed, example, layer, position]."""
    return cells(values, name, {"target": levels}, ("example", "layer", "position"))


def crossed(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    seed: float = 1.0,
    example: float = 1.0,
    rest: float = 1.0,
) -> np.ndarray:
    """Draw normal values [level, seed, example, layer, position] with crossed random effects of each level.

    Every level has effects of its own, as when a training and an example react to it by chance.
    """
    levels, seeds, examples, *others = shape
    return (
        seed * rng.normal(size=(levels, seeds, 1, *others))
        + example * rng.normal(size=(levels, 1, examples, *others))
        + rest * rng.normal(size=shape)
    )


def agreed(hits: Any, rate: float, slack: float = 0.0) -> bool:
    """Whether a share of simulations is `rate`, give or take four binomial standard errors and a slack."""
    found = np.asarray(hits, float)
    error = 4 * np.sqrt(rate * (1 - rate) / found.size)
    return bool(abs(found.mean() - rate) <= error + slack)


def at_most(hits: Any, rate: float, slack: float = 0.0) -> bool:
    """Whether a share of simulations is no more than `rate`, by four binomial standard errors and a slack."""
    found = np.asarray(hits, float)
    return bool(found.mean() <= rate + 4 * np.sqrt(rate * (1 - rate) / found.size) + slack)
