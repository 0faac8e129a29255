"""The translators of a tuned lens: one affine map per layer, and their file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from engine.errors import DamagedLensError
from specs.common.whole_files import partial_of, whole_file
from store.backend.location import Place
from store.backend.result_files import RESULTS, file_trouble
from store.errors import DamagedError

FILE = RESULTS["lens"]


@frozen(eq=False)
class Translators:
    """Maps h ↦ h + A h + b of each layer's residual stream but the last's, which stays as it is.

    They lead to the basis of the last layer, where final norm and unembedding read it (tuned lens: Belrose et
    al., arXiv 2303.08112, parametrised as in the package tuned-lens 0.2.0). Zero A and b are the logit lens.
    """

    weight: Tensor  # [L, D, D] float32: A of layers 0 to L − 1, 0 = the embedding
    bias: Tensor  # [L, D] float32

    @staticmethod
    def identity(layers: int, width: int, device: torch.device) -> Translators:
        """Give translators that change nothing, to be trained."""
        return Translators(
            torch.zeros(layers, width, width, device=device), torch.zeros(layers, width, device=device)
        )

    def translate(self, hidden: Tensor, layer: int) -> Tensor:
        """Translate a layer's residual stream [..., D], in float32; the result has the stream's type."""
        if layer == len(self.weight):
            return hidden
        return translated(hidden, self.weight[layer], self.bias[layer])


def translated(hidden: Tensor, weight: Tensor, bias: Tensor, operands: torch.dtype = torch.float32) -> Tensor:
    """Give h + A h + b of rows [..., n, D], for A [..., D, D] and b [..., D].

    h and A are multiplied as `operands`.
    """
    rows = hidden.float()
    product = rows.to(operands) @ weight.mT.to(operands)
    return (rows + product + bias.unsqueeze(-2)).to(hidden.dtype)


@frozen(eq=False)
class Checkpoint:
    """Where a training of translators stands, in one file that is replaced as a whole."""

    file: Path

    def write(self, translators: Translators, momentum: Translators, curve: np.ndarray) -> None:
        """Keep translators, the optimiser's momentum, and the curve [steps so far, L]."""
        names = {"momentum_weight": momentum.weight, "momentum_bias": momentum.bias}
        with whole_file(self.file) as temporary:
            _write(temporary, translators, curve, names)

    def read(self, device: torch.device) -> tuple[Translators, Translators, np.ndarray] | None:
        """Give what was kept; None where there is nothing, or nothing whole."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            kept = load_file(self.file, device=str(device))
        except (FileNotFoundError, SafetensorError):
            return None
        momentum = Translators(kept["momentum_weight"], kept["momentum_bias"])
        return Translators(kept["weight"], kept["bias"]), momentum, kept["curve"].cpu().numpy()

    def drop(self) -> None:
        """Remove it."""
        self.file.unlink(missing_ok=True)


def checkpoint_of(home: Place) -> Checkpoint:
    """Give the checkpoint of the training of `home`, on this machine."""
    return Checkpoint(home.scratch() / "checkpoint.safetensors")


def save(home: Place, translators: Translators, curve: np.ndarray) -> bool:
    """Save translators and the curve [steps, L] of their training, whole or not at all.

    False, changing nothing, when another owner of this training has saved its own first.
    """
    scratch = home.scratch()
    scratch.mkdir(parents=True, exist_ok=True)
    partial = partial_of(scratch / FILE)
    _write(partial, translators, curve, {})
    return home.publish(partial, FILE)


def _write(file: Path, translators: Translators, curve: np.ndarray, more: dict[str, Tensor]) -> None:
    from safetensors.torch import save_file

    tensors = {"weight": translators.weight, "bias": translators.bias, "curve": torch.from_numpy(curve)}
    tensors |= more
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, file)


def read(home: Place, device: torch.device) -> tuple[Translators, np.ndarray] | None:
    """Give saved translators and the curve of their training; None where there are none.

    DamagedLensError where they cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if (file := _saved(home)) is None:
            return None
        tensors = load_file(file, device=str(device))
        curve = tensors["curve"].cpu().numpy()
        return Translators(tensors["weight"], tensors["bias"]), curve
    except (SafetensorError, DamagedError, KeyError) as error:
        raise DamagedLensError(f"{home}/{FILE}: not a whole file of translators: {error}") from error


def checked(home: Place, device: torch.device, recorded: Mapping[str, Any]) -> Translators:
    """Give saved translators; DamagedLensError where they are not the file that the done record names."""
    try:
        file = _saved(home)
        if trouble := "missing" if file is None else file_trouble(file, recorded[FILE]):
            raise DamagedLensError(f"{home}/{FILE}: {trouble}")
    except DamagedError as error:
        raise DamagedLensError(str(error)) from error
    saved_lens = read(home, device)
    assert saved_lens is not None
    return saved_lens[0]


def _saved(home: Place) -> Path | None:
    """Give the file of translators on this machine, None where there is none."""
    try:
        file = home.local(FILE)
    except FileNotFoundError:
        return None
    return file if file.exists() else None
