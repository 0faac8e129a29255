"""The Triton backend of the probe core: launches the passes and gathers their results."""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from attrs import frozen
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from kernels.gpu.device import Device, find_device, launching_on
from kernels.gpu.lens_divergences import lens_divergences
from kernels.gpu.lens_merge import merge_splits, merge_warps
from kernels.gpu.lens_packing import pack, pack_watched
from kernels.gpu.lens_sums import lens_sums
from kernels.gpu.lens_tiles import LONGEST_TOP, Tile, divergences_tile, sums_tile, tiles_per_split, uses_tma
from kernels.lens_result import LensStatistics
from kernels.lens_torch import torch_tiled
from kernels.unembedding import Unembedding
from kernels.watched_ids import by_row, first_of_each

GATHERED = 64  # row tiles of packed rows that are copied at once
OPERANDS = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


@frozen
class Launch:
    """What a person may set by hand; None leaves it to the fixed choice for the chip."""

    sums: Tile | None = None
    divergences: Tile | None = None
    tma: bool | None = None
    precision: str = "ieee"  # of float32 products; "tf32" is faster and keeps 10 bits of the mantissa


def triton_backend(
    hidden: Tensor,
    unembedding: Unembedding,
    watch_ids: Tensor,
    top_k: int,
    final_rows: Tensor | None,
    *,
    launch: Launch | None = None,
) -> LensStatistics:
    """Compute the statistics in two passes over W, one without `final_rows`; scratch is O(R × splits).

    Products are those of the weight's type (float64 counts as float32), summed in float32. More than
    LONGEST_TOP top tokens are beyond the registers of any tile; the torch backend serves then, and the
    result names it.
    """
    if min(top_k, unembedding.vocab_size) > LONGEST_TOP:
        return torch_tiled(hidden, unembedding, watch_ids, top_k, final_rows)
    device, launch = find_device(hidden.device), launch or Launch()
    product = Product.of(unembedding, device, launch)
    hidden = product.operand(hidden)
    out = Output.empty(hidden, watch_ids.shape[-1], top_k)
    kl, js = None, None
    with launching_on(hidden.device):
        if len(hidden):
            _sums(hidden, product, watch_ids, top_k, launch.sums, out)
        if final_rows is not None:
            kl, js = _divergences(hidden, product, final_rows, launch.divergences, out.scalars)
    broken = torch.isnan(out.scalars[0])
    if kl is not None and js is not None:
        either = broken | broken[final_rows]
        kl, js = kl.masked_fill(either, math.nan), js.masked_fill(either, math.nan)
    return out.result(kl, js, int(broken.sum()))


