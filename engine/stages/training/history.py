"""The log of a training: what its curves, its summary and its stops are made of.

The Trainer keeps it in every checkpoint, so a training that goes on from one knows its whole past, and what
comes of it never depends on where it was interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from attrs import frozen

from specs.tables.loss import SEGMENTS
from store import Coordinate, Family, Variable

LOSS, VALIDATION_LOSS = "loss", "eval_loss"  # as the Trainer names them
TOKENS, COMPLETION_TOKENS, SECONDS = "tokens", "completion_tokens", "seconds"
ROWS = "micro_batch"  # an entry of its own, where memory was full
# What the log has of the tokens of each segment, by the curve's name: the segment, unit and meaning.
SEGMENT_MEANS = {
    f"{segment}_loss": (segment, "nat", f"mean cross-entropy of the {what}")
    for segment, what in zip(
        SEGMENTS, ("label's tokens", "explanation's tokens and those that join it", "end token"), strict=True
    )
} | {
    "label_token_accuracy": ("label", "1", "share of the label's tokens that were the most likely ones"),
    "label_token_entropy": ("label", "nat", "mean entropy of the predictions of the label's tokens"),
}
UNITS = {
    "train_loss": "nat", "validation_loss": "nat", "train_seconds": "s",
    **{f"train_{name}": unit for name, (_, unit, _) in SEGMENT_MEANS.items()},
}  # fmt: skip
LAST_SHARE, LAST_STEPS = 0.1, 10  # of the steps, whose mean loss is the training's


@frozen
class TrainingLog:
    """The entries of a training's log, in the order of its steps."""

    entries: Sequence[Mapping[str, float]]

    @property
    def steps(self) -> list[Mapping[str, float]]:
        """Give the entry of every step."""
        return [entry for entry in self.entries if LOSS in entry]

    @property
    def validations(self) -> list[tuple[int, float]]:
        """Give step and loss of every validation."""
        return [
            (int(entry["step"]), entry[VALIDATION_LOSS]) for entry in self.entries if VALIDATION_LOSS in entry
        ]

    @property
    def halvings(self) -> list[tuple[int, int]]:
        """Give the steps at which memory was full, and the most examples at once from there on."""
        return [(int(entry["step"]), int(entry[ROWS])) for entry in self.entries if ROWS in entry]

    @property
    def best(self) -> tuple[int, float] | None:
        """Give step and loss of the best validation, the first of equals; None before any."""
        return min(self.validations, key=lambda validation: validation[1], default=None)

    @property
    def kept(self) -> int:
        """Give the step whose adapter is kept: of the best validation, else the last."""
        return self.best[0] if self.best else len(self.steps)

    @property
    def since_best(self) -> int:
        """Give the number of validations after the best one."""
        return sum(step > self.best[0] for step, _ in self.validations) if self.best else 0

    @property
    def seconds(self) -> float:
        """Give the seconds from the beginning to the last step, over all processes."""
        return self.steps[-1][SECONDS] if self.steps else 0.0

    @property
    def loss(self) -> float:
        """Give the mean loss per token of the last tenth of the steps to the kept adapter, at least ten."""
        return self._late_mean(LOSS, COMPLETION_TOKENS)

    def _late_mean(self, name: str, tokens: str) -> float:
        """Give the mean of a number over those steps, weighted by tokens; NaN where there are none."""
        last = self.steps[: self.kept][-max(LAST_STEPS, math.ceil(LAST_SHARE * self.kept)) :]
        known = [entry for entry in last if name in entry and entry.get(tokens)]
        if not known:
            return math.nan
        return float(np.average([entry[name] for entry in known], weights=[entry[tokens] for entry in known]))

    def total(self, name: str) -> float:
        """Add up a number of every step."""
        return float(sum(entry[name] for entry in self.steps))

    def summary(self) -> dict[str, float]:
        """Give the training's numbers for the store; what each means is told in docs/store.md."""
        numbers = {
            "train_loss": self.loss,
            "train_steps": float(len(self.steps)),
            "train_steps_skipped": float(sum(not math.isfinite(entry["grad_norm"]) for entry in self.steps)),
            "train_tokens": self.total(TOKENS),
            "completion_tokens": self.total(COMPLETION_TOKENS),
        }
        means = {
            f"train_{name}": self._late_mean(name, f"{segment}_tokens")
            for name, (segment, *_) in SEGMENT_MEANS.items()
        }
        numbers |= {name: mean for name, mean in means.items() if not math.isnan(mean)}
        if self.best:
            numbers |= {"kept_step": float(self.kept), "validation_loss": self.best[1]}
        return numbers

    def curves(self) -> dict[str, np.ndarray]:
        """Give the loss, also by segment, learning rate and gradient norm of every step, float32 [steps]."""
        return {
            name: np.array([entry.get(name, math.nan) for entry in self.steps], np.float32)
            for name in (LOSS, *SEGMENT_MEANS, "learning_rate", "grad_norm")
        }


def curves_family(steps: int) -> Family:
    """Give the store's layout of the training curves of a run of so many steps."""
    return Family(
        stage="train",
        coordinates=(Coordinate("step", "step", list(range(1, steps + 1)), long_name="optimiser step"),),
        variables=(
            Variable("loss", ("step",), "float32", "nat", "objective over the completion's tokens"),
            *(
                Variable(name, ("step",), "float32", unit, meaning)
                for name, (_, unit, meaning) in SEGMENT_MEANS.items()
            ),
            Variable("learning_rate", ("step",), "float32", "1", "learning rate"),
            Variable("grad_norm", ("step",), "float32", "1", "norm of the gradient before clipping"),
        ),
    )
