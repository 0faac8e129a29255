"""Failure signatures: named ways in which fine-tuning goes wrong, looked for in every cell of an experiment.

A signature is found when its measure passes its threshold. That is a screen, no test: with few examples a
measure strays, so each finding says how many it rests on.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from attrs import fields, frozen

from specs.common import thresholds as defaults
from store.analysis.detectors import (
    Found,
    dimension_confusion,
    entropy_collapse,
    mismatch,
    set_gap,
    templates,
    train_gap,
)
from store.analysis.nodes import spec_of, stage_node
from store.analysis.results import count, level_coordinate
from store.arrays.cell_index import coordinates_of
from store.errors import StoreError


@frozen(kw_only=True)
class Thresholds:
    """From where on a measure counts as a failure."""

    mismatch: float = defaults.MISMATCH
    """Share of explanations that name other labels than the predicted one, and not that one."""
    train_gap: float = defaults.TRAIN_GAP
    """Accuracy on training examples less that on test examples."""
    set_gap: float = defaults.SET_GAP
    """Accuracy on the set trained on less the mean of that on the others."""
    confusion: float = defaults.CONFUSION
    """Correlation of two dimensions' predictions less that of their labels."""
    collapse: float = defaults.COLLAPSE
    """Share of examples whose entropy at the final layer is at most `collapsed_entropy`."""
    collapsed_entropy: float = defaults.COLLAPSED_ENTROPY
    """In nat."""
    positions: tuple[str, ...] = ("label", "prompt_end")
    """Where entropy is looked at: the first of these that was watched."""
    templates: float = defaults.TEMPLATES
    """Share of explanations that open alike, or that repeat an earlier one."""


def detect_failures(
    data: xr.DataTree,
    thresholds: Thresholds | None = None,
    *,
    train: str | None = None,
    test: str | None = None,
    dimension: str | None = None,
) -> xr.Dataset:
    """Look for every failure signature in every cell of an experiment, dims (signature, cell).

    What is not given is taken from the spec's `[signatures]`.

    Args:
        train: the factor of the set trained on, for the gap between sets.
        test: the factor of the set tested on, for the same.
        dimension: the factor of the rated dimension tested on, for dimension confusion.

    Returns:
        `found`, `measurable`, `value`, `threshold` and `sentence`, which for what is not measurable says why.
    """
    if thresholds is not None and not isinstance(thresholds, Thresholds):
        raise StoreError(f"thresholds: expected Thresholds(…), found {thresholds!r}")
    named: dict[str, Any] = spec_of(data).get("signatures", {})
    limits = thresholds or Thresholds(
        **{k.name: named[k.name] for k in fields(Thresholds) if k.name in named}
    )
    summary = stage_node(data, "summary")
    index = summary.indexes["cell"]
    # A spec may name factors that another, which extends it, has dropped.
    known = {role: name for role, name in named.items() if name in index.names}
    train, test = train or known.get("train"), test or known.get("test")
    dimension = dimension or known.get("dimension")
    detectors: dict[str, tuple[Callable[[], Found], float]] = {
        "explanation-prediction mismatch": (lambda: mismatch(data), limits.mismatch),
        "overfitting to the training examples": (lambda: train_gap(data), limits.train_gap),
        "overfitting to the data set": (lambda: set_gap(data, train, test), limits.set_gap),
        "dimension confusion": (lambda: dimension_confusion(data, dimension), limits.confusion),
        "entropy collapse": (
            lambda: entropy_collapse(data, limits.collapsed_entropy, limits.positions),
            limits.collapse,
        ),
        "low explanation diversity": (lambda: templates(data), limits.templates),
    }
    shape = (len(detectors), len(index))
    value, sentence = np.full(shape, np.nan), np.full(shape, "", object)
    lacking = np.nan, "the cell lacks this stage"
    for row, (detector, _) in enumerate(detectors.values()):
        by_cell = detector()
        for column, cell in enumerate(index):
            value[row, column], sentence[row, column] = by_cell.get(cell, lacking)
    threshold = np.array([limit for _, limit in detectors.values()])
    measurable = ~np.isnan(value)
    hit = measurable & (value >= threshold[:, None])
    for row, column in np.ndindex(*shape):
        outcome = bool(measurable[row, column]), bool(hit[row, column])
        sentence[row, column] = _sentence(str(sentence[row, column]), *outcome, float(threshold[row]))
    dims = ("signature", "cell")
    result = xr.Dataset(
        {
            "found": (dims, hit, {"units": "", "long_name": "the measure reaches the threshold"}),
            "measurable": (
                dims,
                measurable,
                {"units": "", "long_name": "the store has what the measure needs"},
            ),
            "value": (dims, value, {"units": "1", "long_name": "measure"}),
            "threshold": ("signature", threshold, {"units": "1", "long_name": "threshold"}),
            "sentence": (dims, sentence, {"units": "", "long_name": "finding"}),
        },
        {"signature": level_coordinate(list(detectors), "failure signature", "signature")},
    ).assign_coords(coordinates_of(index))
    result.attrs["method"] = (
        f"Screening of {count(len(index), 'cell')} for {len(detectors)} failure signatures: a signature is "
        "found when its measure reaches its threshold; no tests are made."
    )
    return result


def _sentence(text: str, measurable: bool, is_found: bool, threshold: float) -> str:
    if not measurable:
        return f"not measurable: {text}"
    return f"{'found' if is_found else 'not found'}: {text} (threshold {threshold:g})"
