"""How a cell is called by trackers: one run for its training curves and its results, grouped by condition."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

from engine.planning.identities import digest
from engine.planning.levels import describe
from engine.planning.plan import Plan, PlannedCell

TAG = "ablation.run"  # by which MLflow finds a run again
RUN_VARIABLES = (
    "WANDB_PROJECT", "WANDB_RUN_ID", "WANDB_RESUME", "WANDB_NAME", "WANDB_RUN_GROUP",
    "MLFLOW_EXPERIMENT_NAME", "MLFLOW_TAGS",
)  # fmt: skip

_UNFIT = re.compile(r"[^\w=.,+() -]")  # for the name of a folder


@frozen
class TrackerRun:
    """The run of one cell; where cells share a training, its curves are in the run of the first of them."""

    experiment: str
    levels: Mapping[str, Any]
    key: str  # of the training

    @staticmethod
    def of(plan: Plan, cell: PlannedCell) -> TrackerRun:
        """Give the run of a plan's cell."""
        return TrackerRun(plan.matrix.experiment.name, plan.levels(cell), cell.keys["train"])

    @property
    def id(self) -> str:
        """The same for a cell and a training, wherever it runs."""
        return digest([self.experiment, dict(self.levels), self.key])[:16]

    @property
    def name(self) -> str:
        """The cell's levels, and what tells trainings of a cell under other settings apart."""
        return f"{describe(dict(self.levels))} ({self.id[:6]})"

    @property
    def group(self) -> str:
        """The levels of the condition, without the seed."""
        return describe({factor: level for factor, level in self.levels.items() if factor != "seed"})

    @property
    def folder(self) -> Path:
        """Where TensorBoard has the run, which is its name there: experiment, condition, cell."""
        seed = describe({factor: level for factor, level in self.levels.items() if factor == "seed"})
        cell = f"{seed or 'cell'} ({self.id[:6]})"
        return Path(
            *(
                _UNFIT.sub("_", part)[:100].strip(". ")
                for part in (self.experiment, self.group or "all", cell)
            )
        )

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which trackers know the run; what a person has set stays."""
        tags = json.dumps({TAG: self.id, "condition": self.group})
        values = (self.experiment, self.id, "allow", self.name, self.group, self.experiment, tags)
        return dict(zip(RUN_VARIABLES, values, strict=True))


@contextmanager
def variables(wanted: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment that are not set, until the block ends."""
    unset = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(unset)
    try:
        yield
    finally:
        for name in unset:
            os.environ.pop(name, None)
