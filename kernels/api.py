"""The probe core's one entry: statistics of lens rows, by whichever backend suits the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.backends import choose_backend, get_backend
from kernels.result import LensStatistics

Ids = Tensor | Sequence[int]


def lens_statistics(
    hidden: Tensor,
    unembedding: Tensor,
    *,
    bias: Tensor | None = None,
    scale: float = 1.0,
    softcap: float | None = None,
    vocab_size: int | None = None,
    watch_ids: Ids = (),
    top_k: int = 5,
    final_rows: Ids | None = None,
    backend: str = "auto",
) -> LensStatistics:
    """Give full-vocabulary statistics of the lens logits x = scale (H Wᵀ + b), in nats.

    hidden: [R, D] rows after the model's final norm; any floating type.
    unembedding: [V', D]; rows from `vocab_size` on are padding and count as no tokens.
    bias: [V'] or None. softcap c: x becomes c tanh(x / c) (as in Gemma 2, arXiv 2408.00118).
    watch_ids: [J] token ids, repeats allowed. top_k: places kept; beyond the vocabulary -1 and NaN.
    final_rows: [R], for each row the row of `hidden` that is the final layer's at the same position; None
    leaves `kl_final` and `js_final` out.
    backend: "auto", or the name of one.

    Ranks and top tokens follow one strict order, ties to the lower token id, of the backend's own logits. A
    row with a NaN or Inf logit gets NaN and -1 throughout and is counted in `nonfinite_rows`.

    Raises TypeError or ValueError that names the argument, what was found and what was expected.
    """
    _check_matrices(hidden, unembedding, bias)
    vocabulary = len(unembedding) if vocab_size is None else vocab_size
    if not 1 <= vocabulary <= len(unembedding):
        raise ValueError(f"vocab_size: found {vocabulary}, expected 1 to {len(unembedding)}")
    if top_k < 0:
        raise ValueError(f"top_k: found {top_k}, expected 0 or more")
    if softcap is not None and not softcap > 0:
        raise ValueError(f"softcap: found {softcap}, expected None or a positive number")
    compute = get_backend(choose_backend(hidden.device, backend))
    return compute(
        hidden,
        unembedding[:vocabulary],
        None if bias is None else bias[:vocabulary],
        scale,
        softcap,
        _ids("watch_ids", watch_ids, vocabulary, hidden.device),
        top_k,
        None if final_rows is None else _final_rows(final_rows, hidden),
    )


def _check_matrices(hidden: Tensor, unembedding: Tensor, bias: Tensor | None) -> None:
    for name, matrix in (("hidden", hidden), ("unembedding", unembedding)):
        if matrix.ndim != 2:
            raise ValueError(f"{name}: found shape {tuple(matrix.shape)}, expected two dimensions")
    if hidden.shape[1] != unembedding.shape[1]:
        raise ValueError(
            f"unembedding: found D = {unembedding.shape[1]}, expected hidden's D = {hidden.shape[1]}"
        )
    if bias is not None and bias.shape != unembedding.shape[:1]:
        raise ValueError(f"bias: found shape {tuple(bias.shape)}, expected ({len(unembedding)},)")
    for name, value in (("hidden", hidden), ("unembedding", unembedding), ("bias", bias)):
        if value is None:
            continue
        if not value.is_floating_point():
            raise TypeError(f"{name}: found {value.dtype}, expected a floating type")
        if value.device != hidden.device:
            raise ValueError(f"{name}: found on {value.device}, expected hidden's device {hidden.device}")


def _ids(name: str, ids: Ids, bound: int, device: torch.device) -> Tensor:
    tensor = torch.as_tensor(ids, device=device)
    if tensor.ndim != 1:
        raise ValueError(f"{name}: found shape {tuple(tensor.shape)}, expected one dimension")
    if tensor.numel() and (tensor.is_floating_point() or tensor.dtype == torch.bool):
        raise TypeError(f"{name}: found {tensor.dtype}, expected whole numbers")
    tensor = tensor.to(torch.int64)
    wrong = tensor[(tensor < 0) | (tensor >= bound)]
    if len(wrong):
        raise ValueError(f"{name}: found {int(wrong[0])}, expected 0 to {bound - 1}")
    return tensor


def _final_rows(final_rows: Ids, hidden: Tensor) -> Tensor:
    tensor = _ids("final_rows", final_rows, len(hidden), hidden.device)
    if len(tensor) != len(hidden):
        raise ValueError(f"final_rows: found {len(tensor)} entries, expected one per row, {len(hidden)}")
    return tensor
