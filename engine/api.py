"""The engine from Python: plan, execute and status of a study, and the trained model of any cell."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from attrs import evolve, frozen

from engine.planning.from_spec import plan_from_spec
from engine.planning.levels import Wanted, describe, has_levels, known_levels, named_levels
from engine.planning.plan import Plan, PlannedCell
from engine.planning.recorded_cells import one_training, recorded_cell
from specs.toml.paths import no_such
from store import Ledger, StoreError, cells, read_manifests
from store.backend.locate import place_of
from store.backend.location import Place, Root
from store.ledger.manifests import key_states, with_status
from store.ledger.overview import overview
from store.ledger.version import check_store

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from engine.running.display import Display
    from engine.running.outcome import Outcome


@frozen
class CellStatus:
    """How far one cell of an experiment has come."""

    experiment: str
    levels: dict[str, Any]
    """Factor → level; None where a factor does not apply."""
    stages: dict[str, str]
    """Stage → done, running, failed or pending."""
    errors: dict[str, str]
    """Stage → what the failed one said."""

    @property
    def done(self) -> bool:
        """Whether all stages are done, so that `open_store` shows the cell."""
        return set(self.stages.values()) == {"done"}

    @property
    def state(self) -> str:
        """The state of the whole cell: that of its stages which is furthest from done."""
        states = {*self.stages.values()}
        return next(state for state in ("failed", "running", "pending", "done") if state in states)

    @property
    def told(self) -> str:
        """The state of each stage, and what a failed one said, on a line."""
        return ", ".join(
            " ".join(filter(None, [stage, state, self.errors.get(stage)]))
            for stage, state in self.stages.items()
        )


class LoadedModel(NamedTuple):
    """A model with the adapter of one cell, and its tokenizer."""

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase


class Statuses(list[CellStatus]):
    """How far the cells of experiments have come: a list that a notebook shows as a table."""

    def __init__(self) -> None:
        super().__init__()
        self.data_failures: dict[str, list[tuple[str, str]]] = {}
        """Experiment → a cell whose data could not be prepared, and why; others may share the data."""

    def _repr_html_(self) -> str:
        from engine.planning.plan_html import failure_table, state_matrix
        from specs.common.markup import element

        parts = []
        for name in dict.fromkeys(cell.experiment for cell in self):
            cells = [cell for cell in self if cell.experiment == name]
            rows = ((cell.levels, cell.state, cell.told) for cell in cells)
            failures = [(cell, "data", error) for cell, error in self.data_failures.get(name, [])]
            failures += [
                (describe(cell.levels), stage, error)
                for cell in cells
                for stage, error in cell.errors.items()
            ]
            told = [failure_table(failures)] if failures else []
            parts.append(element("div", element("p", element("b", name)), state_matrix(rows), *told))
        return element("div", *parts)


def plan(spec: str | Path, overrides: Sequence[str] = (), *, store: Root | None = None) -> Plan:
    """Give the plan of a spec: its cells, their stage keys, and what of them is done.

    Args:
        spec: the TOML file.
        overrides: `KEY=VALUE`, as `--set` takes them, or "--unset KEY".
        store: folder or URL of the store; by default the spec's own.

    Raises:
        SpecError: all that is wrong with the spec, also by what the files on this machine tell.
    """
    from engine.planning.checks import check_plan

    if not isinstance(spec, (str, Path)):
        raise TypeError(f"plan: expected the path of a spec, found a {type(spec).__name__}")
    settings = [overrides] if isinstance(overrides, str) else overrides
    planned = plan_from_spec(spec, settings, store)
    check_plan(planned)
    return planned


def choose(planned: Plan, only: Wanted, option: str = "only") -> list[PlannedCell]:
    """Give the cells of a plan on the named levels; UsageError for a factor or a level that there is not."""
    known = known_levels(map(planned.levels, planned.cells))
    named = named_levels(only, known, option)
    return [cell for cell in planned.cells if has_levels(planned.levels(cell), named)]


def due(planned: Plan, chosen: Sequence[PlannedCell], *, retry_failed: bool = False) -> list[PlannedCell]:
    """Give those of the chosen cells that an execution would run."""
    states = {"pending", "running"} | ({"failed"} if retry_failed else set())
    return [cell for cell in chosen if planned.state(cell) in states]


def execute(
    spec: str | Path | Plan,
    overrides: Sequence[str] = (),
    *,
    store: Root | None = None,
    only: Wanted | None = None,
    max_cells: int | None = None,
    fail_fast: bool = False,
    retry_failed: bool = False,
    wait: bool = True,
    executor: str | None = None,
    workers: int | None = None,
    ignore_space: bool = False,
    display: Display | None = None,
) -> Outcome:
    """Run what is pending of a spec or a plan, and give what was done; results go to the store.

    Stages that fail are recorded in the outcome and in the store, and raise nothing. Ctrl-C raises
    Interrupted when all that is done is safe.

    Args:
        spec: the TOML file, or what `plan` gives.
        overrides: `KEY=VALUE`, as `--set` takes them, or "--unset KEY".
        store: folder or URL of the store; by default the spec's own.
        only: factor → level or list of levels; or text such as "target=label,seed=0,1", or texts.
        max_cells: run at most so many cells.
        fail_fast: end after the first failed stage.
        retry_failed: run failed stages again.
        wait: for what other processes are running.
        executor: "local", "ray", "slurm", or that of a plug-in.
        workers: processes, or with "ray" and "slurm" units of work at a time; by default as the spec says.
        ignore_space: do not ask whether the disk has room.
        display: is told of every stage as it begins, ends or fails; by default nobody, and in a notebook an
            output of the cell.
    """
    from engine.running.outcome_html import NotebookDisplay, import_tqdm, in_notebook

    import_tqdm()
    from engine.progress import stop_on_signal
    from engine.running.display import Display
    from engine.running.execution import request_for, run_plan
    from engine.running.manifest import note_plan
    from engine.running.outcome import Outcome
    from engine.running.time_left import TimeLeft

    planned = spec if isinstance(spec, Plan) else plan(spec, overrides, store=store)
    chosen = choose(planned, only or {})
    pending = due(planned, chosen, retry_failed=retry_failed)[:max_cells]
    request, to_warn = request_for(
        planned,
        pending,
        executor=executor,
        workers=workers,
        fail_fast=fail_fast,
        retry_failed=retry_failed,
        wait=wait,
        ignore_space=ignore_space,
    )
    if not pending:
        note_plan(planned)
        # Without retry_failed, what failed before is not pending either.
        stages = {
            (stage, cell.keys[stage])
            for cell in chosen
            for stage, state in planned.stage_states(cell).items()
            if state == "failed"
        }
        return Outcome(left_failed=len(stages))
    for warning in to_warn:
        warnings.warn(warning, stacklevel=2)
    left = TimeLeft.of(planned, pending, request.executor, retry_failed=retry_failed)
    shown = display or (NotebookDisplay(planned, left) if in_notebook() else Display())
    with stop_on_signal() as stop:
        return run_plan(planned, pending, request, shown, stop)


def status(store: Root | Plan, experiment: str | None = None) -> Statuses:
    """Give how far every cell of a store's experiments has come.

    Args:
        store: folder or URL of the store; or a spec's TOML file, or what `plan` gives: then it is the store
            and the experiment of that, and the cells are its own, whatever was executed last.
        experiment: this experiment alone.

    Raises:
        StoreError: for a store that is not there, or an unknown experiment.
    """
    root, experiment, planned = _results("status", store, experiment)
    place = overview(root, experiment)
    check_store(place)
    ledger = Ledger(place)
    statuses = Statuses()
    manifests = read_manifests(place)
    for name in [experiment] if experiment is not None else manifests:
        listed, data = cells(place, name), manifests[name].get("data", ())
        if planned is not None:  # what the spec consists of, whatever was executed last
            listed, data = with_status(ledger, planned.listed()), planned.data_keys()
        states = key_states(ledger, "data", data)
        records = [ledger.record("data", key, "failed") for key, state in states.items() if state == "failed"]
        if records:
            told = [(describe(record["levels"]), str(record.get("error", ""))) for record in records]
            statuses.data_failures[name] = told
        for cell in listed:
            failed = [stage for stage, state in cell["status"].items() if state == "failed"]
            errors = {
                stage: str(ledger.record(stage, cell["keys"][stage], "failed").get("error", ""))
                for stage in failed
            }
            statuses.append(CellStatus(name, cell["levels"], cell["status"], errors))
    return statuses


def _results(asked: str, store: Root | Plan, experiment: str | None) -> tuple[Root, str | None, Plan | None]:
    """Give the store that is named by itself, a spec or a plan, and of these their experiment and plan."""
    if isinstance(store, (str, Path)) and str(store).endswith(".toml") and Path(store).is_file():
        store = plan_from_spec(store, (), None)
    if isinstance(store, Plan):
        return store.root, store.matrix.experiment.name, store
    if not isinstance(store, (str, PathLike, Place)):
        kind = type(store).__name__
        raise TypeError(f"{asked}: expected the folder or URL of a store, or a spec, found a {kind}")
    place = place_of(store)
    if not place.distant and not Path(str(place)).is_dir():
        raise StoreError(f"{asked}: {no_such(str(store), 'spec or store')}")
    return store, experiment, None


def load_adapter(
    store: Root | Plan, cell: Wanted, *, experiment: str | None = None, model: str | None = None
) -> LoadedModel:
    """Load the base model with the adapter of one trained cell, in evaluation mode.

    Args:
        store: folder or URL of the store; or a spec's TOML file, or what `plan` gives: then it is the store
            and the experiment of that.
        cell: factor → level, as many as single out one training, or as text: "target=label, seed=0"; the
            adapter is checked against its record.
        experiment: the experiment that has the cell; by default any.
        model: the base model, where it lies elsewhere by now.

    Raises:
        UsageError: for levels that are not there or not single.
        StoreError: for a store that is not there, or a training that is not done.
    """
    root, experiment, _ = _results("load_adapter", store, experiment)
    place = place_of(root)
    check_store(place)
    from engine.running.outcome_html import import_tqdm

    import_tqdm()
    from engine.models.loading import load
    from engine.stages.training.files import check_adapter
    from engine.stages.training.files import load_adapter as put_on

    name, key, levels = one_training(place, cell, experiment)
    record = Ledger(place).record("train", key)
    matrix, choice = recorded_cell(read_manifests(place)[name]["spec"], levels)
    settings = matrix.table("model", choice)
    home = place.under(f"train/{key}")
    trained = bool(record.get("files"))  # else of no steps: the base model itself
    if trained:
        check_adapter(home, record["files"])
    settings = evolve(settings, id=model or (_base_of(home) if trained else settings.id))
    base, tokenizer = load(settings)
    return LoadedModel(put_on(base, home) if trained else base, tokenizer)


def _base_of(home: Place) -> str:
    """Give what an adapter says that it was trained on: a hub id, or the folder or file of then."""
    import json

    from engine.stages.training.files import ADAPTER

    config = json.loads((home.local(ADAPTER) / "adapter_config.json").read_text("utf-8"))
    return str(config["base_model_name_or_path"])
