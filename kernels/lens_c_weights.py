"""Packing of an unembedding's weight for the C core: once per model, in place of it or beside it."""

from __future__ import annotations

from collections.abc import MutableMapping

import torch
from attrs import frozen
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from kernels.c_library import ThreadTeam, ffi, lib, pointer, regular
from kernels.unembedding import Unembedding

COLUMNS: int = lib.LENS_COLUMNS
CHUNK = 16  # panels packed at once
REMEMBERED = 4  # models whose packed weight is kept
SAMPLES = 4096  # weight entries compared to notice a change


@frozen(eq=False)
class PackedUnembedding:
    """An unembedding whose weight is stored in panels; the C backend alone can read it."""

    panels: Tensor  # flat; float32, or bfloat16 in pairs along D
    width: int  # D
    vocab_size: int
    bias: Tensor | None  # [V]
    scale: float
    softcap: float | None

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return self.panels.device


def pack(unembedding: Unembedding, *, in_place: bool = False) -> PackedUnembedding:
    """Pack an unembedding; V times D elements beside the weight, or none where it is packed in place.

    bfloat16 weights stay bfloat16, all others become float32. In place the weight's own memory holds the
    panels afterwards: the model it came from can no longer use it. That needs a contiguous float32 or
    bfloat16 weight whose rows fill whole panels of 32 (padding rows included) and, for bfloat16, an even D;
    else ValueError says which of these is missing.
    """
    head, dtype = unembedding, _stored_dtype(unembedding.weight)
    panels = _in_place(head) if in_place else _beside(head, dtype)
    return PackedUnembedding(
        panels, head.weight.shape[1], head.vocab_size, head.token_bias, head.scale, head.softcap
    )


def packed_once(unembedding: Unembedding) -> PackedUnembedding:
    """Pack an unembedding unless its weight is packed already and unchanged since.

    A change shows by the weight's version counter or, where `.data` was written, by a sample of its entries.
    Inference tensors have no such counter and are packed at every call: use `pack` and pass on its result.
    """
    head, weight = unembedding, unembedding.weight
    if weight.is_inference():
        return pack(head)
    state = (weight._version, weight.data_ptr(), weight.shape, head.vocab_size)
    sample = _sample(weight)
    if (kept := _kept.get(weight)) is None or kept[0] != state or not torch.equal(kept[1], sample):
        _kept.pop(weight, None)
        kept = (state, sample, pack(head).panels)
        while len(_kept) >= REMEMBERED:
            _kept.pop(next(iter(_kept)))
        _kept[weight] = kept
    return PackedUnembedding(
        kept[2], weight.shape[1], head.vocab_size, head.token_bias, head.scale, head.softcap
    )


# weight → (state, sample, panels); an entry dies with its weight
_kept: MutableMapping[Tensor, tuple[object, Tensor, Tensor]] = WeakTensorKeyDictionary()


def _sample(weight: Tensor) -> Tensor:
    """Copy some entries of a weight from all over it, as bits, in which a NaN equals itself."""
    flat = weight.detach().flatten() if weight.is_contiguous() else weight.detach().diagonal()
    return flat[:: max(1, flat.numel() // SAMPLES)].clone().view(torch.uint8)


def _stored_dtype(weight: Tensor) -> torch.dtype:
    return torch.bfloat16 if weight.dtype == torch.bfloat16 else torch.float32


def _kind(dtype: torch.dtype) -> int:
    kind: int = lib.LENS_WIDENED if dtype == torch.bfloat16 else lib.LENS_FLOAT32
    return kind


def _panel_elements(width: int, dtype: torch.dtype) -> int:
    return COLUMNS * (width + width % 2 if dtype == torch.bfloat16 else width)


def _beside(head: Unembedding, dtype: torch.dtype) -> Tensor:
    weight, width = head.tokens, head.weight.shape[1]
    size = _panel_elements(width, dtype)
    panels = -(-len(weight) // COLUMNS)
    out = torch.empty(panels * size, dtype=dtype)
    lib.lens_advise_huge(ffi.cast("void *", out.data_ptr()), out.nbytes)
    team = ThreadTeam()
    scratch = torch.empty(team.size, size, dtype=dtype)

    def work(chunk: int, slot: int) -> None:
        panel_part = regular(weight[chunk * CHUNK * COLUMNS : (chunk + 1) * CHUNK * COLUMNS], dtype)
        target = out[chunk * CHUNK * size : (chunk + 1) * CHUNK * size]
        _pack_panels(panel_part, width, len(target) // size, target, scratch[slot])

    team.share(work, -(-panels // CHUNK))
    return out


def _in_place(head: Unembedding) -> Tensor:
    weight, dtype = head.weight.detach(), head.weight.dtype
    width, panels = weight.shape[1], -(-head.vocab_size // COLUMNS)
    if dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"weight: found {dtype}, expected torch.float32 or torch.bfloat16 to pack in place")
    if not weight.is_contiguous():
        raise ValueError(f"weight: found strides {weight.stride()}, expected contiguous to pack in place")
    if panels * COLUMNS > len(weight):
        raise ValueError(
            f"weight: found {len(weight)} rows, expected {panels * COLUMNS} or more, whole panels of "
            f"{COLUMNS}, to pack in place"
        )
    if dtype == torch.bfloat16 and width % 2:
        raise ValueError(f"weight: found D = {width}, expected an even D to pack bfloat16 in place")
    _kept.pop(head.weight, None)
    flat, size = weight.view(-1), COLUMNS * width
    team = ThreadTeam()
    scratch = torch.empty(team.size, size, dtype=dtype)

    def work(panel: int, slot: int) -> None:
        panel_part = flat[panel * size : (panel + 1) * size]
        valid = min(COLUMNS, head.vocab_size - panel * COLUMNS)
        _pack_panels(panel_part.view(COLUMNS, width)[:valid], width, 1, panel_part, scratch[slot])

    team.share(work, panels)
    if not head.weight.is_inference():
        torch.autograd.graph.increment_version(head.weight)
    return flat[: panels * size]


def _pack_panels(weight: Tensor, width: int, panels: int, out: Tensor, scratch: Tensor) -> None:
    dtype = out.dtype
    lib.lens_pack_panels(
        _kind(dtype),
        pointer("weight", weight, dtype),
        len(weight),
        width,
        panels,
        pointer("panels", out, dtype),
        pointer("scratch", scratch, dtype),
    )