@frozen(eq=False)
class Product:
    """The arguments that every kernel hands on to `logits_tile`."""

    unembedding: Unembedding
    device: Device
    weight: Tensor
    tma: bool
    precision: str

    @staticmethod
    def of(unembedding: Unembedding, device: Device, launch: Launch) -> Product:
        """Gather the arguments; TMA serves where the chip has it and rows of W start on 16 bytes."""
        weight = unembedding.tokens.contiguous()
        wanted = uses_tma(device.chip, _operand_bytes(weight)) if launch.tma is None else launch.tma
        aligned = weight.shape[1] * weight.element_size() % 16 == 0 and weight.data_ptr() % 16 == 0
        return Product(unembedding, device, weight, wanted and aligned, launch.precision)

    def sums_tile(self, n_rows: int, top: int) -> Tile:
        """Choose the tile of pass one."""
        size, capped = _operand_bytes(self.weight), self.unembedding.softcap is not None
        return sums_tile(self.device.chip, size, n_rows, top, tma=self.tma, capped=capped)

    def divergences_tile(self, n_rows: int) -> Tile:
        """Choose the tile of pass two."""
        return divergences_tile(self.device.chip, _operand_bytes(self.weight), n_rows, tma=self.tma)

    def operand(self, hidden: Tensor) -> Tensor:
        """Give hidden states in the weight's type, as the model's own unembedding takes them."""
        hidden = hidden.to(self.weight.dtype).contiguous()
        return hidden.clone() if hidden.data_ptr() % 16 else hidden

    def splits(self, n_rows: int, tile: Tile, top: int = 1) -> Tensor:
        """Give the first column and the end of every vocabulary split, [S, 2] int32."""
        vocabulary = self.unembedding.vocab_size
        step = tile.vocab * tiles_per_split(n_rows, vocabulary, tile, self.device.processors, top)
        first = torch.arange(0, vocabulary, step, dtype=torch.int32, device=self.weight.device)
        return torch.stack([first, (first + step).clamp_max(vocabulary)], dim=1).contiguous()

    def arguments(self, hidden: Tensor, tile: Tile) -> dict[str, Any]:
        """Give the keyword arguments of a launch over hidden [N, D]."""
        head, width = self.unembedding, self.weight.shape[1]
        matrices: tuple[Any, Any] = hidden, self.weight
        if self.tma:
            matrices = (
                TensorDescriptor.from_tensor(hidden, [tile.rows, tile.depth]),
                TensorDescriptor.from_tensor(self.weight, [tile.vocab, tile.depth]),
            )
        operand = tl.float32 if self.device.interpreted else OPERANDS.get(self.weight.dtype, tl.float32)
        return {
            "hidden": matrices[0],
            "weight": matrices[1],
            "bias": None if head.token_bias is None else head.token_bias.contiguous(),
            "vocab_size": head.vocab_size,
            "width": width,
            "scale": float(head.scale),
            "softcap": None if head.softcap is None else float(head.softcap),
            "B_ROWS": tile.rows,
            "B_VOCAB": tile.vocab,
            "B_DEPTH": tile.depth,
            "GROUP": tile.group,
            "OPERAND": operand,
            "PRECISION": self.precision,
            "EVEN": width % tile.depth == 0,
            "TMA": self.tma,
            "num_warps": tile.warps,
            "num_stages": tile.stages,
            # Contraction would let a logit's last bit depend on the expression that it stands in.
            "enable_fp_fusion": False,
        }


def _operand_bytes(weight: Tensor) -> int:
    return 2 if weight.dtype in OPERANDS else 4


@frozen(eq=False)
class Output:
    """The result's tensors, which the merge fills."""

    scalars: Tensor  # [7, R], see kernels.gpu.lens_merge
    top_ids: Tensor
    top_logprobs: Tensor
    watch_logprob: Tensor
    watch_rank: Tensor

    @staticmethod
    def empty(hidden: Tensor, watched: int, top_k: int) -> Output:
        """Allocate for hidden [R, D], J watched tokens and k top places."""
        rows, device = len(hidden), hidden.device
        return Output(
            scalars=torch.empty((7, rows), device=device),
            top_ids=torch.empty((rows, top_k), dtype=torch.int64, device=device),
            top_logprobs=torch.empty((rows, top_k), device=device),
            watch_logprob=torch.empty((rows, watched), device=device),
            watch_rank=torch.empty((rows, watched), dtype=torch.int64, device=device),
        )

    def result(self, kl: Tensor | None, js: Tensor | None, nonfinite_rows: int) -> LensStatistics:
        """Give the tensors their names."""
        logsumexp, entropy, max_prob, watch_mass, watch_entropy = self.scalars[:5].unbind()
        return LensStatistics(
            logsumexp=logsumexp,
            entropy=entropy,
            max_prob=max_prob,
            top_ids=self.top_ids,
            top_logprobs=self.top_logprobs,
            watch_logprob=self.watch_logprob,
            watch_rank=self.watch_rank,
            watch_mass=watch_mass,
            watch_entropy=watch_entropy,
            kl_final=kl,
            js_final=js,
            nonfinite_rows=nonfinite_rows,
            backend="triton",
        )


