"""The results of a cell in the run of its tracker, beside the training's curves, once the cell is whole."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from attrs import field, frozen

from engine.errors import told
from engine.planning.plan import Plan, PlannedCell
from engine.planning.recorded_cells import select_cells
from engine.running.display import Display, Relay
from engine.stages.training.tracker_runs import TAG, TrackerRun, variables
from engine.stages.training.trackers import BOARD, LOGS, board_folder
from store import open_store
from store.analysis.nodes import first_lens


@frozen
class Results:
    """The numbers of one cell: single ones by name, and means over examples by layer."""

    numbers: dict[str, float]
    by_layer: dict[str, dict[int, float]] = field(factory=dict)


class TrackedDisplay(Relay):
    """Passes everything on to another display, and tells trackers of each cell that becomes whole."""

    def __init__(self, display: Display, plan: Plan) -> None:
        super().__init__(display)
        self._plan = plan
        self._waiting = {
            cell.index: (cell, names, lacking)
            for cell in plan.cells
            if (names := plan.matrix.table("train", cell.choice).report_to)
            and (lacking := self._lacking(cell))
        }

    def done(self, cell: PlannedCell, stage: str, summary: dict[str, float]) -> None:
        """Tell trackers of the cells of which this was the last stage."""
        super().done(cell, stage, summary)
        ended = (stage, cell.keys[stage])
        for other, names, lacking in list(self._waiting.values()):
            if lacking == {ended}:
                del self._waiting[other.index]
                _tell(self._plan, other, names)
            lacking.discard(ended)

    def _lacking(self, cell: PlannedCell) -> set[tuple[str, str]]:
        """Give the stages behind the data that are not done yet, with their keys."""
        return {
            (stage, key)
            for stage, key in cell.keys.items()
            if stage not in ("data", "test_data") and self._plan.states[stage][key] != "cached"
        }


def tracked(plan: Plan, display: Display) -> Display:
    """Give a display that tells trackers, too, where a cell's settings name any."""
    named = any(plan.matrix.table("train", cell).report_to for cell in plan.matrix.distinct("train"))
    return TrackedDisplay(display, plan) if named else display


def _tell(plan: Plan, cell: PlannedCell, names: list[str]) -> None:
    """Write a whole cell's results to each tracker; what fails there fails no cell."""
    run = TrackerRun.of(plan, cell)
    try:
        results = _results(plan, cell)
    except Exception as error:
        warnings.warn(f"trackers: {run.name} was not read: {told_by(error)}", stacklevel=2)
        return
    for name in names:
        if (write := WRITERS.get(name)) is None:
            continue
        try:
            with variables(run.environment):
                write(run, results, Path(str(plan.root)) if not plan.root.distant else None)
        except Exception as error:
            warnings.warn(f"{name}: results of {run.name} were not written: {told_by(error)}", stacklevel=2)


def told_by(error: Exception) -> str:
    """Give an error in one line."""
    return told(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}".splitlines()[0]


def _results(plan: Plan, cell: PlannedCell) -> Results:
    name = plan.matrix.experiment.name
    node = select_cells(open_store(plan.root, name).children[name], plan.levels(cell))
    summary = node["summary"].to_dataset()
    numbers = {str(key): float(values.squeeze()) for key, values in summary.data_vars.items()}
    by_layer: dict[str, dict[int, float]] = {}
    if "probe" in node.children and node["probe"].data_vars:
        probe = first_lens(node["probe"].to_dataset())
        for key, values in probe.data_vars.items():
            if set(values.dims) != {"cell", "example", "layer", "position"} or values.dtype.kind != "f":
                continue
            means = values.mean(["cell", "example"])
            for position in means["position"].values:
                layers = means.sel(position=position)
                by_layer[f"probe/{key}/{position}"] = {
                    int(layer): float(value)
                    for layer, value in zip(layers["layer"].values, layers.values, strict=True)
                    if math.isfinite(value)
                }
    return Results({key: value for key, value in numbers.items() if math.isfinite(value)}, by_layer)


def _tensorboard(run: TrackerRun, results: Results, root: Path | None) -> None:
    from torch.utils.tensorboard import SummaryWriter

    place = board_folder(root and root / "train" / run.key / LOGS, run)
    if place is None:
        raise OSError(f"a store in a bucket: expected {BOARD}, a folder for them")
    with SummaryWriter(str(place)) as writer:
        for name, value in results.numbers.items():
            writer.add_scalar(f"results/{name}", value, 0)
        for name, layers in results.by_layer.items():
            for layer, value in layers.items():
                writer.add_scalar(name, value, layer)
        writer.add_text("cell", f"{run.experiment}: {run.name}")
        writer.add_text("condition", run.group)


def _wandb(run: TrackerRun, results: Results, root: Path | None) -> None:
    import wandb  # type: ignore[import-not-found]

    folder = os.environ.get("WANDB_DIR") or (root and str(root / "train" / run.key / LOGS))
    with wandb.init(dir=folder, config=dict(run.levels)) as opened:
        opened.define_metric("probe/layer")
        opened.define_metric("probe/*", step_metric="probe/layer")
        for layer in sorted({layer for layers in results.by_layer.values() for layer in layers}):
            means = {name: layers[layer] for name, layers in results.by_layer.items() if layer in layers}
            opened.log({"probe/layer": layer, **means})
        opened.summary.update({f"results/{name}": value for name, value in results.numbers.items()})


def _mlflow(run: TrackerRun, results: Results, root: Path | None) -> None:
    import mlflow  # type: ignore[import-not-found]

    experiment = mlflow.set_experiment(os.environ["MLFLOW_EXPERIMENT_NAME"])
    known = mlflow.search_runs(
        [experiment.experiment_id], f"tags.`{TAG}` = '{run.id}'", max_results=1, output_format="list"
    )
    tags = {TAG: run.id, "condition": run.group}
    with mlflow.start_run(
        known[0].info.run_id if known else None, run_name=None if known else run.name, tags=tags
    ):
        mlflow.log_params({name: str(level) for name, level in run.levels.items()})
        mlflow.log_metrics({f"results/{name}": value for name, value in results.numbers.items()})
        for name, layers in results.by_layer.items():
            for layer, value in layers.items():
                mlflow.log_metric(name, value, step=layer)


def _trackio(run: TrackerRun, results: Results, root: Path | None) -> None:
    import trackio  # type: ignore[import-not-found]

    trackio.init(
        project=run.experiment, name=run.name, group=run.group, config=dict(run.levels), resume="allow"
    )
    try:
        trackio.log({f"results/{name}": value for name, value in results.numbers.items()})
        for layer in sorted({layer for layers in results.by_layer.values() for layer in layers}):
            means = {name: layers[layer] for name, layers in results.by_layer.items() if layer in layers}
            trackio.log({"probe/layer": layer, **means}, step=layer)
    finally:
        trackio.finish()


WRITERS: Mapping[str, Callable[[TrackerRun, Results, Path | None], None]] = {
    "mlflow": _mlflow,
    "tensorboard": _tensorboard,
    "trackio": _trackio,
    "wandb": _wandb,
}
"""Trackers of the Trainer that are told of results, too."""
