"""Times of the lens statistics beside the bare product and other people's kernels, at three row counts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.device.clock import milliseconds, peak_bytes
from benchmarks.device.record import NotHereError, Recorder
from benchmarks.probe_gpu import LAYERS, TOP, WATCHED, bare_product, eager, tiled
from kernels import Unembedding, lens_statistics, why_not

ROWS = (64, 4096, 16384)
WIDTH, VOCABULARY = 4096, 128256
MOST_TILED = 4096  # rows up to which the torch backend is timed


def run(record: Recorder) -> None:
    """Time every provider on the same rows; a ratio is its median over the bare product's."""
    device = record.device
    width, vocabulary = (32, 300) if record.tiny else (WIDTH, VOCABULARY)
    weight = (torch.randn(vocabulary, width, device=device) * width**-0.5).bfloat16()
    head = Unembedding(weight)
    watch = torch.arange(WATCHED, device=device) * (vocabulary // WATCHED) + 1
    torch._dynamo.config.recompile_limit = 64
    for rows in (4, 33) if record.tiny else ROWS:
        hidden = torch.randn(rows, width, device=device).bfloat16()
        bare = None
        for name, make in _providers(record, rows).items():
            with record.item(f"{rows} rows, {name}") as values:
                action = partial(make(), hidden, head, watch)
                peak = peak_bytes(action, device)  # after a first call, which compiles
                peak = peak_bytes(action, device)
                time = milliseconds(action, device)
                bare = time.median if name == "bare product" else bare
                values |= {"ms": time.median, "20 %": time.low, "80 %": time.high, "runs": time.runs}
                values |= {"× bare": time.median / bare if bare else None}
                values |= {"TFLOP/s": 2e-9 * rows * width * vocabulary / time.median}
                values |= {"peak MB": peak / 1e6 if peak is not None else None}
            if device.type == "cuda":
                torch.cuda.empty_cache()


def _providers(record: Recorder, rows: int) -> dict[str, Callable[[], Callable[..., Any]]]:
    """Give name → a function that imports or builds the provider; the bare product comes first."""
    found: dict[str, Callable[[], Callable[..., Any]]] = {
        "bare product": lambda: bare_product,
        "ours": lambda: _ours(record, divergences=False),
        "ours, KL and JS": lambda: _ours(record, divergences=True),
        "ours, no ranks, no top": lambda: _ours(record, divergences=False, bare=True),
        "Liger, NLL and entropy": partial(_liger_scaled, "LigerFusedLinearScaledCrossEntropyFunction"),
        "Liger's fallback for it": partial(_liger_scaled, "_FusedLinearPPOFallbackFunction"),
        "Liger, cross-entropy": partial(_liger, record),
        "cut-cross-entropy": partial(_cut_cross_entropy, record),
        "eager": lambda: eager,
    }
    if rows <= MOST_TILED:
        found["our torch backend"] = lambda: tiled
    if rows in (4, MOST_TILED):  # each shape is compiled anew, for some twenty seconds
        found["torch.compile"] = partial(_compiled, record)
    return found


def _ours(record: Recorder, *, divergences: bool, bare: bool = False) -> Callable[..., Any]:
    backend = "auto" if record.device.type != "cuda" else "triton"
    if reason := why_not("triton", record.device) if backend == "triton" else "":
        raise NotHereError(reason)

    def call(hidden: Tensor, head: Unembedding, watch: Tensor) -> object:
        rows = torch.arange(len(hidden), device=hidden.device)
        final = (rows // LAYERS * LAYERS + LAYERS - 1).clamp_max(len(hidden) - 1) if divergences else None
        return lens_statistics(
            hidden,
            head,
            watch_ids=watch[:0] if bare else watch,
            top_k=0 if bare else TOP,
            final_rows=final,
            backend=backend,
        )

    return call


def _compiled(record: Recorder) -> Callable[..., Any]:
    backend = "inductor" if record.device.type == "cuda" else "aot_eager"
    return torch.compile(eager, dynamic=False, backend=backend)


def _liger_scaled(function: str) -> Callable[..., Any]:
    """Liger's fused projection with NLL and entropy per token, the nearest to our sums.

    On Hopper it is written in the CUTLASS DSL; where that is missing its own fallback still serves.
    """
    try:
        from liger_kernel.ops import fused_linear_scaled_cross_entropy as liger

        if not function.startswith("_") and torch.cuda.is_available():
            liger._resolve_implementation(torch.device("cuda"))
    except ImportError as error:
        raise NotHereError(f"not installed: {error}") from error
    options = (1.0, -100, True) if function.startswith("_") else (1.0, -100, 1, True)

    def call(hidden: Tensor, head: Unembedding, watch: Tensor) -> object:
        target = torch.zeros(len(hidden), dtype=torch.int64, device=hidden.device)
        with torch.no_grad():
            return getattr(liger, function).apply(hidden, head.weight, target, *options)

    return call


def _liger(record: Recorder) -> Callable[..., Any]:
    """Liger's fused linear cross-entropy; its gradients, where asked for, come with the forward pass."""
    try:
        from liger_kernel.ops.fused_linear_cross_entropy import (
            LigerFusedLinearCrossEntropyFunction as Function,
        )
    except ImportError as error:
        raise NotHereError(f"not installed: {error}") from error
    if record.device.type != "cuda":
        raise NotHereError("it needs a GPU")

    def call(hidden: Tensor, head: Unembedding, watch: Tensor) -> object:
        target = torch.zeros(len(hidden), dtype=torch.int64, device=hidden.device)
        with torch.no_grad():
            return Function.apply(hidden, head.weight, target)

    return call


def _cut_cross_entropy(record: Recorder) -> Callable[..., Any]:
    """Apple's cut cross-entropy: NLL per token, no entropy."""
    try:
        from cut_cross_entropy import linear_cross_entropy
    except ImportError as error:
        raise NotHereError(f"not installed: {error}") from error
    if record.device.type != "cuda":
        raise NotHereError("it needs a GPU")

    def call(hidden: Tensor, head: Unembedding, watch: Tensor) -> object:
        target = torch.zeros(len(hidden), dtype=torch.int64, device=hidden.device)
        with torch.no_grad():
            return linear_cross_entropy(hidden, head.weight, target, reduction="none")

    return call
