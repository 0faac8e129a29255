"""Tile shapes: one fixed choice per chip, operand size and number of rows.

Chosen by compiling, not by timing: the largest tiles whose kernels spill no register (tests compile each for
its chip). Wide tiles read less from L2 per product; few rows are bound by reading W, so theirs are long.
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

# (chip, bytes per operand) → tiles of pass one for few, some and many rows.
SUMS = {
    ("sm_80", 2): (Tile(16, 128, 64, 4, 5), Tile(64, 128, 64, 4, 3), Tile(128, 128, 32, 8, 4)),
    ("sm_90", 2): (Tile(16, 128, 128, 4, 4), Tile(64, 128, 64, 4, 4), Tile(128, 256, 64, 8, 4)),
    ("sm_100", 2): (Tile(16, 128, 128, 4, 4), Tile(64, 128, 64, 4, 4), Tile(128, 128, 64, 8, 4)),
    ("gfx942", 2): (Tile(16, 64, 128, 4, 2), Tile(64, 64, 64, 4, 2), Tile(128, 128, 64, 8, 2)),
    ("sm_80", 4): (Tile(16, 64, 32, 4, 3), Tile(64, 64, 32, 8, 3), Tile(64, 64, 32, 8, 3)),
    ("sm_90", 4): (Tile(16, 64, 32, 4, 3), Tile(64, 64, 32, 8, 3), Tile(64, 64, 32, 8, 3)),
    ("sm_100", 4): (Tile(16, 64, 32, 4, 3), Tile(64, 64, 32, 8, 3), Tile(64, 64, 32, 8, 3)),
    ("gfx942", 4): (Tile(16, 64, 32, 4, 2), Tile(64, 64, 32, 4, 2), Tile(64, 64, 32, 4, 2)),
}

# The same for pass two, which holds a tile and parts of its final rows at once.
DIVERGENCES = {
    ("sm_80", 2): (Tile(16, 128, 64, 4, 5), Tile(64, 128, 64, 8, 3), Tile(128, 128, 32, 16, 3)),
    ("sm_90", 2): (Tile(16, 128, 128, 4, 4), Tile(64, 128, 64, 8, 4), Tile(128, 128, 64, 8, 4, pieces=8)),
    ("sm_100", 2): (Tile(16, 128, 128, 4, 4), Tile(64, 128, 64, 8, 4), Tile(128, 128, 64, 8, 4, pieces=4)),
    ("gfx942", 2): (Tile(16, 64, 128, 4, 2), Tile(64, 64, 64, 4, 2), Tile(128, 128, 64, 8, 1)),
    ("sm_80", 4): SUMS["sm_80", 4],
    ("sm_90", 4): SUMS["sm_90", 4],
    ("sm_100", 4): SUMS["sm_100", 4],
    ("gfx942", 4): SUMS["gfx942", 4],
}

PLAIN = Tile(128, 128, 64, 8, 4)  # where the widest tile of sm_90 would spill


def sums_tile(chip: str, operand_bytes: int, n_rows: int, top: int, *, simple: bool) -> Tile:
    """Choose the tile of pass one; `top`: kept entries; simple: TMA, and not both bias and soft-cap."""
    few, some, many = SUMS[chip, operand_bytes]
    if n_rows <= FEW or top > 16:  # the kept entries take registers of every row
        return few
    if n_rows <= SOME:
        return some
    return many if simple and top <= 8 or many.vocab <= PLAIN.vocab else PLAIN


def divergences_tile(chip: str, operand_bytes: int, n_rows: int) -> Tile:
    """Choose the tile of pass two."""
    few, some, many = DIVERGENCES[chip, operand_bytes]
    return few if n_rows <= FEW else some if n_rows <= SOME else many


def n_splits(n_rows: int, vocab_size: int, tile: Tile, processors: int) -> int:
    """Give the number of vocabulary splits.

    Few row tiles need many splits to keep every multiprocessor busy; many row tiles need as many splits as
    let one group of row tiles fill the chip.
    """
    row_tiles = -(-n_rows // tile.rows)
    resident = 4 if tile.rows <= FEW else 2 if tile.rows <= SOME else 1  # programs per multiprocessor
    wanted = max(-(-processors * resident // row_tiles), -(-processors // tile.group))
    vocab_tiles = -(-vocab_size // tile.vocab)
    per_split = -(-vocab_tiles // min(wanted, vocab_tiles))
    return -(-vocab_tiles // per_split)
