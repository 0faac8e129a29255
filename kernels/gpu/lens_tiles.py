"""Tile shapes: one fixed choice per chip, operand size and number of rows.

Chosen by compiling, not by timing: the largest tiles whose kernels spill no register with Triton 3.6, 3.7 and
3.9 (tests compile each for its chip). Wide tiles read less from L2 per product; few rows are bound by reading
W, so theirs are long.
"""

from __future__ import annotations

from attrs import frozen


@frozen
class Tile:
    """A tile of logits and how a program computes it."""

    rows: int
    vocab: int
    depth: int  # columns of H and W per step of the product
    warps: int
    stages: int  # steps of the product in flight
    pieces: int = 1  # pieces of columns that the divergences are summed in
    group: int = 16  # row tiles that go through the vocabulary together


FEW, SOME = 16, 64  # rows up to which the narrow tiles serve

# (chip, bytes per operand) → tiles of pass one for few, some and many rows. Those of sm_90 and sm_100 load
# by TMA; where that is not possible, and for float32, every NVIDIA chip takes the tiles of sm_80.
SUMS = {
    ("sm_80", 2): (Tile(16, 64, 128, 4, 4), Tile(64, 128, 64, 4, 3), Tile(128, 128, 32, 8, 4)),
    ("sm_90", 2): (Tile(16, 128, 128, 4, 4), Tile(64, 128, 64, 4, 4), Tile(128, 256, 64, 8, 4)),
    ("sm_100", 2): (Tile(16, 128, 128, 4, 4), Tile(64, 128, 64, 4, 4), Tile(128, 128, 64, 8, 4)),
    ("gfx942", 2): (Tile(16, 64, 128, 4, 2), Tile(64, 64, 64, 4, 2), Tile(128, 128, 64, 8, 2)),
    ("sm_80", 4): (Tile(16, 64, 32, 8, 3), Tile(64, 64, 32, 8, 2), Tile(64, 64, 32, 8, 2)),
    ("gfx942", 4): (Tile(16, 64, 32, 4, 2), Tile(64, 64, 32, 4, 2), Tile(64, 64, 32, 4, 2)),
}

# The same for pass two, which holds a tile and parts of its final rows at once.
DIVERGENCES = {
    ("sm_80", 2): (Tile(16, 64, 128, 4, 4), Tile(64, 128, 64, 8, 3), Tile(128, 128, 32, 16, 3)),
    ("sm_90", 2): (Tile(16, 128, 128, 4, 4), Tile(64, 128, 64, 8, 4), Tile(128, 128, 64, 8, 4, pieces=8)),
    ("sm_100", 2): (Tile(16, 128, 128, 4, 4), Tile(64, 128, 64, 8, 4), Tile(128, 64, 64, 8, 4, pieces=2)),
    ("gfx942", 2): (Tile(16, 64, 128, 4, 2), Tile(64, 64, 64, 4, 2), Tile(128, 128, 64, 8, 1)),
    ("sm_80", 4): SUMS["sm_80", 4],
    ("gfx942", 4): SUMS["gfx942", 4],
}

PLAIN = Tile(128, 128, 64, 8, 4)  # where the widest tile of sm_90 would spill
MOST_TOP = 16  # kept entries that wide tiles have registers for
LONGEST_TOP = 32  # and that any tile has
MOST_KEPT = 16384  # kept entries of all splits that the merge of a row has registers for


def uses_tma(chip: str, operand_bytes: int) -> bool:
    """Whether the tiles of a chip load by TMA, given that rows of W start on 16 bytes."""
    return chip in ("sm_90", "sm_100") and operand_bytes == 2


def sums_tile(chip: str, operand_bytes: int, n_rows: int, top: int, *, tma: bool, capped: bool) -> Tile:
    """Choose the tile of pass one; top: kept entries; capped: with a soft-cap of the logits."""
    few, some, many = SUMS[_shapes(chip, tma=tma), operand_bytes]
    if n_rows <= FEW or top > MOST_TOP:
        return few
    if n_rows <= SOME:
        return some
    return PLAIN if many.vocab > PLAIN.vocab and (capped or top > 8) else many


def divergences_tile(chip: str, operand_bytes: int, n_rows: int, *, tma: bool) -> Tile:
    """Choose the tile of pass two."""
    shapes = _shapes(chip, tma=tma)
    few, some, many = DIVERGENCES[shapes, operand_bytes]
    if n_rows <= FEW:
        return few
    return some if n_rows <= SOME or shapes != chip else many  # another chip's widest tile would spill


def _shapes(chip: str, *, tma: bool) -> str:
    return chip if tma or chip.startswith("gfx") else "sm_80"


def tiles_per_split(n_rows: int, vocab_size: int, tile: Tile, processors: int, top: int = 1) -> int:
    """Give the number of vocabulary tiles that one program goes through.

    Few row tiles need many splits to keep every multiprocessor busy; many row tiles need as many splits as
    let one group of row tiles fill the chip. Among up to twice as many, the number is taken that leaves the
    least idle in the last wave. top: entries that each split keeps, for a merge to take.
    """
    row_tiles, vocab_tiles = ceil_div(n_rows, tile.rows), ceil_div(vocab_size, tile.vocab)
    resident = 4 if tile.rows <= FEW else 2 if tile.rows <= SOME else 1  # programs per multiprocessor
    slots = processors * resident
    least = max(ceil_div(slots, row_tiles), ceil_div(processors, tile.group))
    most = min(vocab_tiles, MOST_KEPT // top)

    def steps(splits: int) -> int:
        return ceil_div(row_tiles * splits, slots) * ceil_div(vocab_tiles, splits)

    splits = min(range(min(least, most), min(2 * least, most) + 1), key=steps)
    return ceil_div(vocab_tiles, splits)


def n_splits(n_rows: int, vocab_size: int, tile: Tile, processors: int, top: int = 1) -> int:
    """Give the number of vocabulary splits."""
    return ceil_div(vocab_size, tile.vocab * tiles_per_split(n_rows, vocab_size, tile, processors, top))


def ceil_div(a: int, b: int) -> int:
    """Divide and round up."""
    return -(-a // b)
