"""The measures behind the failure signatures, one number per cell of an experiment."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import xarray as xr

from store.analysis.nodes import check_factor, first_lens, numbers, ratings, stage_node, stage_nodes
from store.errors import FAULTS, StoreError
from store.quality import explanation_quality, names_label

Cell = tuple[Any, ...]
Found = dict[Cell, tuple[float, str]]
"""By cell: the measure (NaN when it cannot be had) and what it says, or why it cannot be had."""

PREDICTIONS = "generated_label", "prediction"
EXPLANATION = "generated_explanation"


def mismatch(data: xr.DataTree) -> Found:
    """Return the share of explanations that name another label than the predicted one, and not that one."""
    shares: Found = {}
    for cell, part in _cells(data, "evaluate", *PREDICTIONS, EXPLANATION):
        explanations = _explanations(part)
        prediction = next((name for name in PREDICTIONS if name in part), "")
        if explanations is None or prediction not in part:
            shares[cell] = np.nan, "no generated explanations in the store"
            continue
        labels = [str(label) for label in part["label"].values] if "label" in part.coords else []
        labels = labels or sorted({str(label) for label in part["gold"].values})
        pairs = [
            (text, str(label))
            for text, label in zip(explanations, part[prediction].values, strict=True)
            if text.strip() and label
        ]
        if not pairs:
            shares[cell] = np.nan, "no explanation with a predicted label"
            continue
        other = [
            not names_label(text, [label]) and names_label(text, [x for x in labels if x != label])
            for text, label in pairs
        ]
        share = float(np.mean(other))
        shares[cell] = (
            share,
            f"{share:.1%} of {len(pairs)} explanations argue for another label than the predicted one",
        )
    return shares


def train_gap(data: xr.DataTree) -> Found:
    """Return the accuracy on training examples less that on test examples (summary: train_accuracy)."""
    summary = stage_node(data, "summary")
    index = summary.indexes["cell"]
    if "train_accuracy" not in summary or "accuracy" not in summary:
        return dict.fromkeys(index, (np.nan, "no train_accuracy and accuracy in the store"))
    seen, unseen = summary["train_accuracy"].values, summary["accuracy"].values
    return {
        cell: (
            float(a - b),
            f"accuracy {a:.1%} on training and {b:.1%} on test examples"
            if np.isfinite(a - b)
            else "no accuracy",
        )
        for cell, a, b in zip(index, seen, unseen, strict=True)
    }


def set_gap(data: xr.DataTree, train: str | None, test: str | None) -> Found:
    """Return the accuracy on the set trained on less the mean of that on the other sets, by training."""
    summary = stage_node(data, "summary")
    index = summary.indexes["cell"]
    if train is None or test is None:
        return dict.fromkeys(index, (np.nan, "it takes factors train= and test= to name the sets"))
    if "accuracy" not in summary:
        return dict.fromkeys(index, (np.nan, "no accuracy in the store"))
    groups: dict[Cell, dict[bool, list[float]]] = {}
    where = [check_factor(summary, name) for name in (train, test)]
    for cell, accuracy in zip(index, summary["accuracy"].values, strict=True):
        pair = groups.setdefault(_without(cell, where[1]), {True: [], False: []})
        pair[cell[where[0]] == cell[where[1]]].append(float(accuracy))
    gaps: Found = {}
    for cell in index:
        same, others = groups[_without(cell, where[1])].values()
        if not same or not others:
            gaps[cell] = np.nan, f"trained on {cell[where[0]]}, but not tested on it and on others"
            continue
        gap = float(np.mean(same) - np.mean(others))
        gaps[cell] = (
            gap,
            f"accuracy {np.mean(same):.1%} on the set trained on, {np.mean(others):.1%} on the others",
        )
    return gaps


def dimension_confusion(data: xr.DataTree, dimension: str | None) -> Found:
    """Return by how much two dimensions' predictions correlate above their labels (Pearson).

    The same examples, rated in two dimensions, by cells that are equal in all else; the most over pairs.
    """
    summary = stage_node(data, "summary")
    if dimension is None:
        unnamed = np.nan, "it takes a factor dimension= to name what is rated"
        return dict.fromkeys(summary.indexes["cell"], unnamed)
    at = check_factor(summary, dimension)
    groups: dict[Cell, list[tuple[Cell, xr.Dataset]]] = {}
    for cell, part in _cells(data, "evaluate", "prediction"):
        groups.setdefault(_without(cell, at), []).append((cell, part))
    correlations: Found = {}
    for members in groups.values():
        for cell, _ in members:
            correlations[cell] = (
                np.nan,
                "no second dimension with the same examples, and varying labels and predictions",
            )
        for (a, first), (b, second) in combinations(members, 2):
            excess, text = _excess_correlation(first, second, str(a[at]), str(b[at]))
            for cell in (a, b):
                if np.isfinite(excess) and not excess <= correlations[cell][0]:
                    correlations[cell] = excess, text
    return correlations


def entropy_collapse(data: xr.DataTree, nearly_zero: float, positions: Sequence[str]) -> Found:
    """Return the share of examples whose lens entropy at the final layer is at most `nearly_zero` nat.

    At the first of `positions` that the store has, else at its first one.
    """
    shares: Found = {}
    for cell, part in _cells(data, "probe", "entropy"):
        if "entropy" not in part:
            shares[cell] = np.nan, "no entropy in the store"
            continue
        known = [str(position) for position in part["position"].values]
        at = next((known.index(p) for p in positions if p in known), 0)
        entropy = numbers(first_lens(part)["entropy"].isel(layer=-1, position=at)).values
        finite = entropy[np.isfinite(entropy)]
        if not finite.size:
            shares[cell] = np.nan, "no finite entropy"
            continue
        share = float(np.mean(finite <= nearly_zero))
        shares[cell] = (
            share,
            (
                f"{share:.1%} of {finite.size} examples have an entropy of at most {nearly_zero} nat at "
                f"layer {int(part['layer'][-1])}, position {known[at]}"
            ),
        )
    return shares


def templates(data: xr.DataTree) -> Found:
    """Return the share of explanations that open alike, or repeat an earlier one, whichever is larger."""
    shares: Found = {}
    for cell, part in _cells(data, "evaluate", EXPLANATION):
        texts = [text for text in _explanations(part) or [] if text.strip()]
        if len(texts) < 2:
            shares[cell] = (
                np.nan,
                "no generated explanations in the store" if not texts else "only one explanation",
            )
            continue
        quality = explanation_quality([{"label": "", "explanation": text} for text in texts], [])
        share = max(quality.templates, quality.duplicates)
        shares[cell] = (
            share,
            f"of {len(texts)} texts {quality.templates:.1%} open alike, {quality.duplicates:.1%} repeat",
        )
    return shares


def _excess_correlation(first: xr.Dataset, second: xr.Dataset, a: str, b: str) -> tuple[float, str]:
    common = [e for e in first["example"].values if e in set(second["example"].values)]
    pairs = []
    for name in ("prediction", "gold"):
        if name not in first or name not in second:
            return np.nan, ""
        x, y = (ratings(part[name].sel(example=common)).values for part in (first, second))
        valid = np.isfinite(x) & np.isfinite(y)
        if valid.sum() < 3 or not x[valid].std() or not y[valid].std():
            return np.nan, ""
        pairs.append(float(np.corrcoef(x[valid], y[valid])[0, 1]))
    predicted, true = pairs
    text = f"predictions of {a} and {b} correlate at {predicted:.2f}, their labels at {true:.2f}"
    return predicted - true, f"{text} ({len(common)} examples)"


def _cells(data: xr.DataTree, stage: str, *names: str) -> Iterator[tuple[Cell, xr.Dataset]]:
    """Yield each cell with those of some variables that it has, and all coordinates."""
    try:
        nodes = stage_nodes(data, stage)
    except FAULTS:
        raise
    except StoreError:  # the experiment has no such stage: each cell will be told so
        return
    for dataset in nodes.values():
        named = dataset.drop_vars([name for name in dataset.data_vars if name not in names])
        for number, cell in enumerate(dataset.indexes["cell"]):
            yield cell, named.isel(cell=number)


def _explanations(part: xr.Dataset) -> list[str] | None:
    return [str(t) for t in part[EXPLANATION].values] if EXPLANATION in part else None


def _without(cell: Cell, place: int) -> Cell:
    return (*cell[:place], *cell[place + 1 :])
