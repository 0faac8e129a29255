"""The log of a training as curves."""

from __future__ import annotations

import math

import numpy as np

from store import Coordinate, Family, Variable


def curves(history: list[dict[str, float]]) -> dict[str, np.ndarray]:
    """Give loss, learning rate and gradient norm of every step, float32 [steps]."""
    steps = [entry for entry in history if "loss" in entry]
    names = {"loss": "loss", "learning_rate": "learning_rate", "grad_norm": "grad_norm"}
    return {
        name: np.array([entry.get(key, math.nan) for entry in steps], np.float32)
        for name, key in names.items()
    }


def curves_family(steps: int) -> Family:
    """Give the store's layout of the training curves of a run of so many steps."""
    return Family(
        stage="train",
        coordinates=(Coordinate("step", "step", list(range(1, steps + 1)), long_name="optimiser step"),),
        variables=(
            Variable("loss", ("step",), "float32", "nat", "mean cross-entropy of the completion's tokens"),
            Variable("learning_rate", ("step",), "float32", "1", "learning rate"),
            Variable("grad_norm", ("step",), "float32", "1", "norm of the gradient before clipping"),
        ),
    )
