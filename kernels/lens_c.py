"""The C backend: one product over packed panels, whose tiles become statistics while they are in cache.

Rows go block by block, a block's vocabulary split by split; splits are shared among threads and merged in
float64 in their order, so the bits do not depend on the number of threads. Only KL and JS keep logits, of one
block of rows, for a second sweep that knows the normalisers; the block shrinks as the vocabulary grows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from kernels.c_library import ThreadTeam, ffi, lib, path_number, pointer, regular
from kernels.lens_c_weights import COLUMNS, PackedUnembedding, packed_once
from kernels.lens_result import LensStatistics
from kernels.unembedding import Unembedding
from kernels.watched_ids import by_row

ROWS = 1024  # most rows in a block
GROUP_ROWS = 128  # rows of a block that one thread takes at once, at least (or all)
GROUP_BYTES = 1 << 18  # of packed rows that one thread takes at once, where these are more
SHARES = 24  # parts that a block is cut into, about, if groups have the fewest rows
THREAD_SHARES = 4  # parts for each thread, at least
SPLIT_PANELS = 512  # most panels of 32 columns in a split; long splits admit few top tokens
PACKED_BYTES = 8 << 20  # of a block's rows; they stay in the outer cache
PARTIAL_BYTES = 8 << 20  # of a block's results per split
LOGIT_BYTES = 32 << 20  # of a block's logits, kept for KL and JS
MERGE_ROWS = 64  # rows merged at once
NO_IDS = torch.empty(0, dtype=torch.int64)


def c_backend(
    hidden: Tensor,
    unembedding: Unembedding | PackedUnembedding,
    watch_ids: Tensor,
    top_k: int,
    final_rows: Tensor | None,
    *,
    path: str | None = None,
) -> LensStatistics:
    """Compute the statistics on the CPU by one of `cpu_paths()`; None takes the best.

    bfloat16 rows under a bfloat16 weight are multiplied as such where the path can; all else in float32
    (float64 input too). At D = 4096 and logits of order 10 the float32 product leaves errors of up to
    1e-4 nats in `entropy` and 1e-5, relative, in `logsumexp`. Exponentials err by
    1.2e-7 + 3e-9 |x|, relative.
    A row whose logits spread over more than float32 holds, 3.4e38, counts as not finite.
    Scratch memory stays under 64 MiB, whatever R and V are, beside a copy of rows that need conversion.

    Raises ValueError for a path that the CPU lacks.
    """
    hidden = hidden.detach()
    packed = unembedding if isinstance(unembedding, PackedUnembedding) else packed_once(unembedding)
    team = ThreadTeam()
    projection = PackedProjection.of(hidden, packed, path)
    ids, places = _ascending(watch_ids)
    places = by_row(places, len(hidden))
    kept = min(max(top_k, 1), packed.vocab_size)  # the first is also the largest logit
    out = empty_statistics(len(hidden), ids.shape[-1], kept)
    divergences = None if final_rows is None else torch.empty(2, len(hidden))
    if len(hidden):
        _fill(out, divergences, projection, hidden, ids, final_rows, team)
    kl, js = (None, None) if divergences is None else divergences
    missing = top_k - kept  # negative where no place was asked for
    return LensStatistics(
        logsumexp=out["logsumexp"],
        entropy=out["entropy"],
        max_prob=out["max_prob"],
        top_ids=_padded(out["top_ids"], missing, -1),
        top_logprobs=_padded(out["top_logprobs"], missing, math.nan),
        watch_logprob=out["watch_logprob"].gather(1, places),
        watch_rank=out["watch_rank"].gather(1, places),
        watch_mass=out["watch_mass"],
        watch_entropy=out["watch_entropy"],
        kl_final=kl,
        js_final=js,
        nonfinite_rows=int(torch.isnan(out["logsumexp"]).sum()),
        backend="c",
    )


def _padded(places: Tensor, missing: int, value: float) -> Tensor:
    """Give [R, k] with so many columns more, or fewer."""
    return torch.nn.functional.pad(places, (0, missing), value=value) if missing else places


def _ascending(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Give ids as the C core takes them, and where each of the given ones is among those of its row.

    Of ids [J] each once; ids [R, J] are sorted row by row.
    """
    if ids.ndim == 1:
        given = ids.tolist()  # these are few, for which torch takes longer
        unique = sorted(set(given))
        at = {token: place for place, token in enumerate(unique)}
        places = [at[token] for token in given]
        return torch.tensor(unique, dtype=torch.int64), torch.tensor(places, dtype=torch.int64)
    ascending, order = ids.sort(dim=1)
    return ascending, order.argsort(dim=1)


