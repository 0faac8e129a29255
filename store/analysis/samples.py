"""Measures of several answers to one example, as variables by example."""

import re
from collections.abc import Iterable

import xarray as xr

from store.errors import StoreError
from store.sampling import pass_at_k

PASS = re.compile(r"pass_at_(0|[1-9]\d*)")


def of_samples(name: str) -> bool:
    """Whether a name is one that is derived from sampled answers."""
    return name == "self_consistency" or PASS.fullmatch(name) is not None


def sample_sources(name: str) -> list[str]:
    """Return the variables that one is derived from."""
    return ["sampled_label", "majority_label"] if name == "self_consistency" else ["sampled_label"]


def check_samples(datasets: Iterable[xr.Dataset], name: str) -> None:
    """Raise StoreError for a `pass_at_K` that asks for none, or for more samples than any dataset has."""
    matched = PASS.fullmatch(name)
    samples = max((dataset.sizes.get("sample", 0) for dataset in datasets), default=0)
    if matched and samples and not 1 <= int(matched[1]) <= samples:
        raise StoreError(f"{name}: expected K from 1 to {samples} (the samples of each example)")


def sample_title(name: str) -> str:
    """Return what a sentence calls it."""
    return "share of samples with the majority's label" if name == "self_consistency" else name


def sample_measure(dataset: xr.Dataset, name: str) -> xr.DataArray:
    """Return the share of samples that agree with their majority, or the chance that one of k is right.

    NaN for a k that is larger than the number of samples.
    """
    sampled = dataset["sampled_label"]
    if name == "self_consistency":
        values = ((sampled == dataset["majority_label"]) & (sampled != "")).mean("sample")
    else:
        matched = PASS.fullmatch(name)
        assert matched is not None
        samples, k = sampled.sizes["sample"], int(matched[1])
        right = (sampled == dataset["gold"]).sum("sample").astype(float)
        if k > samples:
            right = right.where(False)
        values = right.copy(data=pass_at_k(right.values, samples, k))
    return (
        values.transpose("cell", "example").rename(name).assign_attrs(units="1", long_name=sample_title(name))
    )
