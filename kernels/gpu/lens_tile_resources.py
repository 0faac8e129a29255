"""What chips have, and a model of what a tile takes: enough to prune a tuning space without compiling it.

Shared memory follows from the pipeline's buffers. Registers are a line in the accumulators per thread, fitted
to what the shipped tiles compile to; `tests/kernels/test_compile.py` holds both against the compiler.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from attrs import frozen

from kernels.gpu.lens_tiles import Tile


@frozen
class Chip:
    """What a program of a chip may have, from its maker's tuning guides."""

    lanes: int  # threads per warp
    registers: int  # per lane and multiprocessor, all warps together, in units of one warp
    most_registers: int  # per thread
    shared: int  # bytes


CHIPS = {
    "sm_80": Chip(32, 2048, 255, 166_912),
    "sm_90": Chip(32, 2048, 255, 232_448),
    "sm_100": Chip(32, 2048, 255, 232_448),
    "gfx942": Chip(64, 2048, 512, 65_536),
}

# Registers per thread: chip → (base, per number of the tile that a thread holds), of pass one and pass two.
LINES = {
    "sm_80": ((50, 2.0), (70, 1.6)),
    "sm_90": ((46, 1.63), (20, 2.0)),
    "sm_100": ((28, 3.4), (20, 2.0)),
    "gfx942": ((100, 2.6), (105, 1.0)),
}


@frozen
class Prediction:
    """What a tile is expected to take."""

    registers: int  # per thread
    shared: int  # bytes per program


def predict(kernel: str, chip: str, operand_bytes: int, tile: Tile) -> Prediction:
    """Predict the resources of "sums" or "divergences" at a tile."""
    held = tile.rows * tile.vocab / (CHIPS[chip].lanes * tile.warps)
    if kernel == "divergences":  # beside the tile, a piece of its final rows
        held += held / tile.pieces
    base, slope = LINES[chip][kernel == "divergences"]
    # Warp-group products read both operands out of shared memory, so no buffer is free before they end.
    grouped = chip in ("sm_90", "sm_100") and operand_bytes == 2 and tile.rows >= 64
    buffers = tile.stages if grouped else max(1, tile.stages - 1)
    shared = buffers * (tile.rows + tile.vocab) * tile.depth * operand_bytes
    if kernel == "divergences":  # the gather of final rows goes through shared memory
        shared = max(shared, tile.rows * tile.vocab * 4 // tile.pieces)
    return Prediction(round(base + slope * held), shared)


def register_limit(chip: str, warps: int) -> int:
    """Give the registers that a thread may have, for a program of so many warps to fit at all."""
    return min(CHIPS[chip].most_registers, CHIPS[chip].registers // warps)


def candidates(kernel: str, chip: str, operand_bytes: int, n_rows: int) -> Iterator[Tile]:
    """Yield the tiles worth timing: those that fit the chip by the model, none larger than the rows need."""
    pieces = (1,) if kernel == "sums" else (1, 2, 4, 8)
    shapes = product((16, 32, 64, 128), (64, 128, 256), (32, 64, 128), (4, 8), (2, 3, 4, 5), pieces)
    for shape in shapes:
        tile = Tile(*shape)
        expected = predict(kernel, chip, operand_bytes, tile)
        fits = expected.registers <= register_limit(chip, tile.warps) and expected.shared + 1024 <= CHIPS[
            chip
        ].shared + 1024 * (CHIPS[chip].lanes == 64)
        if fits and tile.rows < 2 * max(16, n_rows):
            yield tile
