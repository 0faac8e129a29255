"""Write the computed tables of docs/kernels.md: `python -m benchmarks.roofline`; `--check` only compares.

Nothing here is measured. Times follow from the bytes and operations of a launch, the resources of the
compiled kernels, and the rates of the chip.
"""

import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import triton

from benchmarks.gpu_builds.ahead import KernelResources, compile_attention
from benchmarks.gpu_builds.chips import RATES, programs_per_processor
from benchmarks.gpu_builds.shipped import Build, compile_build, lens_builds
from kernels.gpu.attention_entropies import head_tile
from kernels.gpu.lens_tiles import ceil_div, divergences_tile, n_splits, sums_tile

PAGE = Path(__file__).parents[1] / "docs/kernels.md"
BEGIN, END = "<!-- computed: begin -->\n", "<!-- computed: end -->\n"
WIDTH, VOCABULARY, WATCHED = 4096, 128256, 8  # Llama-3.1-8B
CHIP = "sm_90"
L2 = 5.5e12  # bytes/s that an H100's L2 is taken to deliver; no data sheet says
LATENCY = 700e-9  # s from a load's issue to its data, for Little's law

# Per logit: instructions on the 128 lanes of a multiprocessor, and on its 16 special-function lanes.
EPILOGUE = {"sums": (12 + 2 * WATCHED, 1), "divergences": (18, 4)}


def header(names: str) -> Iterator[str]:
    """Give a table's two first lines; a name that starts with | is a number's."""
    columns = names.split()
    yield "| " + " | ".join(name.lstrip("|").replace(",", ", ") for name in columns) + " |"
    yield "| " + " | ".join("---:" if name.startswith("|") else "---" for name in columns) + " |"


def resources_table(built: dict[Build, KernelResources]) -> Iterator[str]:
    """One line per shipped tile: what the compiler gives it at its fullest."""
    yield from header("kernel chip type tile |warps |stages TMA |registers |spills |shared,KiB |resident")
    fullest: dict[tuple[object, ...], tuple[Build, list[KernelResources]]] = {}
    for build, taken in built.items():
        key = (build.kernel, build.chip, build.dtype, build.tile, build.tma)
        fullest.setdefault(key, (build, []))[1].append(taken)
    for build, variants in fullest.values():
        tile = build.tile
        registers = max(taken.registers for taken in variants)
        shared = max(taken.shared for taken in variants)
        resident = programs_per_processor(build.chip, tile.warps, registers, shared)
        scalar = max(taken.scalar_spills for taken in variants)
        spills = f"{max(taken.stack for taken in variants)}" + (f" ({scalar} scalar)" if scalar else "")
        yield (
            f"| {build.kernel} | {build.chip} | {build.dtype} | {tile.rows} × {tile.vocab} × {tile.depth} "
            f"| {tile.warps} | {tile.stages} | {'yes' if build.tma else 'no'} | {registers} | {spills} "
            f"| {shared / 1024:.0f} | {resident} |"
        )


def heads_table() -> Iterator[str]:
    """One line per chip, type and width of head: the attention entropy, causal and with a soft-cap."""
    yield from header("chip type |width tile |warps |registers |spills |shared,KiB |resident")
    for chip in RATES:
        for dtype, size in (("bf16", 2), ("fp32", 4)):
            for width in (64, 128, 256):
                tile = head_tile(size, width)
                taken = compile_attention(chip, dtype, tile, width)
                resident = programs_per_processor(chip, tile.warps, taken.registers, taken.shared)
                scalar = f" ({taken.scalar_spills} scalar)" if taken.scalar_spills else ""
                yield (
                    f"| {chip} | {dtype} | {width} | {tile.queries} × {tile.keys} | {tile.warps} "
                    f"| {taken.registers} | {taken.stack}{scalar} | {taken.shared / 1024:.0f} | {resident} |"
                )


def times_table(built: dict[Build, KernelResources]) -> Iterator[str]:
    """One line per pass and number of rows on the H100."""
    yield from header("|rows pass tile |splits |TFLOP |HBM,GB |L2,GB |tensor |HBM |L2 |epilogue |expected")
    for rows in (1, 16, 64, 512, 4096, 16384):
        for kernel in ("sums", "divergences"):
            yield _times(kernel, rows, built)


