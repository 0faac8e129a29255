"""A training's files: its checkpoints while it runs, then its adapter, whole or not at all.

An adapter is never written over. Of several owners of one training (a process that was taken for dead can
come back) the first to save is the one whose adapter, summary and curves all later stages see.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from attrs import field, frozen

from engine.errors import DamagedAdapterError
from engine.models.causal_lm import AdaptedLm, CausalLm
from engine.stages.training.trackers import keep_logs
from specs.common.whole_files import PARTIAL, partial_of
from store.backend.location import Place
from store.backend.result_files import file_trouble
from store.errors import DamagedError

ADAPTER = "adapter"  # its name in a training's folder
_WEIGHTS = "adapter_model.safetensors"
_TRAINED = "training.json"  # in the adapter's folder, so that one rename makes both whole


@frozen
class Trained:
    """What the train stage leaves beside the adapter."""

    summary: dict[str, float]
    curves: dict[str, np.ndarray]  # each [steps]
    modules: list[str] = field(factory=list)  # names of those that are trained, under an adapter or in full
    passes: dict[str, Any] = field(factory=dict)  # how batches went through the model
    planned: int = 0  # steps, had it not stopped early; 0 where that was not noted


def save_adapter(model: AdaptedLm, trained: Trained, home: Place) -> bool:
    """Save an adapter as safetensors as `adapter` of `home`, keep the logs, and drop the checkpoints.

    False, changing nothing, when another owner of this training has saved its own first.
    """
    folder = home.scratch()
    partial = partial_of(folder / ADAPTER)
    model.save_pretrained(str(partial))
    curves = {name: values.tolist() for name, values in trained.curves.items()}
    content: dict[str, Any] = {"summary": trained.summary, "curves": curves, "modules": trained.modules}
    content["passes"] = trained.passes
    content["planned_steps"] = trained.planned
    (partial / _TRAINED).write_text(json.dumps(content), "utf-8")
    publish_kept(home)
    keep_logs(home)
    if saved_training(home) is None:  # damaged, or written before trainings were saved with adapters
        home.put_aside(ADAPTER)
    if not home.publish(partial, ADAPTER):
        return False
    _sweep(home)
    return True


def publish_kept(home: Place, *, last: bool = False) -> None:
    """Move the adapters that were kept beside the checkpoints of `home` to their place in the store.

    last: drop the checkpoints then.
    """
    for file in sorted(home.scratch().glob(f"checkpoints*/{ADAPTER}-*.safetensors"), reverse=True):
        home.publish(file, file.name)
    if last:
        _sweep(home)


def _sweep(home: Place) -> None:
    """Drop what a training that has ended has left of itself on this machine."""
    folder = home.scratch()
    for left in (*folder.glob("checkpoints*"), *folder.glob(f"{ADAPTER}.*{PARTIAL}")):
        shutil.rmtree(left, ignore_errors=True)


def saved_training(home: Place) -> Trained | None:
    """Give what was saved with the adapter of `home`; None where there is none."""
    try:
        content = json.loads((home.local(ADAPTER) / _TRAINED).read_text("utf-8"))
    except (FileNotFoundError, DamagedError, ValueError):
        return None
    curves = {name: np.array(values, np.float32) for name, values in content["curves"].items()}
    return Trained(
        content["summary"], curves, content.get("modules", []), content.get("passes", {}),
        content.get("planned_steps", 0),
    )  # fmt: skip


def load_adapter(model: CausalLm, home: Place, name: str = "default") -> AdaptedLm:
    """Put the saved adapter of `home` on a base model, or beside the adapter that a model has.

    To be used within `as_it_was`, also where it raises: DamagedAdapterError where it cannot be read.
    """
    from peft import PeftModel

    from engine.stages.training.adapter import keep_float32, quiet

    folder = _readable(home)  # before the base model is touched
    with quiet():
        if isinstance(model, PeftModel):
            adapted: AdaptedLm = model
            adapted.load_adapter(str(folder), adapter_name=name)
        else:
            adapted = PeftModel.from_pretrained(model, str(folder), adapter_name=name)
        if keep_float32(adapted, name):  # what was rounded when it was read
            adapted.load_adapter(str(folder), adapter_name=name)
    return adapted.eval()


def check_adapter(home: Place, recorded: Mapping[str, Any]) -> None:
    """Raise DamagedAdapterError where an adapter's files are not those that the done record names."""
    folder = _readable(home)
    files = {name: known for name, known in recorded.items() if name.startswith(f"{ADAPTER}/")}
    for name, known in files.items():
        file = folder.joinpath(*PurePosixPath(name).parts[1:])  # `folder` may have another name here
        if trouble := file_trouble(file, known):
            raise DamagedAdapterError(f"{home}/{name}: {trouble}")


def _readable(home: Place) -> Path:
    """Give the folder of a saved adapter on this machine; DamagedAdapterError where it cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        folder = home.local(ADAPTER)
        with safe_open(folder / _WEIGHTS, "pt"):
            return folder
    except (SafetensorError, OSError, DamagedError) as error:
        message = f"{home}/{ADAPTER}/{_WEIGHTS}: not a whole safetensors file: {error}"
        raise DamagedAdapterError(message) from error


def checkpoint_folder(folder: Path, *, fenced: bool) -> Path:
    """Give the folder for checkpoints: the newest one, or a new one where another process may write there."""
    numbers = [int(path.name.partition("-")[2] or 0) for path in folder.glob("checkpoints*")]
    number = max(numbers, default=0) + fenced
    return folder / (f"checkpoints-{number}" if number else "checkpoints")


def newest_checkpoint(folder: Path) -> str | None:
    """Give the checkpoint of most steps that is whole, from any of the folders."""
    checkpoints = sorted(
        folder.glob("checkpoints*/checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True
    )
    return next((str(path) for path in checkpoints if _whole(path)), None)


def _whole(checkpoint: Path) -> bool:
    """Tell whether a checkpoint is whole: the Trainer writes its state file last."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return True