def _sums(
    hidden: Tensor, product: Product, watch_ids: Tensor, top_k: int, tile: Tile | None, out: Output
) -> None:
    """Run pass one and its merge into `out`."""
    rows, device, vocabulary = len(hidden), hidden.device, product.unembedding.vocab_size
    top = triton.next_power_of_2(min(top_k, vocabulary)) if top_k else 0
    tile = tile or product.sums_tile(rows, top)
    spans = product.splits(rows, tile, max(top, 1))
    splits, watched, own = len(spans), watch_ids.shape[-1], watch_ids.ndim == 2
    buffers = {
        "watched": torch.empty((watched, rows), device=device),
        "ranks": torch.empty((watched, rows), dtype=torch.int32, device=device),
        "maximum": torch.empty((splits, rows), device=device),
        "total": torch.empty((splits, rows), dtype=torch.float64, device=device),
        "weighted": torch.empty((splits, rows), dtype=torch.float64, device=device),
        "top_values": torch.empty((splits, rows, top), device=device),
        "top_ids": torch.empty((splits, rows, top), dtype=torch.int32, device=device),
    }
    ids = watch_ids.int().T.contiguous()  # [J], or [J, R]
    common = product.arguments(hidden, tile) | buffers
    common |= {"watch_ids": ids, "n_rows": rows, "n_watch": watched, "B_TOP": top, "BY_ROW": own}
    common["columns"] = torch.arange(tile.vocab, dtype=torch.int32, device=device)
    common["places"] = common["columns"]  # what the main launch does not read
    row_tiles = triton.cdiv(rows, tile.rows)
    if watched and own:
        _gather_own(hidden, product, ids, tile, common)
    elif watched:
        first = ids // tile.vocab * tile.vocab
        own_spans = torch.stack([first, first + 1], dim=1).contiguous()
        lens_sums[(row_tiles * watched,)](**common, spans=own_spans, n_splits=watched, gather=1)
    lens_sums[(row_tiles * splits,)](**common, spans=spans, n_splits=splits, gather=0)
    block = triton.next_power_of_2(splits)
    merge_splits[(rows,)](
        **buffers,
        once=by_row(first_of_each(watch_ids), rows).T.to(torch.int8).contiguous(),
        scalars=out.scalars,
        out_top_ids=out.top_ids,
        out_top_logprobs=out.top_logprobs,
        out_logprob=out.watch_logprob,
        out_rank=out.watch_rank,
        n_rows=rows,
        n_splits=splits,
        n_watch=watched,
        vocab_size=vocabulary,
        top_k=top_k,
        B_SPLITS=block,
        B_TOP=top,
        B_WATCH=triton.next_power_of_2(max(watched, 1)),
        num_warps=merge_warps(block * top),
        enable_fp_fusion=False,
    )


def _gather_own(hidden: Tensor, product: Product, ids: Tensor, tile: Tile, common: dict[str, Any]) -> None:
    """Fill the logits of each row's own tokens [J, R], and their ranks within the tokens' tiles."""
    places, spans = pack_watched(ids, tile.vocab, tile.rows)
    step = GATHERED * tile.rows
    for start in range(0, len(places), step):
        part = places[start : start + step]
        packed = hidden[part.clamp_min(0) % len(hidden)]
        arguments = common | product.arguments(packed, tile)
        arguments |= {"places": part, "spans": spans[start // tile.rows :], "n_rows": len(part)}
        lens_sums[(len(part) // tile.rows,)](**arguments, n_splits=1, gather=1)


def _divergences(
    hidden: Tensor, product: Product, final_rows: Tensor, tile: Tile | None, scalars: Tensor
) -> tuple[Tensor, Tensor]:
    """Run pass two: KL and JS [R], 0 for rows that are their own final rows."""
    kl, js = torch.zeros((2, len(hidden)), device=hidden.device)
    tile = tile or product.divergences_tile(len(hidden))
    packing = pack(final_rows, tile.rows)
    slots = len(packing.slots)
    if slots == 0:
        return kl, js
    spans = product.splits(slots, tile)
    divergences = torch.empty((2, len(spans), slots), dtype=torch.float64, device=hidden.device)
    lens_divergences[(slots // tile.rows * len(spans),)](
        **product.arguments(hidden[packing.slots], tile),
        slots=packing.slots,
        places=packing.places,
        scalars=scalars,
        spans=spans,
        divergences=divergences,
        n_rows=len(hidden),
        n_slots=slots,
        n_splits=len(spans),
        PIECES=tile.pieces,
    )
    kl[packing.rows], js[packing.rows] = divergences.sum(dim=1)[:, packing.row_slots].clamp_min(0).float()
    return kl, js
