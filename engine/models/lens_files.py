"""Files of fitted lenses: tensors by name in the store, and checkpoints of a fit on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from attrs import frozen
from torch import Tensor

from engine.errors import DamagedLensError
from specs.common.whole_files import partial_of, whole_file
from store.backend.location import Place
from store.backend.result_files import file_trouble
from store.errors import DamagedError

Tensors = Mapping[str, Tensor]


def save(home: Place, name: str, tensors: Tensors) -> bool:
    """Save tensors in the home of a stage, whole or not at all.

    False, changing nothing, when another owner of this stage has saved its own first.
    """
    scratch = home.scratch()
    scratch.mkdir(parents=True, exist_ok=True)
    partial = partial_of(scratch / name)
    write(partial, tensors)
    return home.publish(partial, name)


def write(file: Path, tensors: Tensors) -> None:
    """Write tensors to a file of safetensors."""
    from safetensors.torch import save_file

    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, file)


def read(home: Place, name: str, device: torch.device) -> dict[str, Tensor] | None:
    """Give what was saved; None where there is nothing, DamagedLensError where it cannot be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        file = _saved(home, name)
        return None if file is None else load_file(file, device=str(device))
    except (SafetensorError, DamagedError) as error:
        raise damaged(home, name, error) from error


def damaged(home: Place, name: str, error: Exception) -> DamagedLensError:
    """Give the error of a file that is none of a lens."""
    return DamagedLensError(f"{home}/{name}: not a whole file of a lens: {error}")


def check(home: Place, name: str, recorded: Mapping[str, Any]) -> None:
    """Raise DamagedLensError where a file is not the one that the done record names."""
    try:
        file = _saved(home, name)
        if trouble := "missing" if file is None else file_trouble(file, recorded[name]):
            raise DamagedLensError(f"{home}/{name}: {trouble}")
    except DamagedError as error:
        raise DamagedLensError(str(error)) from error


def _saved(home: Place, name: str) -> Path | None:
    """Give a file on this machine, None where there is none."""
    try:
        file = home.local(name)
    except FileNotFoundError:
        return None
    return file if file.exists() else None


@frozen
class CheckpointFile:
    """Where a fit stands, as tensors in one file that is replaced as a whole."""

    file: Path

    @classmethod
    def of(cls, home: Place) -> Self:
        """Give the checkpoint of the fit of `home`, on this machine."""
        return cls(home.scratch() / "checkpoint.safetensors")

    def write(self, tensors: Tensors) -> None:
        """Keep tensors in place of what was kept."""
        with whole_file(self.file) as temporary:
            write(temporary, tensors)

    def read(self, device: torch.device) -> dict[str, Tensor] | None:
        """Give what was kept; None where there is nothing, or nothing whole."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(self.file, device=str(device))
        except (FileNotFoundError, SafetensorError):
            return None

    def drop(self) -> None:
        """Remove it."""
        self.file.unlink(missing_ok=True)
