"""Pack rows into tiles: with their final layers' rows, or with rows whose watched tokens are neighbours."""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor

from kernels.gpu.lens_tiles import ceil_div


@frozen(eq=False)
class Packing:
    """N slots of whole tiles: which row is in each, and where in its tile that row's final row is."""

    slots: Tensor  # [N] int32, row in each slot
    places: Tensor  # [N] int32, slot within the tile
    rows: Tensor  # [M] int64, the rows that have another row as their final row
    row_slots: Tensor  # [M] int64, their slots


def pack_watched(ids: Tensor, vocab: int, block: int) -> tuple[Tensor, Tensor]:
    """Pack watched tokens [J, R] into tiles of slots, so that those of one tile lie in one vocabulary tile.

    Returns:
        The place in [J, R] of each slot's token, -1 for none, [N] int32; and each tile's vocabulary tile as
        its first column and the end, [N / block, 2] int32, for a loop of one step.
    """
    tiles = ids.flatten().long() // vocab
    order = torch.argsort(tiles, stable=True)
    known, counts = torch.unique_consecutive(tiles[order], return_counts=True)
    blocks = (counts + block - 1) // block
    opening = (blocks.cumsum(0) - blocks) * block - (counts.cumsum(0) - counts)
    slots = torch.arange(len(order), device=ids.device) + torch.repeat_interleave(opening, counts)
    first = torch.repeat_interleave(known * vocab, blocks).int()
    places = torch.full((len(first) * block,), -1, dtype=torch.int32, device=ids.device)
    places[slots] = order.int()
    return places, torch.stack([first, first + 1], dim=1).contiguous()


def pack(final_rows: Tensor, block: int) -> Packing:
    """Pack the rows that have another row as their final row, group by group; final_rows: [R] int64.

    A group is cut where a tile is full, and its final row opens each part. Rows that are their own final
    rows diverge by nothing, so they are packed only for others.
    """
    device = final_rows.device
    members = torch.nonzero(final_rows != torch.arange(len(final_rows), device=device)).flatten()
    rows = members[torch.argsort(final_rows[members], stable=True)]
    finals, counts = torch.unique_consecutive(final_rows[rows], return_counts=True)
    openers, leaders, sizes = [], [], []
    used = 0
    for final, count in zip(finals.tolist(), counts.tolist(), strict=True):
        while count:
            room = block - used % block
            if room == 1:  # no place for a final row and a member
                used += 1
                continue
            size = min(count, room - 1)
            openers.append(used)
            leaders.append(final)
            sizes.append(size)
            used += size + 1
            count -= size
    opener, leader, size = (
        torch.tensor(x, dtype=torch.int64, device=device) for x in (openers, leaders, sizes)
    )
    opened_by = torch.repeat_interleave(opener, size)
    within = torch.arange(len(rows), device=device) - torch.repeat_interleave(size.cumsum(0) - size, size)
    row_slots = opened_by + 1 + within
    slots = torch.zeros(ceil_div(used, block) * block, dtype=torch.int32, device=device)
    places = torch.zeros_like(slots)
    slots[opener], slots[row_slots] = leader.int(), rows.int()
    places[opener], places[row_slots] = (opener % block).int(), (opened_by % block).int()
    return Packing(slots, places, rows, row_slots)