def _times(kernel: str, rows: int, built: dict[Build, KernelResources]) -> str:
    has = RATES[CHIP]
    build = _build(kernel, rows)
    tile, taken = build.tile, built[build]
    splits = n_splits(rows, VOCABULARY, tile, has.processors, build.top)
    row_tiles, vocab_tiles = ceil_div(rows, tile.rows), ceil_div(VOCABULARY, tile.vocab)
    logits = row_tiles * tile.rows * vocab_tiles * tile.vocab
    flop = 2 * logits * WIDTH
    memory = 2 * WIDTH * (VOCABULARY * ceil_div(row_tiles, tile.group) + rows)
    cache = 2 * WIDTH * row_tiles * vocab_tiles * (tile.rows + tile.vocab)
    lanes, special = EPILOGUE[kernel]
    tensor, main, level2 = flop / has.half_flops, memory / has.bandwidth, cache / L2
    epilogue = logits * (lanes / 128 + special / 16) / (has.processors * has.clock)
    resident = programs_per_processor(CHIP, tile.warps, taken.registers, taken.shared)
    longest = max(tensor, main, level2)
    # With two programs on a multiprocessor, one's epilogue runs beside the other's product.
    expected = longest + epilogue if resident == 1 else max(longest, epilogue)
    shape = f"{tile.rows} × {tile.vocab} × {tile.depth}"
    cells = [f"{rows:,}", kernel, shape, f"{splits}", f"{flop / 1e12:.2f}", f"{memory / 1e9:.2f}"]
    cells += [f"{cache / 1e9:.1f}", *(f"{1e3 * t:.2f}" for t in (tensor, main, level2, epilogue, expected))]
    return "| " + " | ".join(cells) + " |"


def _build(kernel: str, rows: int) -> Build:
    if kernel == "sums":
        tile = sums_tile(CHIP, 2, rows, 8, tma=True, capped=False)
    else:
        tile = divergences_tile(CHIP, 2, rows, tma=True)
    return Build(kernel, CHIP, "bf16", tile, tma=True)


def in_flight(built: dict[Build, KernelResources]) -> str:
    """Little's law for few rows: do the loads in flight cover the memory's latency?"""
    build, has = _build("sums", 16), RATES[CHIP]
    tile, taken = build.tile, built[build]
    resident = programs_per_processor(CHIP, tile.warps, taken.registers, taken.shared)
    flying = resident * (tile.stages - 1) * tile.vocab * tile.depth * 2 / 1024
    needed = has.bandwidth * LATENCY / has.processors / 1024
    return (
        f"Few rows: {resident} programs reside on a multiprocessor ({taken.registers} registers, "
        f"{taken.shared / 1024:.0f} KiB shared each) and keep {flying:.0f} KiB of W in flight; "
        f"{has.bandwidth / 1e12:.2f} TB/s at {LATENCY * 1e9:.0f} ns need {needed:.0f} KiB."
    )


def computed() -> str:
    """Compile all shipped tiles and give the page's computed part."""
    builds = lens_builds()
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        built = dict(zip(builds, pool.map(compile_build, builds, chunksize=4), strict=True))
    has = RATES[CHIP]
    lines = [
        f"Computed with Triton {triton.__version__}; H100 SXM: {has.half_flops / 1e12:.0f} TFLOP/s bfloat16, "
        f"{has.bandwidth / 1e12:.2f} TB/s HBM, {L2 / 1e12:.1f} TB/s L2 (assumed), {has.processors} "
        f"multiprocessors at {has.clock / 1e9:.2f} GHz. Times in milliseconds.",
        "",
        *times_table(built),
        "",
        in_flight(built),
        "",
        "Resources of every shipped tile, the most that any variant of it (bias, soft-cap) takes; resident:",
        "programs that fit on a multiprocessor at once.",
        "",
        *resources_table(built),
        "",
        "The attention entropy, by the width of a head:",
        "",
        *heads_table(),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    head, rest = PAGE.read_text().split(BEGIN)
    old, tail = rest.split(END)
    new = computed()
    if "--check" in sys.argv[1:]:
        if new != old:
            sys.exit("docs/kernels.md is out of date: python -m benchmarks.roofline --write")
    elif "--write" in sys.argv[1:]:
        PAGE.write_text(head + BEGIN + new + END + tail)
    else:
        print(new)


if __name__ == "__main__":
    main()
