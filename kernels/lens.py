"""The probe core's one entry: statistics of lens rows, by whichever backend suits the device."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kernels.backends import LENS, LENS_BY_ROW, choose_backend, get_backend
from kernels.lens_result import LensStatistics
from kernels.unembedding import Unembedding

if TYPE_CHECKING:
    from kernels.lens_c_weights import PackedUnembedding

Ids = Tensor | Sequence[int]


def lens_statistics(
    hidden: Tensor,
    unembedding: Unembedding | PackedUnembedding,
    *,
    watch_ids: Ids = (),
    top_k: int = 5,
    final_rows: Ids | None = None,
    backend: str = "auto",
) -> LensStatistics:
    """Give full-vocabulary statistics of the lens logits of R rows, in nats.

    Ranks and top tokens follow one strict order, ties to the lower token id, of the backend's own logits. A
    row with a NaN or Inf logit gets NaN and -1 throughout and is counted in `nonfinite_rows`.

    Args:
        hidden: [R, D] rows after the model's final norm; any floating type.
        unembedding: the map to logits; packed by `kernels.lens_c_weights.pack`, only the C backend can use
            it.
        watch_ids: token ids, repeats allowed: [J] for all rows, or [R, J], each row's own.
        top_k: places kept; beyond the vocabulary -1 and NaN.
        final_rows: [R], for each row the row of `hidden` that is the final layer's at the same position; None
            leaves `kl_final` and `js_final` out.
        backend: "auto", or the name of one.

    Raises:
        TypeError: the message names the argument, what was found and what was expected.
        ValueError: the message names the argument, what was found and what was expected.
    """
    _check_hidden(hidden, unembedding)
    if not isinstance(top_k, Integral) or isinstance(top_k, bool):
        raise TypeError(f"top_k: found {top_k!r}, expected a whole number")
    if top_k < 0:
        raise ValueError(f"top_k: found {top_k}, expected 0 or more")
    watched = _watched(watch_ids, unembedding.vocab_size, hidden)
    name = choose_backend(hidden.device, backend, LENS if watched.ndim == 1 else LENS_BY_ROW)
    if name != "c" and not isinstance(unembedding, Unembedding):
        raise TypeError(
            f'unembedding: found {type(unembedding).__name__}, which backend "{name}" cannot read'
        )
    compute = get_backend(name)
    final = None if final_rows is None else _final_rows(final_rows, hidden)
    result: LensStatistics = compute(hidden, unembedding, watched, top_k, final)
    return result


def _check_hidden(hidden: Tensor, unembedding: Unembedding | PackedUnembedding) -> None:
    if not isinstance(hidden, Tensor):
        raise TypeError(f"hidden: found {type(hidden).__name__}, expected a tensor")
    width, device = unembedding.width, unembedding.device
    if hidden.ndim != 2:
        raise ValueError(f"hidden: found shape {tuple(hidden.shape)}, expected [R, D]")
    if hidden.shape[1] != width:
        raise ValueError(f"hidden: found D = {hidden.shape[1]}, expected the weight's D = {width}")
    if not hidden.is_floating_point():
        raise TypeError(f"hidden: found {hidden.dtype}, expected a floating type")
    if hidden.device != device:
        raise ValueError(f"hidden: found on {hidden.device}, expected the weight's device {device}")


def _watched(ids: Ids, bound: int, hidden: Tensor) -> Tensor:
    tensor = _as_tensor("watch_ids", ids, hidden.device)
    if tensor.ndim == 1:
        return _ids("watch_ids", tensor, bound, hidden.device)
    if tensor.ndim != 2 or len(tensor) != len(hidden):
        raise ValueError(
            f"watch_ids: found shape {tuple(tensor.shape)}, expected [J], or [R, J] with R = {len(hidden)}"
        )
    return _ids("watch_ids", tensor.flatten(), bound, hidden.device).view(tensor.shape)


def _as_tensor(name: str, ids: Ids, device: torch.device) -> Tensor:
    try:
        return torch.as_tensor(ids, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: found {type(ids).__name__}, expected whole numbers ({error})") from error


def _ids(name: str, ids: Ids, bound: int, device: torch.device) -> Tensor:
    tensor = _as_tensor(name, ids, device)
    if tensor.ndim != 1:
        raise ValueError(f"{name}: found shape {tuple(tensor.shape)}, expected one dimension")
    if tensor.numel() and (tensor.is_floating_point() or tensor.dtype == torch.bool):
        raise TypeError(f"{name}: found {tensor.dtype}, expected whole numbers")
    tensor = tensor.to(torch.int64)
    if tensor.numel():
        least, most = (int(end) for end in torch.aminmax(tensor))
        if least < 0 or most >= bound:
            wrong = least if least < 0 else most
            raise ValueError(f"{name}: found {wrong}, expected 0 to {bound - 1}")
    return tensor


def _final_rows(final_rows: Ids, hidden: Tensor) -> Tensor:
    tensor = _ids("final_rows", final_rows, len(hidden), hidden.device)
    if len(tensor) != len(hidden):
        raise ValueError(f"final_rows: found {len(tensor)} entries, expected one per row, {len(hidden)}")
    return tensor
