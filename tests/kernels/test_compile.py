"""Compile every shipped tile for every chip, without one at hand, and hold it against the chip's limits."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import attrs
import pytest

pytest.importorskip("triton")

import triton

from benchmarks.gpu_builds.ahead import (
    KernelResources,
    compile_activation,
    compile_attention,
    compile_gradient,
    compile_merge,
)
from benchmarks.gpu_builds.shipped import Build, compile_build, lens_builds
from kernels.gpu.attention_entropies import HeadTile, head_tile
from kernels.gpu.lens_gradients import WARPS as GRADIENT_WARPS
from kernels.gpu.lens_tile_resources import CHIPS, candidates, predict, register_limit
from kernels.gpu.lens_tiles import (
    DIVERGENCES,
    LONGEST_TOP,
    MOST_KEPT,
    SUMS,
    ceil_div,
    n_splits,
    sums_tile,
    uses_tma,
)

COMPILER = tuple(map(int, triton.__version__.split(".")[:2]))
pytestmark = [
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="nothing is compiled then"),
    pytest.mark.skipif(
        COMPILER not in ((3, 6), (3, 7), (3, 9)),
        reason="tiles were chosen with the compilers of 3.6, 3.7 and 3.9; that of 3.8 spills up to 40 bytes",
    ),
]


def head_builds() -> Iterator[tuple[str, str, HeadTile, int]]:
    """The attention entropy for heads of usual widths."""
    for chip in CHIPS:
        for dtype, size in (("bf16", 2), ("fp32", 4)):
            for width in (64, 128, 256, 512):
                yield chip, dtype, head_tile(size, width), width


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        yield executor


@pytest.fixture(scope="module")
def built(pool: ProcessPoolExecutor) -> dict[Build, KernelResources]:
    builds = lens_builds()
    return dict(zip(builds, pool.map(compile_build, builds, chunksize=4), strict=True))


def check(chip: str, warps: int, taken: KernelResources) -> None:
    assert taken.stack == 0
    assert taken.registers <= register_limit(chip, warps)
    assert taken.shared <= CHIPS[chip].shared


def test_no_shipped_lens_tile_spills(built: dict[Build, KernelResources]) -> None:
    for build, taken in built.items():
        if build.by_row and (build.chip, build.dtype, COMPILER) == ("sm_80", "fp32", (3, 6)):
            # One build of all keeps 16 bytes on the stack, under this compiler alone; its 80 registers are
            # far from the limit.
            assert taken.stack <= 16, (build, taken.registers, taken.stack)
            taken = attrs.evolve(taken, stack=0)
        assert taken.stack == 0, (build, taken.registers, taken.stack)
        check(build.chip, build.tile.warps, taken)


def test_products_take_the_chips_matrix_units(built: dict[Build, KernelResources]) -> None:
    units = {
        "sm_80": r"mma\.sync", "sm_90": r"wgmma\.mma", "sm_100": r"tcgen05\.mma", "gfx942": "v_mfma_f32",
    }  # fmt: skip
    for build, taken in built.items():
        if build.dtype != "fp32" and build.tile.rows >= 64:
            assert re.search(units[build.chip], taken.assembly), build
        assert ("cp.async.bulk.tensor" in taken.assembly) == build.tma, build
        if build.dtype == "fp32" and build.chip != "gfx942":
            assert "tf32" not in taken.assembly, build


@pytest.mark.skipif(COMPILER < (3, 9), reason="the model of registers is that of the compiler of 3.9")
def test_the_model_is_near_what_the_compiler_gives(built: dict[Build, KernelResources]) -> None:
    for build, taken in built.items():
        expected = predict(build.kernel, build.chip, build.operand_bytes, build.tile)
        assert expected.shared <= taken.shared <= expected.shared + 64, build
        if build.operand_bytes == 2 and build.tma == uses_tma(build.chip, 2):
            assert 0.7 * taken.registers <= expected.registers <= 1.5 * taken.registers, (
                build,
                taken.registers,
            )


def test_the_page_of_computed_times_is_true(built: dict[Build, KernelResources]) -> None:
    """Needs `built` only because what was compiled once is read from Triton's cache."""
    root = Path(__file__).parents[2]
    if f"Triton {triton.__version__}" not in (root / "docs/kernels.md").read_text():
        pytest.skip("the page was computed with another Triton")
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.roofline", "--check"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("chip", CHIPS)
def test_the_merge_fits_without_spills(chip: str) -> None:
    for splits, top in ((16, 8), (512, 8), (2048, 8), (512, LONGEST_TOP)):
        taken = compile_merge(chip, splits, top, watched=8)
        assert taken.stack == 0, (splits, top, taken.registers, taken.stack)
        assert taken.shared <= 8192


