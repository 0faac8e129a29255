"""Which tile is fastest at 4,096 rows: the shipped one against its neighbours, each compiled by a process."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from typing import Any

import torch
from triton.runtime.errors import OutOfResources

from benchmarks.device.clock import milliseconds
from benchmarks.device.record import NotHereError, Recorder
from kernels import Unembedding, why_not
from kernels.gpu.lens_tiles import Tile

COMPILERS = 8
SUMS = (
    Tile(128, 256, 64, 8, 4), Tile(128, 256, 64, 8, 3), Tile(128, 256, 64, 8, 4, group=8),
    Tile(128, 256, 64, 8, 4, group=32), Tile(128, 128, 64, 8, 4), Tile(128, 128, 64, 4, 4),
    Tile(128, 128, 128, 8, 3), Tile(64, 256, 64, 8, 4), Tile(64, 256, 64, 4, 4), Tile(64, 128, 64, 4, 4),
)  # fmt: skip
DIVERGENCES = (
    Tile(128, 128, 64, 8, 4, pieces=8), Tile(128, 128, 64, 8, 4, pieces=4),
    Tile(128, 128, 64, 8, 3, pieces=8), Tile(64, 128, 64, 8, 4), Tile(64, 128, 64, 4, 4),
    Tile(128, 64, 64, 8, 4),
)  # fmt: skip


def run(record: Recorder) -> None:
    """Time each tile that compiles; processes side by side compile them first, into Triton's cache."""
    with record.item("where") as values:
        if reason := why_not("triton", record.device):
            raise NotHereError(reason)
        values["rows"] = 4096
    if why_not("triton", record.device):
        return
    chosen = [("sums", tile) for tile in SUMS] + [("divergences", tile) for tile in DIVERGENCES]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(COMPILERS, mp_context=context) as pool:
        said = [pool.submit(_compile, kind, tile, record.tiny) for kind, tile in chosen]
        for (kind, tile), compiled in zip(chosen, said, strict=True):
            with record.item(f"{kind}, {_name(tile)}: compiles") as values:
                values["seconds"] = compiled.result(60) or "more than this chip has"
    for kind, tile in chosen:
        with record.item(f"{kind}, {_name(tile)}") as values:
            action = _action(kind, tile, record.tiny, record.device)
            try:
                values["ms"] = milliseconds(action, record.device).median
            except OutOfResources as error:
                raise NotHereError(str(error)) from error


def _name(tile: Tile) -> str:
    return (
        f"{tile.rows} × {tile.vocab} × {tile.depth}, {tile.warps} warps, {tile.stages} stages, "
        f"group {tile.group}, pieces {tile.pieces}"
    )


def _compile(kind: str, tile: Tile, tiny: bool) -> dict[str, float]:
    """Run a tile once in this process; give the seconds that its kernels took to compile."""
    from benchmarks.device.compiling import compile_seconds

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with compile_seconds() as found, suppress(OutOfResources):
        _action(kind, tile, tiny, device)()
        if device.type == "cuda":
            torch.cuda.synchronize()
    return dict(found)


def _action(kind: str, tile: Tile, tiny: bool, device: torch.device) -> Any:
    from kernels.gpu.lens import Launch, triton_backend

    rows, width, vocabulary = (8, 32, 70) if tiny else (4096, 4096, 128256)
    draw = torch.Generator(device=device).manual_seed(0)
    hidden = torch.randn(rows, width, generator=draw, device=device).bfloat16()
    weight = torch.randn(vocabulary, width, generator=draw, device=device).mul_(width**-0.5).bfloat16()
    head, watch = Unembedding(weight), torch.arange(8, device=device)
    final = torch.arange(rows, device=device) // 32 * 32 + min(31, rows - 1)
    launch = Launch(**{kind: tile})
    return lambda: triton_backend(
        hidden, head, watch, 5, final if kind == "divergences" else None, launch=launch
    )
