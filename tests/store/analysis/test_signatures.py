"""Every failure signature is found where it is planted, and not where it is not."""

from __future__ import annotations

import json
from typing import Any

import attrs
import numpy as np
import pytest
import xarray as xr
from analysis_data import cells
from facts import facts, told

from specs.tables.signatures import Signatures
from store import StoreError
from store.analysis import Thresholds, detect_failures

EXAMPLES = 40
SETS = {"train_on": ["x", "y"], "test_on": ["x", "y"]}
GOLD = np.array([str(1 + number % 3) for number in range(EXAMPLES)], object)


def experiment(
    summary: dict[str, Any] | None = None,
    evaluate: dict[str, Any] | None = None,
    entropy: Any = None,
    factors: dict[str, list[Any]] | None = None,
) -> xr.DataTree:
    """Give an experiment of one seed with the given variables [*levels, …] of its nodes."""
    factors = factors or {"target": ["bad", "good"]}
    levels = [len(names) for names in factors.values()]

    def node(values: dict[str, Any], *dims: str) -> xr.Dataset:
        parts = [cells(np.expand_dims(v, len(levels)), name, factors, dims) for name, v in values.items()]
        return xr.merge(parts)

    nodes = {"/summary": node(summary or {"accuracy": np.full(levels, 0.5)})}
    if evaluate:
        nodes["/evaluate"] = node(evaluate, "example").assign_coords(gold=("example", GOLD))
    if entropy is not None:
        nodes["/probe"] = node({"entropy": entropy}, "example", "layer", "position")
    return xr.DataTree.from_dict(nodes)


def outcome(tree: xr.DataTree, signature: str, **options: Any) -> xr.Dataset:
    found = detect_failures(tree, **options).sel(signature=signature)
    assert not (found["found"] & ~found["measurable"]).any()
    return found


def test_explanations_for_another_label_are_found() -> None:
    names = {"1": "one", "2": "2", "3": "3"}
    right = [f"It is surely {names[label]}." for label in GOLD]
    wrong = [f"It is surely {names[str(int(label) % 3 + 1)]}." for label in GOLD]
    tree = experiment(
        evaluate={
            "prediction": np.stack([GOLD, GOLD]),
            "generated_explanation": np.array([wrong, right], object),
        }
    )
    found = outcome(tree, "explanation-prediction mismatch")
    assert found["found"].values.tolist() == [True, False]
    assert found["value"].values.tolist() == [1.0, 0.0]
    assert told(str(found["sentence"].values[0]), "100.0%", "40 explanations")


def test_a_gap_between_training_and_test_examples_is_found() -> None:
    tree = experiment({"accuracy": np.array([0.5, 0.5]), "train_accuracy": np.array([0.95, 0.55])})
    found = outcome(tree, "overfitting to the training examples")
    assert found["found"].values.tolist() == [True, False]
    assert found["value"].values == pytest.approx([0.45, 0.05])


def test_a_gap_between_sets_is_found_for_the_training_that_has_it() -> None:
    tree = experiment({"accuracy": np.array([[0.9, 0.4], [0.6, 0.62]])}, factors=SETS)
    found = outcome(tree, "overfitting to the data set", train="train_on", test="test_on")
    assert found["found"].sel(train_on="x").all() and not found["found"].sel(train_on="y").any()
    assert "not measurable" in str(outcome(tree, "overfitting to the data set")["sentence"].values[0])
    with pytest.raises(StoreError, match=facts("'trained_on'", "'train_on'")):
        detect_failures(tree, train="trained_on", test="test_on")


@pytest.mark.parametrize("confused", [True, False])
def test_dimensions_predicted_alike_are_found(confused: bool) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(1, 6, size=(2, EXAMPLES)).astype(str).astype(object)
    guesses = np.stack([labels[0], labels[0]]) if confused else labels
    nodes = {}
    for number, dimension in enumerate(["natural", "on topic"]):
        data = cells(guesses[None, [number]], "prediction", {"dimension": [dimension]}, ("example",))
        nodes[f"/evaluate/shape{number}"] = data.assign_coords(gold=("example", labels[number]))
    nodes["/summary"] = cells(np.zeros((2, 1)), "accuracy", {"dimension": ["natural", "on topic"]}, ())
    tree = xr.DataTree.from_dict(nodes)
    found = outcome(tree, "dimension confusion", dimension="dimension")
    assert found["measurable"].all() and (found["found"] == confused).all()


def test_entropy_near_zero_for_all_is_found() -> None:
    rng = np.random.default_rng(1)
    entropy = rng.uniform(1, 2, size=(2, EXAMPLES, 3, 1))
    entropy[0, :, -1] = 0.01
    entropy[1, :20, -1] = 0.01  # half of them is no collapse
    tree = experiment(entropy=entropy)
    found = outcome(tree, "entropy collapse")
    assert found["found"].values.tolist() == [True, False] and found["value"].values.tolist() == [1.0, 0.5]
    lenient = outcome(tree, "entropy collapse", thresholds=Thresholds(collapse=0.5))
    assert lenient["found"].all() and lenient["threshold"].item() == 0.5


def test_templates_are_found() -> None:
    alike = [f"The reply is about thing {number}." for number in range(EXAMPLES)]
    reasons = [f"{number} words miss of reply {number}." for number in range(EXAMPLES)]
    tree = experiment(evaluate={"generated_explanation": np.array([alike, reasons], object)})
    found = outcome(tree, "low explanation diversity")
    assert found["found"].values.tolist() == [True, False]


def test_what_the_store_lacks_is_not_measurable() -> None:
    found = detect_failures(experiment())
    assert not found["measurable"].any() and not found["found"].any()
    assert all(str(text).startswith("not measurable: ") for text in found["sentence"].values.ravel())


def test_the_specs_thresholds_and_factors_are_taken_unless_others_are_given() -> None:
    accuracy = np.array([[0.9, 0.5], [0.5, 0.9]])
    tree = experiment({"accuracy": accuracy}, factors=SETS)
    tree.attrs["spec"] = json.dumps({"signatures": {"set_gap": 0.3, "train": "train_on", "test": "test_on"}})
    found = outcome(tree, "overfitting to the data set")
    assert found["threshold"] == 0.3 and found["found"].any()
    assert outcome(tree, "overfitting to the data set", thresholds=Thresholds())["threshold"] == 0.15
    tree.attrs["spec"] = json.dumps({"signatures": {"train": "dropped", "test": "test_on"}})
    assert not outcome(tree, "overfitting to the data set")["measurable"].any()


def test_the_spec_has_the_same_thresholds() -> None:
    own = attrs.asdict(Signatures())
    for key in attrs.fields(Thresholds):
        if key.name != "positions":
            assert own.pop(key.name) == key.default
    assert own == {"train": None, "test": None, "dimension": None}
