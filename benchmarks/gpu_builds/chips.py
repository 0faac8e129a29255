"""What whole chips have, from their makers' data sheets and tuning guides, beside one program's limits."""

from attrs import frozen

from kernels.gpu.lens_tile_resources import CHIPS


@frozen
class Rates:
    """Multiprocessors of a chip, and its peak rates."""

    processors: int  # multiprocessors, or compute units
    shared_total: int  # bytes per multiprocessor
    warps: int  # resident per multiprocessor
    clock: float  # Hz, boost
    half_flops: float  # dense bfloat16 FLOP/s
    bandwidth: float  # bytes/s of the main memory


RATES = {
    "sm_80": Rates(108, 167_936, 64, 1.41e9, 312e12, 2.04e12),
    "sm_90": Rates(132, 233_472, 64, 1.83e9, 989e12, 3.35e12),
    "sm_100": Rates(148, 233_472, 64, 1.85e9, 2250e12, 8.0e12),
    "gfx942": Rates(304, 65_536, 32, 2.10e9, 1307e12, 5.3e12),
}


def programs_per_processor(chip: str, warps: int, registers: int, shared: int) -> int:
    """Give how many programs reside on a multiprocessor at once; registers come in eights, shared in KiB."""
    limits, has = CHIPS[chip], RATES[chip]
    by_registers = limits.registers // (-(-registers // 8) * 8 * warps)
    own = shared + 1024 if limits.lanes == 32 else shared
    return min(by_registers, has.warps // warps, has.shared_total // own)
