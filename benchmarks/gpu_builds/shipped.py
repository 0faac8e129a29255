"""All that the launcher can choose: every kernel, tile and chip, to be compiled and held against the chip."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from benchmarks.gpu_builds.ahead import KernelResources, compile_lens
from kernels.gpu.lens_tiles import (
    DIVERGENCES,
    LONGEST_TOP,
    PLAIN,
    SUMS,
    Tile,
    divergences_tile,
    sums_tile,
    uses_tma,
)


@frozen
class Build:
    """A lens kernel at a tile, for a chip. `extras`, of "bias" and "softcap", take registers.

    With extras, it is for widths that the tile's depth does not divide, so that it is at its fullest.
    """

    kernel: str
    chip: str
    dtype: str
    tile: Tile
    tma: bool
    extras: str = ""
    top: int = 8
    by_row: bool = False  # each row watches tokens of its own

    @property
    def operand_bytes(self) -> int:
        """Bytes per element of H and W."""
        return 4 if self.dtype == "fp32" else 2

    def compile(self) -> KernelResources:
        """Compile it and read what it takes; Triton's cache on disk makes the second time fast."""
        extras = self.extras.split()
        return compile_lens(
            self.kernel,
            self.chip,
            self.dtype,
            self.tile,
            bias="bias" in extras,
            softcap="softcap" in extras,
            tma=self.tma,
            even=not extras,
            top=self.top,
            by_row=self.by_row,
        )


def compile_build(build: Build) -> KernelResources:
    """Compile one build; a function by name, so that a process pool can send it."""
    return build.compile()


def lens_builds() -> list[Build]:
    """Give every tile of the tables at its plainest and at its fullest, and the special cases."""
    return list(dict.fromkeys([*_table_builds(), *_long_tops(), *_widest(), *_without_tma()]))


def _table_builds() -> Iterator[Build]:
    for kernel, table in (("sums", SUMS), ("divergences", DIVERGENCES)):
        for (chip, size), tiles in table.items():
            dtype = "bf16" if size == 2 else "fp32"
            for tile in tiles:
                fullest = "bias" if tile.vocab > PLAIN.vocab else "bias softcap"
                for extras in ("", fullest):
                    yield Build(kernel, chip, dtype, tile, uses_tma(chip, size), extras)
                if kernel == "sums":
                    yield Build(kernel, chip, dtype, tile, uses_tma(chip, size), fullest, by_row=True)


def _long_tops() -> Iterator[Build]:
    for (chip, size), (few, _, _) in SUMS.items():
        if size == 2:
            tma = uses_tma(chip, size)
            yield Build("sums", chip, "bf16", few, tma, extras="bias softcap", top=LONGEST_TOP)


def _widest() -> Iterator[Build]:
    widest = SUMS["sm_90", 2][2]
    yield Build("sums", "sm_90", "bf16", PLAIN, tma=True, extras="softcap")
    yield Build("sums", "sm_90", "fp16", widest, tma=True)
    yield Build("sums", "sm_90", "bf16", PLAIN, tma=True, extras="bias softcap", top=16)


def _without_tma() -> Iterator[Build]:
    for chip in ("sm_90", "sm_100"):
        for size, dtype in ((2, "bf16"), (4, "fp32")):
            for rows in (16, 64, 4096):
                sums = sums_tile(chip, size, rows, 8, tma=False, capped=True)
                yield Build("sums", chip, dtype, sums, tma=False, extras="bias softcap")
                divergences = divergences_tile(chip, size, rows, tma=False)
                yield Build("divergences", chip, dtype, divergences, tma=False, extras="bias softcap")
