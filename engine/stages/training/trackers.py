"""Where trackers (TensorBoard, Weights & Biases, …) leave their files: in the training's own folder."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import UsageError
from specs.common.spelling import nearest
from store.backend.location import Place

LOGS = "logs"  # their name in a training's folder
# The variables that tell trackers where to write; what a person has set stays.
FOLDERS = ("TENSORBOARD_LOGGING_DIR", "WANDB_DIR")


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


@contextmanager
def logging_to(folder: Path, trackers: Iterable[str]) -> Iterator[None]:
    """Have the trackers write to `folder`, where the environment names no other place."""
    unset = [name for name in FOLDERS if name not in os.environ] if list(trackers) else []
    if unset:
        folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(dict.fromkeys(unset, str(folder)))
    try:
        yield
    finally:
        for name in unset:
            os.environ.pop(name, None)


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
