"""Where trackers (TensorBoard, Weights & Biases, …) leave their files: in the training's own folder."""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import UsageError
from engine.stages.training.tracker_runs import RUN_VARIABLES, TrackerRun, variables
from specs.common.spelling import nearest
from store.backend.location import Place

LOGS = "logs"  # their name in a training's folder
# The variables that tell trackers where to write; what a person has set stays.
BOARD = "TENSORBOARD_LOGGING_DIR"
FOLDERS = (BOARD, "WANDB_DIR")
VARIABLES = (*FOLDERS, *RUN_VARIABLES)  # all that a training sets for its trackers


def check_trackers(names: Iterable[str]) -> None:
    """Raise UsageError for a tracker that transformers does not know, or whose package is not installed."""
    from transformers.integrations import get_available_reporting_integrations

    installed = get_available_reporting_integrations()
    for name in names:
        if name not in installed:
            near = nearest(name, installed)
            hint = f'; did you mean "{near}"?' if near else ""
            raise UsageError(
                f'train.report_to: found "{name}", which is no tracker that is installed here; '
                f"expected one of these: {', '.join(installed) or 'none is installed'}{hint}"
            )


def board_folder(default: Path | None, run: TrackerRun | None) -> Path | None:
    """Give where TensorBoard has a run: in a person's own folder, else in the default one."""
    own = os.environ.get(BOARD)
    place = Path(own).expanduser() if own else default
    return place / run.folder if place is not None and run is not None else place


@contextmanager
def logging_to(folder: Path, trackers: Iterable[str], run: TrackerRun | None = None) -> Iterator[None]:
    """Have the trackers write to `folder`, as this run, where the environment names no other place or run."""
    names = list(trackers)
    wanted = dict.fromkeys(FOLDERS, str(folder)) | (run.environment if run else {}) if names else {}
    if any(name not in os.environ for name in FOLDERS if names):
        folder.mkdir(parents=True, exist_ok=True)
    board, own = board_folder(folder, run), os.environ.get(BOARD)
    with variables(wanted):
        if names:  # for TensorBoard takes the name of a run from its folder
            os.environ[BOARD] = str(board)
        try:
            yield
        finally:
            if "wandb" in names and "wandb" in sys.modules:  # else the next training goes on in this run
                sys.modules["wandb"].finish()
            if names and own is not None:
                os.environ[BOARD] = own


def keep_logs(home: Place) -> None:
    """Keep in the store what trackers have written; some write beside the checkpoints, which go."""
    folder = home.scratch()
    logs = folder / LOGS
    for file in folder.glob("checkpoints*/*"):
        if not file.name.startswith("checkpoint-"):
            logs.mkdir(exist_ok=True)
            taken = (logs / file.name).exists()
            shutil.move(file, logs / (f"{file.name}-{uuid.uuid4().hex}" if taken else file.name))
    if logs.is_dir():
        if any(logs.iterdir()):
            home.publish(logs, LOGS)
        else:
            logs.rmdir()
