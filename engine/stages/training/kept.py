"""Adapters kept along a training, for `probe.at`: after which steps, saved, found again, and put to use.

They are files beside the final adapter, `adapter-STEP.safetensors`, with peft's names of the weights. Until
the training ends they lie beside its checkpoints on this machine, so a training that goes on from a
checkpoint has those of the steps before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import define, frozen
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback

from engine.models.causal_lm import AdaptedLm
from engine.process_group.alone import ProcessGroup
from engine.stages.training.files import ADAPTER, Trained
from specs.common.whole_files import partial_of
from store.backend.location import Place
from store.backend.result_files import file_trouble
from store.errors import DamagedError

# From the planned steps of a training to those whose adapters it keeps.
Keep = Callable[[int], Collection[int]]


def nothing(_planned: int) -> Collection[int]:
    """Keep no adapter but the final one."""
    return ()


def step_of(value: float, planned: int) -> int | None:
    """Give the step that an entry of `probe.at` means: a whole number itself, a share rounded up.

    None: the end, the share 1.
    """
    if isinstance(value, int):
        return value
    return None if value == 1 else math.ceil(round(value * planned, 6))


def kept_steps(at: Collection[float], planned: int, *, early_stopping: bool) -> set[int]:
    """Give the steps whose adapters `probe.at` needs beside the final one.

    With early stopping the final adapter may be another than that of the last step.
    """
    steps = {step for value in at if (step := step_of(value, planned)) is not None}
    return {step for step in steps if 0 < step < planned + early_stopping}


@frozen
class Measured:
    """A model along a training: after which step, and where its adapter is."""

    step: int
    kept: bool = False
    """Whether it is one of those beside the final adapter."""


def measured_adapters(at: Sequence[float], trained: Trained, *, early_stopping: bool) -> list[Measured]:
    """Give what each entry of `probe.at` means for a training that has ended.

    Step 0 is the model without adapter. A step behind the end shows the final adapter.
    """
    done = len(trained.curves["loss"])
    final = Measured(int(trained.summary.get("kept_step", done)))
    measured = []
    for value in at:
        step = step_of(value, trained.planned or done)
        is_final = step is None or step > done or (step == done and not early_stopping)
        measured.append(final if step is None or is_final else Measured(step, kept=step > 0))
    return measured


@define
class Keeper(TrainerCallback):
    """Saves the adapter after some steps, beside the checkpoints; may end the training behind one of them."""

    steps: Keep
    ranks: ProcessGroup
    until: int | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:  # noqa: D102
        if state.global_step in self.steps(state.max_steps):
            file = Path(args.output_dir, kept_name(state.global_step))
            self.ranks.lead(lambda: _save(model, file))
        if self.until is not None and state.global_step >= self.until:
            control.should_training_stop = True


def _save(model: AdaptedLm, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(file)
    save_file({name: weight.contiguous() for name, weight in _weights(model).items()}, partial)
    partial.replace(file)


def kept_name(step: int) -> str:
    """Give the file of the adapter of a step, in a training's folder."""
    return f"{ADAPTER}-{step}.safetensors"


def lacking(home: Place, steps: Collection[int], recorded: Mapping[str, Any]) -> set[int]:
    """Give those of some steps whose adapters are not there; a damaged one is put aside.

    recorded: the files of the training's record.
    """
    missing = set()
    for step in steps:
        name = kept_name(step)
        try:
            file = home.local(name)
            trouble = file_trouble(file, recorded[name]) if name in recorded else _trouble(file)
        except (FileNotFoundError, DamagedError) as error:
            trouble = str(error)
        if trouble:
            home.put_aside(name)
            missing.add(step)
    return missing


def _trouble(file: Path) -> str:
    try:
        load_file(file)
    except (SafetensorError, OSError) as error:
        return str(error)
    return ""


@contextmanager
def using(model: AdaptedLm, home: Place, adapter: Measured) -> Iterator[None]:
    """Let a model with the final adapter of `home` work as it was after a step, inside the `with` block."""
    if adapter.step == 0:
        with model.disable_adapter():
            yield
        return
    if not adapter.kept:
        yield
        return
    final = {name: weight.clone() for name, weight in _weights(model).items()}
    try:
        _set(model, load_file(home.local(kept_name(adapter.step))))
        yield
    finally:
        _set(model, final)


def _weights(model: AdaptedLm) -> dict[str, Tensor]:
    """Give the weights of an adapter as peft saves them; embeddings that are frozen are none."""
    from peft import get_peft_model_state_dict

    weights: dict[str, Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: weight.detach().cpu() for name, weight in weights.items()}


def _set(model: AdaptedLm, weights: dict[str, Tensor]) -> None:
    from peft import set_peft_model_state_dict

    set_peft_model_state_dict(model, weights)
