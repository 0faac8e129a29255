"""Executing a plan: what is pending, in an order that loads each model once, one failure at a time."""

from __future__ import annotations

import contextlib
import gc
import traceback
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import Literal, TypeVar, cast, get_args

from attrs import define, field

from engine.errors import ChangedWeightsError, DoneElsewhereError, HeldElsewhereError, Interrupted
from engine.models.base_model import BaseModel, as_it_was
from engine.models.causal_lm import CausalLm
from engine.planning.levels import describe
from engine.planning.plan import Plan, PlannedCell, grouped
from engine.planning.training_groups import training_groups
from engine.progress import Report, StopRequest, silent
from engine.running.display import LOADING, Display
from engine.running.memory import failure
from engine.running.outcome import Options, Outcome
from engine.running.stage_ends import ChangedBaseError, FailFastError, HeldError, UnavailableError
from engine.stages.cell_stages import MEASURES, Stages
from engine.stages.checks import Checked
from engine.stages.training.together.side_by_side import Beside, side_by_side
from specs.common.names import UNTRAINED_STAGES
from store import LostClaimError

Result = TypeVar("Result")
CHECKED: tuple[Checked, ...] = get_args(Checked)  # those that can fail of what is known before the training


@define
class CellRunner:
    """Runs cells of a plan in this process. Between its runs it keeps the model that it loaded last."""

    plan: Plan
    stages: Stages
    options: Options
    display: Display
    stop: StopRequest
    outcome: Outcome = field(factory=Outcome)
    donated: Collection[str] = ()  # train keys that cells read which this process does not know
    _base: BaseModel | None = None
    _loaded: tuple[str, str] | None = None
    _given_up: set[str] = field(factory=set)  # keys of failed stages that are not tried again

    def run(self, cells: Iterable[PlannedCell], *, together: bool = True) -> Outcome:
        """Run all that is pending in these cells. Raises Interrupted after Ctrl-C.

        together: whether trainings may go side by side where the options say so.
        """
        self.outcome = Outcome()
        most = self.options.together if together else 1
        with contextlib.suppress(FailFastError):  # recorded in the outcome
            for group in training_groups(self.plan, cells, most):
                if len(group) > 1:
                    self._train_together(group)
                for same_training in group:
                    self.stop.check()
                    self._run_training(same_training)
        return self.outcome

    def prepare_data(self, cells: Iterable[PlannedCell]) -> Outcome:
        """Run the data stages alone."""
        self.outcome = Outcome()
        with contextlib.suppress(FailFastError):
            for cell, *_ in grouped(cells, lambda cell: (cell.keys["data"], cell.keys["test_data"])):
                self._refresh([cell])
                self._has_data(cell)
        return self.outcome

    def _run_training(self, cells: list[PlannedCell]) -> None:
        """Run the cells that share one training: train once, then evaluate and probe each of them."""
        ready = self._ready(cells)
        if not ready:
            return
        try:
            self._check_free(ready)
            due = self._is_due("train", ready[0].keys["train"])
            if due:
                self._check_training(ready[0])
            with self._lent_base(ready[0]) as base:
                for cell in ready:
                    for stage in UNTRAINED_STAGES:
                        self._measure(cell, stage, base.model, base)
                if due:
                    self._train(ready, base)
                self._keep_steps(ready[0], base)
                fitted = {cell.index: self._fit(cell, "base", base.model, base) for cell in ready}
                model = self._adapted(ready[0], base)
                for cell in ready:
                    self._measure(cell, "evaluate", model, base)
                    if reading := fitted[cell.index] and self._fit(cell, "trained", model, base):
                        self._measure(cell, "probe", model, base)
                    self.stages.kept.drop()
                    following = ["along"] * reading
                    for stage in ("neutral", "tasks", "inspect", *following):
                        self._measure(cell, stage, model, base)
                    compared = self._measure(cell, "differences", model, base)
                    if compared or not cell.steered:
                        self._measure(cell, "intervene", model, base)
        except ChangedBaseError:
            self._run_training(cells)  # what is left of it
        except UnavailableError:
            pass
        except HeldError:
            self.outcome.held += [cell.index for cell in ready]

    def _ready(self, cells: list[PlannedCell]) -> list[PlannedCell]:
        """Give those of some cells that are pending, and have their data."""
        self._refresh(cells)
        pending = [cell for cell in cells if self.plan.state(cell) != "cached"]
        return [cell for cell in pending if self._has_data(cell) and self.plan.state(cell) != "cached"]

    def _train_together(self, group: list[list[PlannedCell]]) -> None:
        """Do trainings side by side, as many at once as memory has room for."""
        due = [ready for cells in group if (ready := self._due_training(cells))]
        with contextlib.suppress(UnavailableError):  # the model cannot be loaded, or has changed
            while len(due) > 1:
                self.stop.check()
                with self._lent_base(due[0][0]) as base:
                    most = self.stages.fitting([cells[0] for cells in due], base)
                    if most > 1:
                        trainings = [partial(self._train_beside, cells, base) for cells in due[:most]]
                        side_by_side(base.model, trainings)
                due = due[most:]

    def _due_training(self, cells: list[PlannedCell]) -> list[PlannedCell]:
        """Give the cells of a training that can begin now; none where it cannot, or is done."""
        ready = self._ready(cells)
        with contextlib.suppress(UnavailableError, HeldError):
            key = ready[0].keys["train"] if ready else ""
            if ready and self._is_due("train", key) and self.stages.ledger.free("train", key):
                self._check_training(ready[0])
                return ready
        return []

    def _train_beside(self, cells: list[PlannedCell], base: BaseModel, beside: Beside) -> None:
        try:
            self._train(cells, base, beside)
        except ChangedBaseError:
            raise
        except (UnavailableError, HeldError):
            pass  # recorded; the others do not need this one

    def _check_training(self, cell: PlannedCell) -> None:
        check = partial(self.stages.check_training, cell)
        self._attempt(cell, "train", cell.keys["train"], lambda _: check(), recorded=False)

    def _has_data(self, cell: PlannedCell) -> bool:
        """Prepare the cell's data where that is due."""
        try:
            for name in ("data", "test_data"):
                if self._is_due("data", cell.keys[name]):
                    prepare = partial(self.stages.prepare_data, cell, test=name == "test_data")
                    with contextlib.suppress(DoneElsewhereError):
                        self._attempt(cell, "data", cell.keys[name], prepare)
        except UnavailableError:
            return False
        except HeldError:
            if cell.index not in self.outcome.held:
                self.outcome.held.append(cell.index)
            return False
        return True

    def _refresh(self, cells: list[PlannedCell]) -> None:
        """Learn what other processes have done of these cells since the plan was made."""
        for cell in cells:
            donors = [("train", donor) for donor in cell.donors]
            for name, key in [*cell.keys.items(), *donors]:
                stage = "data" if name == "test_data" else name
                states = self.plan.states[stage]
                if states.get(key) == "cached":
                    continue
                if self.stages.ledger.has(stage, key):
                    states[key] = "cached"
                elif self.stages.ledger.has(stage, key, "failed"):
                    states[key] = "failed"
                else:
                    states[key] = "pending"

    def _check_free(self, cells: list[PlannedCell]) -> None:
        """Raise HeldError, before a model is loaded for it, where no stage can run now."""
        key = cells[0].keys["train"]
        due = [("train", key)]
        if self.plan.states["train"][key] == "cached":
            measures = [(cell, s) for cell in cells for s in MEASURES if s in cell.keys]
            due = [
                (stage, cell.keys[stage])
                for cell, stage in measures
                if self.plan.states[stage][cell.keys[stage]] != "cached" and self._has_donors(cell, stage)
            ]
        free = [self.stages.ledger.free(stage, key) for stage, key in due]  # all, so that all are watched
        if not any(free):
            raise HeldError

    @contextlib.contextmanager
    def _lent_base(self, cell: PlannedCell) -> Iterator[BaseModel]:
        """Lend the cell's base model; behind the `with` block it is as it was loaded, or is loaded again."""
        base = self._attempt(cell, "train", cell.keys["train"], lambda _: self._load(cell), recorded=False)
        self._base = None  # until it has come back unchanged
        try:
            with as_it_was(base.model):
                yield base
        finally:
            if base.is_usable():
                self._base = base
            else:
                levels = describe(self.plan.levels(cell))
                message = f"{levels}: the weights of the base model changed meanwhile; it is loaded again"
                warnings.warn(message, stacklevel=2)

    def _train(self, cells: list[PlannedCell], base: BaseModel, beside: Beside | None = None) -> None:
        """Train the adapter that the cells share, beside others where it has a place there."""
        cell = cells[0]
        checked = [
            self._check(each, stage, base) for each in cells for stage in CHECKED if stage in each.keys
        ]
        taken_from = {donor for other in self.plan.cells for donor in other.donors} | {*self.donated}
        if not any(checked) and cell.keys["train"] not in taken_from:
            raise UnavailableError  # nothing that the training is for can run
        with contextlib.suppress(DoneElsewhereError):
            train = partial(self.stages.train, cell, base, beside=beside)
            self._attempt(cell, "train", cell.keys["train"], train)

    def _keep_steps(self, cell: PlannedCell, base: BaseModel) -> None:
        """Have the adapters along the cell's training that a stage needs, and that were not kept."""
        if self.plan.states["train"][cell.keys["train"]] == "cached" and (steps := self.stages.lacking(cell)):
            keep = partial(self.stages.keep, cell, base, steps)
            self._attempt(cell, "train", cell.keys["train"], keep, recorded=False)

    def _adapted(self, cell: PlannedCell, base: BaseModel) -> CausalLm:
        """Give the base model with the cell's adapter."""
        load = partial(self.stages.load, cell, base)
        return self._attempt(cell, "train", cell.keys["train"], lambda _: load(), recorded=False)

    def _check(self, cell: PlannedCell, stage: Checked, base: BaseModel) -> bool:
        """Find out before the training whether a stage behind it can run at all."""
        key = cell.keys[stage]
        if self.plan.states[stage][key] not in ("cached", "failed"):
            check = partial(self.stages.check, cell, stage, base)
            with contextlib.suppress(UnavailableError):
                self._attempt(cell, stage, key, lambda _: check(), recorded=False)
        return self.plan.states[stage][key] != "failed"

    def _has_donors(self, cell: PlannedCell, stage: str) -> bool:
        """Tell whether the adapters of other cells that a stage reads are trained."""
        return all(self.plan.states["train"][donor] == "cached" for donor in cell.donors_of(stage))

    def _measure(self, cell: PlannedCell, stage: str, model: CausalLm, base: BaseModel) -> bool:
        """Run a stage on the cell's model where it is due; tell whether what consumes its result can run."""
        try:
            if stage in cell.keys and self._is_due(stage, cell.keys[stage]):
                key = cell.keys[stage]
                if not self._has_donors(cell, stage):
                    self._wait_for_donors(cell, stage)
                self._attempt(cell, stage, key, partial(self.stages.measure, stage, cell, model, base))
        except DoneElsewhereError:
            pass
        except ChangedBaseError:
            raise
        except UnavailableError:
            return False  # recorded; the cell's other measurement does not need this one
        except HeldError:
            self.outcome.held.append(cell.index)
            return False
        return True

    def _fit(
        self, cell: PlannedCell, on: Literal["trained", "base"], model: CausalLm, base: BaseModel
    ) -> bool:
        """Fit the cell's lenses of one kind of model; tell whether what reads through them can run."""
        stages = self.stages.settings("probe", cell).fitted(on)
        return all(self._measure(cell, stage, model, base) for stage in stages)

    def _wait_for_donors(self, cell: PlannedCell, stage: str) -> None:
        """Leave a stage until its donors are trained; for good where one has failed."""
        self._refresh([cell])
        states = [self.plan.states["train"][donor] for donor in cell.donors_of(stage)]
        if "failed" in states:
            raise UnavailableError
        if set(states) != {"cached"}:
            raise HeldError

    def _load(self, cell: PlannedCell) -> BaseModel:
        wanted = self.plan.model(cell)
        kept = self._loaded == wanted and self._base is not None and self._base.is_usable()
        if self.stages.ranks.any(not kept) or self._base is None:
            self._base = None
            gc.collect()
            self.display.begin(cell, LOADING)
            try:
                self._base, self._loaded = self.stages.base(cell), wanted
            finally:
                self.display.left(cell, LOADING)
        return self._base

    def _is_due(self, stage: str, key: str) -> bool:
        """Tell whether a stage has to run now; one that failed raises, unless it is to be retried."""
        state = self.plan.states[stage][key]
        if state == "failed" and (key in self._given_up or not self.options.retry_failed):
            self.outcome.left_failed += key not in self._given_up
            self._given_up.add(key)
            raise UnavailableError
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
        if not recorded:
            return self._try(cell, stage, key, action, silent, recorded=False)
        report = self.display.begin(cell, stage)
        try:
            return self._try(cell, stage, key, action, report, recorded=True)
        finally:
            self.display.left(cell, stage)

    def _try(
        self,
        cell: PlannedCell,
        stage: str,
        key: str,
        action: Callable[[Report], Result],
        report: Report,
        *,
        recorded: bool,
    ) -> Result:
        ledger = self.stages.ledger
        try:
            result = self.stages.ranks.together(lambda: action(report))
        except (HeldElsewhereError, LostClaimError) as error:
            ledger.release(stage, key)
            raise HeldError from error
        except DoneElsewhereError:
            ledger.release(stage, key)
            self.plan.states[stage][key] = "cached"
            raise
        except Interrupted:
            ledger.release(stage, key)
            raise
        except Exception as error:
            if not recorded or not ledger.has(stage, key):
                self._record_failure(cell, stage, key, error)
                changed = isinstance(error, ChangedWeightsError)
                raise (ChangedBaseError if changed else UnavailableError) from error
            elsewhere = ledger.lost(stage, key)
            ledger.release(stage, key)
            if elsewhere:  # and it failed of what its taker has swept away
                self.plan.states[stage][key] = "cached"
                raise DoneElsewhereError(f"another process has done {stage} {key}") from error
            result = cast("Result", None)  # it was committed, and failed at what comes behind that
        except BaseException:  # this process is to end: others need not wait for it
            ledger.release(stage, key)
            raise
        if recorded:
            self.plan.states[stage][key] = "cached"
            record = ledger.record(stage, key)
            summary = {**record["summary"], "seconds": record["seconds"]}
            self.outcome.ran.append((cell.index, stage, summary))
            self.display.done(cell, stage, summary)
        return result

    def _record_failure(self, cell: PlannedCell, stage: str, key: str, error: Exception) -> None:
        if self.stages.ledger.has(stage, key):  # what has failed is the stage that its result was needed for
            due = (name for name in MEASURES if name in cell.keys)
            stage = next(name for name in due if self.plan.states[name][cell.keys[name]] != "cached")
            key = cell.keys[stage]
        message = failure(self.plan, cell, stage, error)
        record = {
            "error": message,
            "traceback": "".join(traceback.format_exception(error)),
            "levels": self.plan.levels(cell),
        }
        try:
            self.stages.ledger.fail(stage, key, record)
        except LostClaimError as lost:
            self.stages.ledger.release(stage, key)
            raise HeldError from lost
        self.plan.states[stage][key] = "failed"
        self._given_up.add(key)
        self.outcome.failed.append((cell.index, stage, message))
        self.display.failed(cell, stage, message)
        if self.options.fail_fast:
            raise FailFastError from error
