"""Executing a plan: what is pending, in an order that loads each model once, one failure at a time."""

from __future__ import annotations

import contextlib
import gc
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from attrs import define, field, frozen

from engine import models
from engine.errors import HeldElsewhereError, Interrupted
from engine.plan import Plan, PlannedCell, grouped
from engine.progress import Report, StopRequest, silent
from engine.stages import Stages
from engine.train import base_model_of
from specs.model import STAGES

Result = TypeVar("Result")


@frozen
class Options:
    """How to execute; nothing here changes a result."""

    fail_fast: bool = False
    retry_failed: bool = False
    max_cells: int | None = None


@define
class Outcome:
    """What an execution did."""

    ran: dict[str, int] = field(factory=lambda: dict.fromkeys(STAGES, 0))
    failed: list[tuple[PlannedCell, str, str]] = field(factory=list)  # cell, stage, message
    left_failed: int = 0  # stages that failed in an earlier execution and were not tried again
    held_elsewhere: int = 0  # stages that another live process is running


class Display:
    """What an execution says while it runs; this one says nothing."""

    def begin(self, cell: PlannedCell, stage: str) -> Report:
        """Say that a stage begins; give its progress report."""
        return silent

    def done(self, cell: PlannedCell, stage: str, summary: dict[str, float]) -> None:
        """Say that a stage is done."""

    def failed(self, cell: PlannedCell, stage: str, message: str) -> None:
        """Say that a stage failed."""


class _NotToBeHadError(Exception):
    """A stage has failed, now or before, so what consumes its result cannot run."""


class _FailFastError(Exception):
    """A stage has failed, and the person wants to stop at the first failure."""


@define
class Execution:
    """One execution of a plan."""

    plan: Plan
    stages: Stages
    options: Options
    display: Display
    stop: StopRequest
    outcome: Outcome = field(factory=Outcome)
    _prepared: dict[str, bool] = field(factory=dict)  # data key → whether it is there
    _base: Any = None
    _tokenizer: Any = None

    def run(self, cells: Iterable[PlannedCell]) -> Outcome:
        """Run all that is pending in these cells. Raises Interrupted after Ctrl-C."""
        pending = [cell for cell in cells if self.plan.state(cell) != "cached"][: self.options.max_cells]
        try:
            for same_model in grouped(pending, self._model_choice):
                for same_training in grouped(same_model, lambda cell: cell.keys["train"]):
                    self.stop.check()
                    self._run_training(same_training)
                self._base = self._tokenizer = None
                gc.collect()
        except _FailFastError:
            pass  # recorded in the outcome
        return self.outcome

    def _model_choice(self, cell: PlannedCell) -> tuple[int, ...]:
        choice: tuple[int, ...] = self.plan.matrix.choice("model", cell.choice)
        return choice

    def _run_training(self, cells: list[PlannedCell]) -> None:
        """Run the cells that share one training: train once, then evaluate and probe each of them."""
        model = None
        try:
            ready = [cell for cell in cells if self._has_data(cell)]
            if not ready:
                return
            model = self._adapted(ready)
            for cell in ready:
                self._measure(cell, "evaluate", self.stages.evaluate, model)
                self._measure(cell, "probe", self.stages.probe, model)
        except _NotToBeHadError:
            pass
        finally:
            if model is not None:
                self._base = base_model_of(model)

    def _has_data(self, cell: PlannedCell) -> bool:
        """Prepare the cell's data where that is due; each data set is tried once in an execution."""
        for name in ("data", "test_data"):
            key = cell.keys[name]
            if key not in self._prepared:
                self._prepared[key] = False
                with contextlib.suppress(_NotToBeHadError):
                    if self._is_due("data", key):
                        prepare = partial(self.stages.prepare_data, cell, test=name == "test_data")
                        self._attempt(cell, "data", key, prepare)
                    self._prepared[key] = True
        return self._prepared[cell.keys["data"]] and self._prepared[cell.keys["test_data"]]

    def _adapted(self, cells: list[PlannedCell]) -> Any:
        """Give the trained model of the cells, which share it."""
        cell, key = cells[0], cells[0].keys["train"]
        due = self._is_due("train", key)
        base = self._attempt(cell, "train", key, lambda _: self._load(cell), recorded=False)
        if not due:
            return self._attempt(cell, "train", key, lambda _: self.stages.load(cell, base), recorded=False)
        for each in cells:
            self._check_probe(each, base)
        return self._attempt(
            cell, "train", key, lambda report: self.stages.train(cell, base, self._tokenizer, report)
        )

    def _check_probe(self, cell: PlannedCell, base: Any) -> None:
        """Find out before the training whether the probe behind it can run at all."""
        if "probe" in cell.keys and self.plan.states["probe"][cell.keys["probe"]] not in ("cached", "failed"):
            with contextlib.suppress(_NotToBeHadError):
                check = partial(self.stages.check_probe, cell, base)
                self._attempt(cell, "probe", cell.keys["probe"], lambda _: check(), recorded=False)

    def _measure(self, cell: PlannedCell, stage: str, run: Callable[..., None], model: Any) -> None:
        try:
            if stage in cell.keys and self._is_due(stage, cell.keys[stage]):
                key = cell.keys[stage]
                self._attempt(cell, stage, key, lambda report: run(cell, model, self._tokenizer, report))
        except _NotToBeHadError:
            pass  # recorded; the cell's other measurement does not need this one

    def _load(self, cell: PlannedCell) -> Any:
        if self._base is None:
            self._base, self._tokenizer = models.load(self.stages.settings("model", cell))
        return self._base

    def _is_due(self, stage: str, key: str) -> bool:
        """Tell whether a stage has to run now; one that failed raises, unless it is to be retried."""
        state = self.plan.states[stage][key]
        if state == "failed" and not self.options.retry_failed:
            self.outcome.left_failed += 1
            raise _NotToBeHadError
        return state != "cached"

    def _attempt(
        self,
        cell: PlannedCell,
        stage: str,
        key: str,
        action: Callable[[Report], Result],
        *,
        recorded: bool = True,
    ) -> Result:
        """Run one stage, or (not `recorded` when it succeeds) what comes before it.

        A failure is recorded either way, with its traceback, and never stops other cells.
        """
        report = self.display.begin(cell, stage) if recorded else silent
        try:
            result = action(report)
        except (Interrupted, KeyboardInterrupt):
            raise
        except HeldElsewhereError as error:
            self.outcome.held_elsewhere += 1
            raise _NotToBeHadError from error
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            levels = self.plan.levels(cell)
            self.stages.ledger.fail(
                stage, key, {"error": message, "traceback": traceback.format_exc(), "levels": levels}
            )
            self.plan.states[stage][key] = "failed"
            self.outcome.failed.append((cell, stage, message))
            self.display.failed(cell, stage, message)
            if self.options.fail_fast:
                raise _FailFastError from error
            raise _NotToBeHadError from error
        if recorded:
            self.plan.states[stage][key] = "cached"
            self.outcome.ran[stage] += 1
            record = self.stages.ledger.record(stage, key)
            self.display.done(cell, stage, {**record["summary"], "seconds": record["seconds"]})
        return result
