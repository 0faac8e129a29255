"""The matrices of a Jacobian lens: one per layer, fitted here or published elsewhere, and their files."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from engine.errors import UsageError
from engine.models import lens_files
from store.backend.location import Place
from store.backend.result_files import JACOBIAN_STACK, RESULTS

FILE = RESULTS["jacobian"]
KEY = "probe.jacobian.path"
NOTHING: frozenset[int] = frozenset()


@frozen(eq=False)
class Jacobians:
    """Maps h ↦ J h of each layer's residual stream but the last's, which stays as it is.

    J of a layer is the mean derivative of the last layer's stream by the layer's (Gurnee et al.,
    "Verbalizable Representations Form a Global Workspace in Language Models", Transformer Circuits, 2026).
    """

    weight: Tensor  # [L, D, D] float32: J of layers 0 to L − 1, 0 = the embedding
    lacking: frozenset[int] = NOTHING  # layers without a matrix, whose streams cannot be read

    def translate(self, hidden: Tensor, layer: int) -> Tensor:
        """Give J h of rows [..., D] in float32, as the stream's type; NaN where the layer has no J."""
        if layer == len(self.weight):
            return hidden
        if layer in self.lacking:
            return torch.full_like(hidden, torch.nan)
        return (hidden.float() @ self.weight[layer].mT).to(hidden.dtype)


@frozen(eq=False)
class Fitted:
    """The result of a fit over some texts."""

    weight: Tensor  # [L, D, D] float32: the mean of the texts' Jacobians
    squares: Tensor  # [L] float64: sums of their squared Frobenius norms
    counts: Tensor  # [2] int64: texts, and their tokens

    @property
    def norms(self) -> Tensor:
        """The Frobenius norm of each layer's matrix over √D, 1 for the identity: [L]."""
        return self.weight.double().square().mean(dim=2).sum(dim=1).sqrt()

    @property
    def errors(self) -> Tensor:
        """The standard error of each layer's mean over texts, as a share of it (Frobenius norms): [L].

        NaN for one text.
        """
        texts, mean = int(self.counts[0]), self.weight.double().square().sum(dim=(1, 2))
        variance = (self.squares - texts * mean).clamp_min(0) / (texts * (texts - 1) or torch.nan)
        return (variance / mean).sqrt()


def save(home: Place, fitted: Fitted) -> bool:
    """Save the result of a fit, whole or not at all.

    False, changing nothing, when another owner of this fit has saved its own first.
    """
    tensors = {JACOBIAN_STACK: fitted.weight, "squares": fitted.squares, "counts": fitted.counts}
    return lens_files.save(home, FILE, tensors)


def read(home: Place, device: torch.device) -> Fitted | None:
    """Give a saved fit; None where there is none, DamagedLensError where it cannot be read."""
    if (tensors := lens_files.read(home, FILE, device)) is None:
        return None
    try:
        return Fitted(tensors[JACOBIAN_STACK], tensors["squares"], tensors["counts"])
    except KeyError as error:
        raise lens_files.damaged(home, FILE, error) from error


def checked(home: Place, device: torch.device, recorded: Mapping[str, Any]) -> Jacobians:
    """Give saved matrices; DamagedLensError where they are not the file that the done record names."""
    lens_files.check(home, FILE, recorded)
    fitted = read(home, device)
    assert fitted is not None
    return Jacobians(fitted.weight)


def published(file: Path, layers: int, width: int, device: torch.device) -> Jacobians:
    """Give the matrices of a file, for a model of so many blocks and so wide streams.

    Either a stack [L, D, D] by the name `jacobian`, as this package saves it; or one matrix for each block
    whose output it reads, numbered from 0 on: tensors of a file of safetensors whose names end in the number,
    or in a file of torch the dict `J` from numbers to matrices, as lenses are published. Layer 0, the
    embedding, is then without one, and so are blocks that the file leaves out.

    Raises:
        UsageError: for a file that is none of these, or of another model. Nothing in it is run.
    """
    of_torch = file.suffix != ".safetensors"
    found = _torch_file(file, layers, device) if of_torch else _safetensors(file, device)
    if isinstance(found, Tensor):
        _check_numbers(file, JACOBIAN_STACK, found, (layers, width, width))
        return Jacobians(found.float())
    for number, matrix in found.items():
        if not 0 <= number < layers - 1:
            raise UsageError(
                f'{KEY}: "{file}" has a matrix of block {number}; expected blocks 0 to {layers - 2}, those '
                f"before the last of this model's {layers}"
            )
        _check_numbers(file, f"block {number}", matrix, (width, width))
    if not found:
        raise UsageError(f'{KEY}: "{file}" has no matrix; expected one for each block but the last')
    weight = torch.full((layers, width, width), torch.nan, device=device)
    for number, matrix in found.items():
        weight[number + 1] = matrix.float()
    return Jacobians(weight, frozenset(range(layers)) - {number + 1 for number in found})


