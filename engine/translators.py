"""The translators of a tuned lens: one affine map per layer, and their file."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from engine.errors import DamagedLensError
from store.errors import DamagedError
from store.files import hash_file
from store.places import Place
from store.results import RESULTS

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


def translated(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Give h + A h + b of rows [..., n, D], for A [..., D, D] and b [..., D]."""
    rows = hidden.float()
    return (rows + rows @ weight.mT + bias.unsqueeze(-2)).to(hidden.dtype)


def save(home: Place, translators: Translators, curve: np.ndarray) -> bool:
    """Save translators and the curve [steps, L] of their training, whole or not at all.

    False, changing nothing, when another owner of this training has saved its own first.
    """
    from safetensors.torch import save_file

    scratch = home.scratch()
    scratch.mkdir(parents=True, exist_ok=True)
    partial = scratch / f"{FILE}.{uuid.uuid4().hex}.partial"
    tensors = {"weight": translators.weight, "bias": translators.bias, "curve": torch.from_numpy(curve)}
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial)
    return home.publish(partial, FILE)


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


def checked(home: Place, device: torch.device, known: str) -> Translators:
    """Give saved translators; DamagedLensError where they are missing, or their BLAKE2b is not `known`."""
    try:
        if (file := _saved(home)) is None:
            raise DamagedLensError(f"{home}/{FILE}: missing")
        if hash_file(file) != known:
            raise DamagedLensError(f"{home}/{FILE}: its content has changed since it was made")
    except DamagedError as error:
        raise DamagedLensError(str(error)) from error
    found = read(home, device)
    assert found is not None
    return found[0]


def _saved(home: Place) -> Path | None:
    """Give the file of translators on this machine, None where there is none."""
    try:
        file = home.local(FILE)
    except FileNotFoundError:
        return None
    return file if file.exists() else None
