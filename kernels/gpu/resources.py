"""What chips have, and a model of what a tile takes: enough to prune a tuning space without compiling it.

Shared memory follows from the pipeline's buffers. Registers are a line in the accumulators per thread, fitted
to what the shipped tiles compile to; `tests/kernels/test_compile.py` holds both against the compiler.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from attrs import frozen

from kernels.gpu.tiles import Tile


@frozen
class Chip:
    """Limits and peak rates of a chip, from its maker's data sheets and tuning guides."""

    processors: int  # multiprocessors, or compute units
    lanes: int  # threads per warp
    registers: int  # per lane and multiprocessor, all warps together, in units of one warp
    most_registers: int  # per thread
    shared: int  # bytes that one program may have
    shared_total: int  # bytes per multiprocessor
    warps: int  # resident per multiprocessor
    clock: float  # Hz, boost
    half_flops: float  # dense bfloat16 FLOP/s
    bandwidth: float  # bytes/s of the main memory


CHIPS = {
    "sm_80": Chip(108, 32, 2048, 255, 166_912, 167_936, 64, 1.41e9, 312e12, 2.04e12),
    "sm_90": Chip(132, 32, 2048, 255, 232_448, 233_472, 64, 1.83e9, 989e12, 3.35e12),
    "sm_100": Chip(148, 32, 2048, 255, 232_448, 233_472, 64, 1.85e9, 2250e12, 8.0e12),
    "gfx942": Chip(304, 64, 2048, 512, 65_536, 65_536, 32, 2.10e9, 1307e12, 5.3e12),
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


def programs_per_processor(chip: str, warps: int, registers: int, shared: int) -> int:
    """Give how many programs reside on a multiprocessor at once; registers come in eights, shared in KiB."""
    has = CHIPS[chip]
    by_registers = has.registers // (-(-registers // 8) * 8 * warps)
    return min(
        by_registers, has.warps // warps, has.shared_total // (shared + 1024 if has.lanes == 32 else shared)
    )


def candidates(kernel: str, chip: str, operand_bytes: int, n_rows: int) -> Iterator[Tile]:
    """Yield the tiles worth timing: those that fit the chip by the model, none larger than the rows need."""
    pieces = (1,) if kernel == "sums" else (1, 4, 8)
    shapes = product((16, 32, 64, 128), (64, 128, 256), (32, 64, 128), (4, 8), (2, 3, 4, 5), pieces)
    for shape in shapes:
        tile = Tile(*shape)
        expected = predict(kernel, chip, operand_bytes, tile)
        fits = expected.registers <= register_limit(chip, tile.warps) and expected.shared + 1024 <= CHIPS[
            chip
        ].shared + 1024 * (CHIPS[chip].lanes == 64)
        if fits and tile.rows < 2 * max(16, n_rows):
            yield tile