def _check_numbers(file: Path, name: str, found: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(found.shape) != expected or not found.is_floating_point():
        raise UsageError(
            f'{KEY}: "{file}" has {name} of shape {tuple(found.shape)} ({found.dtype}); expected '
            f"{expected} for this model, of floating-point numbers"
        )
    if not found.isfinite().all():
        raise UsageError(f'{KEY}: "{file}" has {name} with numbers that are not finite; expected finite ones')


def _safetensors(file: Path, device: torch.device) -> Tensor | dict[int, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt", device=str(device)) as opened:
            names = list(opened.keys())
            if JACOBIAN_STACK in names:
                stack: Tensor = opened.get_tensor(JACOBIAN_STACK)
                return stack
            numbers = {name: re.search(r"(?:^|\D)(\d+)$", name) for name in names}
            if not names or None in numbers.values():
                raise UsageError(
                    f'{KEY}: "{file}" holds {", ".join(names) or "no tensor"}; expected "{JACOBIAN_STACK}", '
                    "or tensors whose names end in the number of a block"
                )
            by_block = _each_once(file, {name: int(match[1]) for name, match in numbers.items() if match})
            return {number: opened.get_tensor(name) for number, name in by_block.items()}
    except SafetensorError as error:
        raise UsageError(f'{KEY}: "{file}" is no whole file of safetensors ({error})') from error


def _each_once(file: Path, numbers: Mapping[Any, int]) -> dict[int, Any]:
    """Give the names of matrices by the number of their block; UsageError where two have one number."""
    names: dict[int, Any] = {}
    for name, number in numbers.items():
        if number in names:
            raise UsageError(
                f'{KEY}: "{file}" has two matrices of block {number}, {names[number]!r} and {name!r}; '
                "expected one for each block"
            )
        names[number] = name
    return names


def _torch_file(file: Path, layers: int, device: torch.device) -> dict[int, Tensor]:
    import pickle

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is refused below
            content = torch.load(file, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        first_line = str(error).partition("\n")[0]
        why = f" ({first_line})" if re.search("[a-z]{2}", first_line) else ""
        raise UsageError(
            f'{KEY}: "{file}" cannot be read as tensors alone{why}; expected a file of safetensors, or one '
            "that torch reads with weights_only"
        ) from error
    matrices: Any = content.get("J") if isinstance(content, dict) else None
    if wrong := _no_table(content, matrices):
        raise UsageError(
            f'{KEY}: "{file}" holds {wrong}; expected "J", a table from numbers of blocks to matrices'
        )
    more = content.get("metadata")
    target = (more if isinstance(more, dict) else {}).get("target_layer", layers - 1)
    if (target := content.get("target_layer", target)) != layers - 1:
        raise UsageError(
            f'{KEY}: "{file}" leads to the output of block {target}; expected block {layers - 1}, the last '
            "of this model"
        )
    by_block = _each_once(file, {key: int(key) for key in matrices})
    return {number: matrices[key] for number, key in by_block.items()}


def _no_table(content: Any, matrices: Any) -> str:
    """Say what a file of torch holds in place of a table `J` of matrices by block; "" where it has one."""
    if not isinstance(content, dict):
        return f"a value of type {type(content).__name__}"
    if "J" not in content:
        return ", ".join(map(str, content)) or "nothing"
    if not isinstance(matrices, dict):
        return f'"J" of type {type(matrices).__name__}'
    odd = [key for key, value in matrices.items() if not (str(key).isdecimal() and isinstance(value, Tensor))]
    return f'"J" with {odd[0]!r}: {type(matrices[odd[0]]).__name__}' if odd else ""