def test_the_gradient_of_the_divergence_fits_without_spills(pool: ProcessPoolExecutor) -> None:
    builds = [
        (kernel, chip, dtype, full)
        for kernel in ("normalisers", "slopes")
        for chip in CHIPS
        for dtype in ("bf16", "fp16", "fp32")
        for full in (False, True)
    ]
    for build, taken in zip(builds, pool.map(build_gradient, builds, chunksize=4), strict=True):
        check(build[1], GRADIENT_WARPS, taken)
        assert 4 * taken.registers * GRADIENT_WARPS <= CHIPS[build[1]].registers, (build, taken.registers)


def build_gradient(build: tuple[str, str, str, bool]) -> KernelResources:
    kernel, chip, dtype, full = build
    return compile_gradient(kernel, chip, dtype, bias=full, softcap=full)


def test_attention_and_activation_fit_without_spills(pool: ProcessPoolExecutor) -> None:
    builds = list(head_builds())
    for build, taken in zip(builds, pool.map(build_head, builds, chunksize=4), strict=True):
        check(build[0], build[2].warps, taken)
    for chip in CHIPS:
        for width in (4096, 32768):
            taken = compile_activation(chip, "bf16", width)
            assert taken.stack == 0 and taken.shared <= 1024


def build_head(build: tuple[str, str, HeadTile, int]) -> KernelResources:
    return compile_attention(*build)


@pytest.mark.parametrize("chip", CHIPS)
def test_the_tuning_space_is_pruned_but_holds_the_fixed_choice(chip: str) -> None:
    for kernel, table in (("sums", SUMS), ("divergences", DIVERGENCES)):
        offered = list(candidates(kernel, chip, 2, 4096))
        full = 4 * 3 * 3 * 2 * 4 * (1 if kernel == "sums" else 4)
        assert 0 < len(offered) < 0.9 * full
        few, some, many = table[chip, 2]
        assert few in offered and some in offered
        if many.warps <= 8 and many.stages > 1:
            assert many in offered


@pytest.mark.parametrize("rows", [512, 1000, 2048, 4096, 16384])
def test_the_last_wave_leaves_little_idle(rows: int) -> None:
    tile = sums_tile("sm_90", 2, rows, 8, tma=True, capped=False)
    row_tiles, vocab_tiles = ceil_div(rows, tile.rows), ceil_div(128256, tile.vocab)
    splits = n_splits(rows, 128256, tile, 132)
    steps = ceil_div(row_tiles * splits, 132) * ceil_div(vocab_tiles, splits)
    assert steps <= 1.12 * row_tiles * vocab_tiles / 132


@pytest.mark.parametrize("rows", [1, 16, 17, 512, 16384])
@pytest.mark.parametrize("vocabulary", [1, 300, 49152, 128256])
def test_splits_fill_the_chip_and_no_more(rows: int, vocabulary: int) -> None:
    tile = sums_tile("sm_90", 2, rows, 8, tma=True, capped=False)
    splits = n_splits(rows, vocabulary, tile, 132)
    tiles = -(-vocabulary // tile.vocab)
    assert 1 <= splits <= tiles
    programs = splits * -(-rows // tile.rows)
    assert programs >= min(tiles, 100)
    assert n_splits(rows, vocabulary, tile, 999, LONGEST_TOP) * LONGEST_TOP <= MOST_KEPT
    assert splits * rows <= max(18 * rows, 132 * 4 * 2 * tile.rows)  # scratch does not grow with V