@frozen(eq=False)
class PackedProjection:
    """A packed unembedding, the CPU path that multiplies by it, and the C struct that says both."""

    packed: PackedUnembedding
    path: int
    kind: int
    bias: Tensor | None  # [whole panels] float32
    head: Any

    @staticmethod
    def of(hidden: Tensor, packed: PackedUnembedding, path: str | None) -> PackedProjection:
        """Choose how rows of this type meet the weight."""
        number = path_number(path)
        pairs = hidden.dtype == packed.panels.dtype == torch.bfloat16
        if packed.panels.dtype != torch.bfloat16:
            kind = lib.LENS_FLOAT32
        else:
            multiplies = pairs and lib.lens_path_multiplies_bfloat16(number)
            kind = lib.LENS_BFLOAT16 if multiplies else lib.LENS_WIDENED
        return PackedProjection._build(packed, number, kind, packed.panels, packed.vocab_size, packed.bias)

    @staticmethod
    def _build(
        packed: PackedUnembedding, path: int, kind: int, panels: Tensor, columns: int, bias: Tensor | None
    ) -> PackedProjection:
        head = ffi.new("lens_head *")
        head.panels = pointer("panels", panels, panels.dtype)
        head.kind, head.width, head.vocabulary = kind, packed.width, columns
        if bias is not None:
            bias = torch.nn.functional.pad(regular(bias, torch.float32), (0, -columns % COLUMNS))
            head.bias = pointer("bias", bias, torch.float32)
        head.scale, head.softcap = packed.scale, packed.softcap or 0.0
        return PackedProjection(packed, path, kind, bias, head)

    def pack_rows(self, hidden: Tensor, places: Tensor, out: Tensor) -> None:
        """Pack the rows of hidden [R, D] at some places [r] into tiles.

        Torch gathers many rows on threads that spin for a while afterwards, in the way of ours.
        """
        dtype = torch.bfloat16 if self.kind == lib.LENS_BFLOAT16 else torch.float32
        if hidden.dtype != dtype or not hidden.is_contiguous():
            hidden, places = hidden[places], torch.arange(len(places))
        rows = regular(hidden, dtype)
        lib.lens_pack_rows(
            self.path, self.kind, pointer("hidden", rows, dtype), pointer("places", places, torch.int64),
            len(places), self.packed.width, pointer("rows", out, torch.uint8),
        )  # fmt: skip

    def row_bytes(self) -> int:
        """Give the bytes of one packed row."""
        width = self.packed.width
        return (width + width % 2) * (2 if self.kind == lib.LENS_BFLOAT16 else 4)

    def logits(self, rows: Tensor, count: int, ids: Tensor) -> Tensor:
        """Give the logits [count, J] of some tokens, by the very product that the statistics use."""
        x = torch.empty(count, len(ids))
        if not len(ids):
            return x
        elements = len(self.packed.panels) // -(-self.packed.vocab_size // COLUMNS)
        panels = torch.empty(-(-len(ids) // COLUMNS) * elements, dtype=self.packed.panels.dtype)
        id_pointer = pointer("watch_ids", ids, torch.int64)
        lib.lens_gather_panels(self.head, id_pointer, len(ids), pointer("watched", panels, panels.dtype))
        bias = None if self.packed.bias is None else self.packed.bias[ids]
        watched = PackedProjection._build(self.packed, self.path, self.kind, panels, len(ids), bias)
        row_pointer = pointer("rows", rows, torch.uint8)
        lib.lens_logits(
            self.path, watched.head, row_pointer, count, pointer("logits", x, torch.float32), len(ids)
        )
        return x

    def logits_by_row(self, hidden: Tensor, places: Tensor, ids: Tensor) -> Tensor:
        """Give the logits [r, J] of each row's own tokens [r, J], a panel's worth of rows at a time."""
        x = torch.empty(ids.shape)
        for rows in torch.split(torch.arange(len(ids)), COLUMNS):
            some, columns = torch.unique(ids[rows], return_inverse=True)
            packed = torch.empty(len(rows) * self.row_bytes(), dtype=torch.uint8)
            self.pack_rows(hidden, places[rows], packed)
            x[rows] = self.logits(packed, len(rows), some).gather(1, columns)
        return x


def empty_statistics(rows: int, watched: int, top: int) -> dict[str, Tensor]:
    """Give memory for all but the divergences of rows with so many watched tokens and top places."""
    names = ("logsumexp", "entropy", "max_prob", "watch_mass", "watch_entropy")
    out = {name: torch.empty(rows) for name in names}
    out["top_ids"] = torch.empty(rows, top, dtype=torch.int64)
    out["top_logprobs"] = torch.empty(rows, top)
    out["watch_logprob"] = torch.empty(rows, watched)
    out["watch_rank"] = torch.empty(rows, watched, dtype=torch.int64)
    return out


def _fill(
    out: dict[str, Tensor],
    divergences: Tensor | None,
    projection: PackedProjection,
    hidden: Tensor,
    ids: Tensor,
    final_rows: Tensor | None,
    team: ThreadTeam,
) -> None:
    """Compute statistics into `out`, and KL and JS into `divergences` [2, R], block by block."""
    watched, top, wanted = out["watch_rank"].shape[1], out["top_ids"].shape[1], divergences is not None
    limit = _block_rows(len(hidden), _most_rows(projection, watched, top, wanted), wanted)
    work = Workspace(projection, limit, out, wanted, team)
    for rows, pairs in _blocks(len(hidden), final_rows, limit):
        work.compute(hidden, rows, ids[rows] if ids.ndim == 2 else ids)
        if divergences is not None and pairs is not None:
            divergences[:, rows[pairs[0]]] = work.divergences(*pairs)


def _split_panels(panels: int, rows: int) -> int:
    """Give the panels per split of blocks of at most so many rows, whoever computes them."""
    return min(SPLIT_PANELS, max(1, panels * -(-rows // GROUP_ROWS) // SHARES))


def _groups(rows: int, row_bytes: int, splits: int, threads: int) -> int:
    """Give the groups that a block's rows are cut into: each reads the weight once. No bit hangs on them."""
    fewest = -(-rows // max(GROUP_ROWS, GROUP_BYTES // row_bytes))
    wanted = -(-THREAD_SHARES * threads // splits)
    return min(max(fewest, wanted), -(-rows // GROUP_ROWS))


def _most_rows(projection: PackedProjection, watched: int, top: int, divergences: bool) -> int:
    """Give the rows of a block whose scratch stays in bounds."""
    vocabulary = projection.packed.vocab_size
    splits = max(2 * SHARES, -(-vocabulary // (SPLIT_PANELS * COLUMNS)))
    rows = min(ROWS, PACKED_BYTES // projection.row_bytes())
    rows = min(rows, PARTIAL_BYTES // (splits * (20 + 8 * top + 4 * watched)))
    if divergences:
        rows = min(rows, LOGIT_BYTES // (4 * (vocabulary + -vocabulary % COLUMNS)))
    return max(rows, 2)  # a row and its final row


def _block_rows(count: int, most: int, divergences: bool) -> int:
    """Give the rows of blocks that are as equal as they can be; at a cut, a final row may stand in both."""
    cuts = -(-count // most) - 1
    return min(most, max(2, -(-(count + (2 * cuts if divergences else 0)) // (cuts + 1))))


def _blocks(
    count: int, final_rows: Tensor | None, limit: int
) -> Iterator[tuple[Tensor, tuple[Tensor, Tensor] | None]]:
    """Yield (rows, pairs) of every block; pairs are (row, final row) as places in the block.

    Rows of one final row stand together. Where a block cuts them, both blocks compute the final row, to the
    same bits.
    """
    if final_rows is None:
        for first in range(0, count, limit):
            yield torch.arange(first, min(first + limit, count)), None
        return
    finals = final_rows.tolist()
    places: dict[int, int] = {}
    pairs: list[tuple[int, int]] = []
    for row in sorted(range(count), key=finals.__getitem__):
        if len(places.keys() | {row, finals[row]}) > limit:
            yield _block(places, pairs)
            places, pairs = {}, []
        for member in (finals[row], row):
            places.setdefault(member, len(places))
        pairs.append((places[row], places[finals[row]]))
    yield _block(places, pairs)


def _block(places: dict[int, int], pairs: list[tuple[int, int]]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    row, final = torch.tensor(pairs).T.contiguous()
    return torch.tensor(list(places)), (row, final)


class Workspace:
    """Memory for one block of rows at a time, and the C structs that point into it."""

    def __init__(
        self,
        projection: PackedProjection,
        rows: int,
        out: dict[str, Tensor],
        divergences: bool,
        team: ThreadTeam,
    ) -> None:
        """Take memory for so many rows; `out` is `empty_statistics`, of all rows."""
        watched, top = out["watch_rank"].shape[1], out["top_ids"].shape[1]
        panels = -(-projection.packed.vocab_size // COLUMNS)
        split_panels = _split_panels(panels, rows)
        splits = -(-panels // split_panels)
        groups = _groups(rows, projection.row_bytes(), splits, team.size)
        self.projection, self.team = projection, team
        self.rows = torch.empty(rows * projection.row_bytes(), dtype=torch.uint8)
        self.scratch = torch.empty(team.size, lib.lens_scratch_bytes(rows), dtype=torch.uint8)
        self.scratch_of = [pointer("scratch", part, torch.uint8) for part in self.scratch]  # by slot
        self.partial = {
            "reference": torch.empty(splits, rows),
            "total": torch.empty(splits, rows, dtype=torch.float64),
            "weighted": torch.empty(splits, rows, dtype=torch.float64),
            "top_values": torch.empty(splits, rows, top),
            "top_ids": torch.empty(splits, rows, top, dtype=torch.int32),
            "ranks": torch.empty(splits, rows, watched, dtype=torch.int32),
        }
        if divergences:
            logits = torch.empty(rows * panels * COLUMNS)
            lib.lens_advise_huge(ffi.cast("void *", logits.data_ptr()), logits.nbytes)
            self.partial["logits"] = logits
            self.pair_sums = torch.empty(2, splits * rows, dtype=torch.float64)
        self.result = out | {"maximum": torch.empty(rows), "log_total": torch.empty(rows)}
        self.block, self.c_result = ffi.new("lens_block *"), ffi.new("lens_result *")
        for struct, tensors in ((self.block, self.partial), (self.c_result, self.result)):
            for name, tensor in tensors.items():
                setattr(struct, name, pointer(name, tensor, tensor.dtype))
        self.block.head = projection.head[0]
        self.block.rows = pointer("rows", self.rows, torch.uint8)
        self.block.splits, self.block.split_panels, self.block.groups = splits, split_panels, groups
        self.block.top = top
        self.block.watch_count = watched

    def compute(self, hidden: Tensor, places: Tensor, ids: Tensor = NO_IDS) -> None:
        """Compute all but divergences of the rows of hidden [R, D] at places [r]; ids: of `_ascending`."""
        count, path = len(places), self.projection.path
        self.projection.pack_rows(hidden, places, self.rows)
        if ids.ndim == 2:
            watched = self.projection.logits_by_row(hidden, places, ids)
            self.block.watch_stride = ids.shape[1]
        else:
            watched = self.projection.logits(self.rows, count, ids)
        self.block.watch_ids = pointer("watch_ids", ids, torch.int64)
        self.c_result.places = pointer("places", places, torch.int64)
        self.block.count = count
        self.block.watched = pointer("watched", watched, torch.float32)

        def reduce(part: int, slot: int) -> None:
            # Groups of one split come one after another, so that threads read the same panels.
            split, group = divmod(part, self.block.groups)
            lib.lens_reduce(path, self.block, split, group, self.scratch_of[slot])

        def merge(part: int, _: int) -> None:
            end = min(count, (part + 1) * MERGE_ROWS)
            lib.lens_merge(self.block, self.c_result, part * MERGE_ROWS, end)

        self.team.share(reduce, self.block.splits * self.block.groups)
        self.team.share(merge, -(-count // MERGE_ROWS))

    def divergences(self, row: Tensor, final: Tensor) -> Tensor:
        """Give KL(final ‖ row) and JS(final, row), [2, n], of pairs of places in the block computed last."""
        kl, js = both = torch.empty(2, len(row))
        pairs = ffi.new("lens_pairs *")
        pairs.count = len(row)
        pairs.row, pairs.final = (pointer("pairs", places, torch.int64) for places in (row, final))
        pairs.kl, pairs.js = (pointer("pair_sums", sums, torch.float64) for sums in self.pair_sums)

        def diverge(split: int, slot: int) -> None:
            scratch = self.scratch_of[slot]
            lib.lens_diverge(self.projection.path, self.block, self.c_result, pairs, split, scratch)

        self.team.share(diverge, self.block.splits)
        out = (pointer("kl", kl, torch.float32), pointer("js", js, torch.float32))
        lib.lens_merge_divergences(self.block, self.c_result, pairs, *out)
        return both

    def broken(self) -> Tensor:
        """Tell which rows of the block computed last have a NaN or infinite logit."""
        return torch.isnan(self.result["maximum"])
