"""The translators of a tuned lens: one affine map per layer, and their file."""

from __future__ import annotations

import uuid

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

    try:
        read(home, translators.weight.device)
        return False
    except FileNotFoundError:
        pass
    scratch = home.scratch()
    scratch.mkdir(parents=True, exist_ok=True)
    partial = scratch / f"{FILE}.{uuid.uuid4().hex}.partial"
    tensors = {"weight": translators.weight, "bias": translators.bias, "curve": torch.from_numpy(curve)}
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial)
    return home.publish(partial, FILE)


def read(home: Place, device: torch.device) -> tuple[Translators, np.ndarray]:
    """Give saved translators and the curve of their training.

    FileNotFoundError where there are none, DamagedLensError where they cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(home.local(FILE).read_bytes())
        curve = tensors["curve"].numpy()
        return Translators(tensors["weight"].to(device), tensors["bias"].to(device)), curve
    except (SafetensorError, DamagedError, KeyError) as error:
        raise DamagedLensError(f"{home}/{FILE}: not a whole file of translators: {error}") from error


def check(home: Place, known: str) -> None:
    """Raise DamagedLensError where the file is missing, or its BLAKE2b is not the one that is known."""
    try:
        found = home.local(FILE)
        whole = hash_file(found) == known
    except (FileNotFoundError, DamagedError) as error:
        raise DamagedLensError(f"{home}/{FILE}: missing or damaged: {error}") from error
    if not whole:
        raise DamagedLensError(f"{home}/{FILE}: its content has changed since it was made")
