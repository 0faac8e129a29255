"""The translators of a tuned lens: one affine map per layer, and their file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from engine.models import lens_files
from engine.models.lens_files import CheckpointFile
from store.backend.location import Place
from store.backend.result_files import RESULTS

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


@frozen
class Checkpoint(CheckpointFile):
    """Where a training of translators stands."""

    def keep(self, translators: Translators, momentum: Translators, curve: np.ndarray) -> None:
        """Keep translators, the optimiser's momentum, and the curve [steps so far, L]."""
        more = {"momentum_weight": momentum.weight, "momentum_bias": momentum.bias}
        self.write(_tensors(translators, curve) | more)

    def kept(self, device: torch.device) -> tuple[Translators, Translators, np.ndarray] | None:
        """Give what was kept; None where there is nothing, or nothing whole."""
        if (kept := self.read(device)) is None:
            return None
        momentum = Translators(kept["momentum_weight"], kept["momentum_bias"])
        return Translators(kept["weight"], kept["bias"]), momentum, kept["curve"].cpu().numpy()


def save(home: Place, translators: Translators, curve: np.ndarray) -> bool:
    """Save translators and the curve [steps, L] of their training, whole or not at all.

    False, changing nothing, when another owner of this training has saved its own first.
    """
    return lens_files.save(home, FILE, _tensors(translators, curve))


def _tensors(translators: Translators, curve: np.ndarray) -> dict[str, Tensor]:
    return {"weight": translators.weight, "bias": translators.bias, "curve": torch.from_numpy(curve)}


def read(home: Place, device: torch.device) -> tuple[Translators, np.ndarray] | None:
    """Give saved translators and the curve of their training; None where there are none.

    DamagedLensError where they cannot be read.
    """
    if (tensors := lens_files.read(home, FILE, device)) is None:
        return None
    try:
        return Translators(tensors["weight"], tensors["bias"]), tensors["curve"].cpu().numpy()
    except KeyError as error:
        raise lens_files.damaged(home, FILE, error) from error


def checked(home: Place, device: torch.device, recorded: Mapping[str, Any]) -> Translators:
    """Give saved translators; DamagedLensError where they are not the file that the done record names."""
    lens_files.check(home, FILE, recorded)
    saved_lens = read(home, device)
    assert saved_lens is not None
    return saved_lens[0]
