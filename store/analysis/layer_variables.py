"""Statistics of layers that are derived from stored ones, cell by cell, when they are read."""

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import xlogy
from xarray.backends import BackendArray
from xarray.core import indexing

from specs.common.names import (
    ATTRIBUTION,
    DERIVED_ATTRIBUTIONS,
    DERIVED_STATISTICS,
    HEAD_ATTRIBUTION,
    STEP,
    STREAM,
)

Compute = Callable[[xr.Dataset], xr.DataArray]


def layer_variable(dataset: xr.Dataset, name: str) -> xr.DataArray | None:
    """Return a derived statistic of layers, which is computed when it is read; None where it cannot be.

    `renyi_inf` is −log of the highest probability, the Rényi entropy of order ∞; `top_mass` the probability
    on the kept top tokens, `top_entropy` the entropy within them, renormalised; `label_surprisal` and
    `next_surprisal` minus the log-probability of the true label's token and of the text's next one.
    `label_attribution` is the attribution of the true label's token, less the mean of the other labels';
    `label_head_attribution` the same of each head. `stream_NAME` is NAME of the streams within blocks.
    `NAME_step` is the change of a statistic from the probed layer below, NaN at the first: where entropy
    rises the layer takes further tokens into account, where it falls it leaves some out (expansion and
    pruning; Entropy-Lens, arXiv 2502.16570).
    """
    if name.startswith(STREAM):
        return _of_streams(dataset, name)
    if name.endswith(STEP):
        return _step(dataset, name)
    for source, compute in SOURCES.get(name, ()):
        if source in dataset.data_vars and _has_tokens(dataset, name):
            units, long_name = (DERIVED_STATISTICS | DERIVED_ATTRIBUTIONS)[name]
            whole = dataset[source]
            like = whole.isel({dim: 0 for dim in ("top", "watch") if dim in whole.dims}, drop=True)
            values = _lazy(like, dataset[[source]], compute, name)
            return values.assign_attrs(units=units, long_name=long_name)
    return None


def layer_variables(dataset: xr.Dataset) -> list[str]:
    """Return the names of what can be derived, without changes from layer to layer."""
    known = [*SOURCES, *(STREAM + name for name in SOURCES)]
    return [name for name in known if layer_variable(dataset, name) is not None]


def _of_streams(dataset: xr.Dataset, name: str) -> xr.DataArray | None:
    """Return a statistic derived from those of streams, which have its sources' names behind a prefix."""
    sources = {str(v): str(v).removeprefix(STREAM) for v in dataset.data_vars if str(v).startswith(STREAM)}
    if not sources:
        return None
    kept = [*sources, *(["next_id"] if "next_id" in dataset.data_vars else [])]
    values = layer_variable(dataset[kept].rename(sources), name.removeprefix(STREAM))
    if values is None:
        return None
    title = f"{values.attrs['long_name']}, of a stream within the block"
    return values.rename(name).assign_attrs(long_name=title)


def _step(dataset: xr.Dataset, name: str) -> xr.DataArray | None:
    base = name.removesuffix(STEP)
    values = dataset[base] if base in dataset.data_vars else layer_variable(dataset, base)
    if values is None or "layer" not in values.dims or values.dtype.kind != "f":
        return None

    def change(part: xr.Dataset) -> xr.DataArray:
        by_layer = part[base].astype(float)
        return by_layer - by_layer.shift(layer=1)

    title = f"{values.attrs.get('long_name', base)}, less that of the layer below"
    return _lazy(values, values.to_dataset(name=base), change, name).assign_attrs(long_name=title)


def _has_tokens(dataset: xr.Dataset, name: str) -> bool:
    """Tell whether the watched tokens are those that a surprisal is of."""
    if name.startswith("label_"):
        return "watch_id" in dataset.coords and "gold" in dataset.coords
    return name != "next_surprisal" or "next_id" in dataset.data_vars


def _min_entropy(part: xr.Dataset) -> xr.DataArray:
    return -part["top_logprob"].astype(float).isel(top=0, drop=True)


def _min_entropy_of_probability(part: xr.Dataset) -> xr.DataArray:
    values = part["max_prob"].astype(float)
    return values.copy(data=-np.log(values.values))


def _top_mass(part: xr.Dataset) -> xr.DataArray:
    return _top_probabilities(part).sum("top", skipna=True, min_count=1)


def _top_entropy(part: xr.Dataset) -> xr.DataArray:
    p = _top_probabilities(part)
    q = p / p.sum("top", skipna=True, min_count=1)
    return -q.copy(data=xlogy(q.values, q.values)).sum("top", skipna=True, min_count=1)


def _top_probabilities(part: xr.Dataset) -> xr.DataArray:
    logprobs = part["top_logprob"].astype(float)
    return logprobs.copy(data=np.exp(logprobs.values))


def _label_surprisal(part: xr.Dataset) -> xr.DataArray:
    values = part["watch_logprob"].astype(float)
    return -values.where(part["watch"] == part["gold"]).max("watch")


def _label_attribution(part: xr.Dataset) -> xr.DataArray:
    values = part[next(iter(part.data_vars))].astype(float)
    gold = part["watch"] == part["gold"]
    return values.where(gold).max("watch") - values.where(~gold).mean("watch")


def _next_surprisal(part: xr.Dataset) -> xr.DataArray:
    return -part["watch_logprob"].astype(float).isel(watch=0, drop=True)


SOURCES: dict[str, list[tuple[str, Compute]]] = {
    "renyi_inf": [("top_logprob", _min_entropy), ("max_prob", _min_entropy_of_probability)],
    "top_mass": [("top_logprob", _top_mass)],
    "top_entropy": [("top_logprob", _top_entropy)],
    "label_surprisal": [("watch_logprob", _label_surprisal)],
    "next_surprisal": [("watch_logprob", _next_surprisal)],
    "label_attribution": [(ATTRIBUTION, _label_attribution)],
    "label_head_attribution": [(HEAD_ATTRIBUTION, _label_attribution)],
}


class Derived(BackendArray):
    """An array that is computed of some cells of a dataset when these are read."""

    def __init__(self, dataset: xr.Dataset, dims: tuple[Any, ...], compute: Compute) -> None:
        self._dataset, self._dims, self._compute = dataset, dims, compute
        self.shape = tuple(dataset.sizes[dim] for dim in dims)
        self.dtype = np.dtype(np.float64)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[np.float64]:
        places = {dim: np.arange(self._dataset.sizes[dim])[k] for dim, k in zip(self._dims, key, strict=True)}
        # Layers are chosen last: what is derived of one may need its neighbour.
        first = {dim: np.atleast_1d(chosen) for dim, chosen in places.items() if dim != "layer"}
        values = self._compute(self._dataset.isel(first)).transpose(*self._dims)
        last = {dim: 0 for dim, chosen in places.items() if chosen.ndim == 0} | {
            dim: chosen for dim, chosen in places.items() if dim == "layer"
        }
        return np.asarray(values.isel(last).values, np.float64)


def _lazy(like: xr.DataArray, dataset: xr.Dataset, compute: Compute, name: str) -> xr.DataArray:
    """Return a variable of the dims and coordinates of another, which is computed when it is read."""
    data = indexing.LazilyIndexedArray(Derived(dataset, like.dims, compute))
    return like.copy(data=data).rename(name)
