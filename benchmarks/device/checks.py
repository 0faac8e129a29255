"""The kernels held against float64: a small fixed set, so that compiling it takes a minute, not ten."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.device.compiling import compile_seconds
from benchmarks.device.record import NotHereError, Recorder
from kernels import (
    LensStatistics,
    Unembedding,
    activation_entropy,
    attention_entropy,
    attention_row_entropy,
    lens_divergence,
    lens_statistics,
    why_not,
)
from kernels.backends import get_backend

FLOATS = (
    "logsumexp", "entropy", "max_prob", "top_logprobs", "watch_logprob", "watch_mass", "watch_entropy",
    "kl_final", "js_final",
)  # fmt: skip
NATS = 1e-4  # promised at logits up to 100, in proportion beyond
SMOL, LLAMA = (576, 49152), (4096, 128256)  # D, V


def doctor(record: Recorder) -> None:
    """Run what `engine doctor` checks."""
    from engine.cli.doctor import self_check

    with record.item("engine doctor") as values:
        checks = self_check()
        for check in checks:
            name = f"{check.backend} {str(check.dtype).removeprefix('torch.')}"
            values[name] = check.error if check.error is not None else check.reason.split(";")[0]
        values["passed"] = all(check.passed for check in checks)
        reasons = [check.reason for check in checks if not check.passed]
        if reasons:
            values["why"] = "; ".join(reasons)


def bfloat16(record: Recorder) -> None:
    """Check the shapes of two real models in bfloat16, at each tile of the launch table."""
    bf16 = torch.bfloat16
    for rows, shape in ((16, SMOL), (64, SMOL), (330, SMOL), (16, LLAMA), (64, LLAMA), (330, LLAMA)):
        _lens(record, f"D {shape[0]}, {rows} rows", rows, shape, bf16)
    _lens(record, "torch, D 4096, 330 rows", 330, LLAMA, bf16, backend="torch")


def options(record: Recorder) -> None:
    """Check soft-cap, bias, padding and plain loads, which are kernels of their own."""
    bf16 = torch.bfloat16
    _lens(record, "soft-cap", 330, SMOL, bf16, softcap=30.0)
    _lens(record, "bias, padded, 17 rows", 17, SMOL, bf16, bias=True, padding=64)
    _lens(
        record,
        "bias, soft-cap, scaled, padded",
        130,
        SMOL,
        bf16,
        bias=True,
        softcap=30.0,
        padding=64,
        scale=0.5,
    )
    _lens(record, "without TMA", 130, SMOL, bf16, tma=False)
    _lens(record, "torch, all options", 130, SMOL, bf16, "torch", bias=True, softcap=30.0, padding=64)


def other_types(record: Recorder) -> None:
    """Check float16 and float32."""
    for dtype in (torch.float16, torch.float32):
        name = str(dtype).removeprefix("torch.")
        _lens(record, f"{name}, 330 rows", 330, SMOL, dtype)
        _lens(record, f"{name}, 7 rows", 7, SMOL, dtype)
        _lens(record, f"torch, {name}", 330, SMOL, dtype, "torch")
    _lens(record, "float32, soft-cap and bias", 50, SMOL, torch.float32, softcap=30.0, bias=True)


def _lens(
    record: Recorder,
    name: str,
    rows: int,
    shape: tuple[int, int],
    dtype: torch.dtype,
    backend: str = "triton",
    *,
    padding: int = 0,
    bias: bool = False,
    tma: bool | None = None,
    **more: Any,
) -> None:
    """Hold one drawn problem against the reference: logits of standard deviation 3, as models have them."""
    with record.item(name) as values:
        _needs(backend, record.device)
        width, vocabulary = (48, 300) if record.tiny else shape
        rows = min(rows, 20) if record.tiny else rows
        draw = torch.Generator(device=record.device).manual_seed(rows)

        def normal(*sizes: int) -> Tensor:
            return torch.randn(*sizes, generator=draw, device=record.device)

        weight = normal(vocabulary + padding, width) * (3 * width**-0.5)
        weight[vocabulary:] = 1e4  # a padded row that is read shows
        head = Unembedding(
            weight.to(dtype),
            bias=normal(vocabulary + padding).to(dtype) if bias else None,
            vocab_size=vocabulary,
            **more,
        )
        hidden = normal(rows, width).to(dtype)
        watched = torch.arange(8, device=record.device) * (vocabulary // 8) + 1
        final = (torch.arange(rows, device=record.device) // 33 * 33 + 32).clamp_max(rows - 1)
        found, seconds = _first_call(
            record, lambda: _statistics(backend, hidden, head, watched, final, tma=tma)
        )
        truth = lens_statistics(hidden, head, watch_ids=watched, final_rows=final, backend="reference")
        errors = {key: _largest(getattr(found, key), getattr(truth, key)) for key in FLOATS}
        values |= errors
        values |= {"ranks off": int((found.watch_rank != truth.watch_rank).sum())}
        values |= {"rank by": int((found.watch_rank - truth.watch_rank).abs().max())}
        values |= {"top ids off": int((found.top_ids != truth.top_ids).sum()), **seconds}
        magnitude = float(truth.logsumexp.abs().max())
        values["passed"] = max(errors.values()) <= NATS * max(1.0, magnitude / 100)


def _statistics(
    backend: str, hidden: Tensor, head: Unembedding, watched: Tensor, final: Tensor, *, tma: bool | None
) -> LensStatistics:
    if tma is None:
        return lens_statistics(hidden, head, watch_ids=watched, final_rows=final, backend=backend)
    from kernels.gpu.lens import Launch, triton_backend

    return triton_backend(hidden, head, watched, 5, final, launch=Launch(tma=tma))


def ranks(record: Recorder) -> None:
    """Check that ranks are a strict order, ties to the lower id, and the same bits every time."""
    device = record.device
    for extras in ("", "soft-cap", "bias"):
        for rows in (3, 50, 300):
            with record.item(f"every token watched, {rows} rows{', ' * bool(extras)}{extras}") as values:
                _needs("triton", device)
                width, vocabulary = (32, 100) if record.tiny else (512, 1000)
                rows = min(rows, 20) if record.tiny else rows
                hidden, head = _coarse(rows, width, vocabulary, device, extras)
                every = torch.arange(vocabulary, device=device)
                found, seconds = _first_call(
                    record,
                    lambda h=hidden, u=head, e=every: lens_statistics(
                        h, u, watch_ids=e, top_k=8, backend="triton"
                    ),
                )
                once = bool((found.watch_rank.sort(dim=1).values == every).all())
                top = bool((found.watch_rank.argsort(dim=1)[:, :8] == found.top_ids).all())
                values |= {"each rank once": once, "top ids are ranks 0 to 7": top, **seconds}
                values["passed"] = once and top
    with record.item("whole numbers, D 4096: ranks equal float64's") as values:
        _needs("triton", device)
        width, vocabulary, rows = (32, 100, 5) if record.tiny else (4096, 128256, 70)
        draw = torch.Generator(device=device).manual_seed(1)
        hidden = torch.randint(-2, 3, (rows, width), generator=draw, device=device).bfloat16()
        weight = torch.randint(-2, 3, (vocabulary, width), generator=draw, device=device).bfloat16()
        arguments: dict[str, Any] = {"watch_ids": [0, 7, 7, vocabulary - 1], "top_k": 8}
        head = Unembedding(weight, scale=0.03125)
        found, seconds = _first_call(
            record, lambda: lens_statistics(hidden, head, **arguments, backend="triton")
        )
        truth = lens_statistics(hidden, head, **arguments, backend="reference")
        values |= {"ranks off": int((found.watch_rank != truth.watch_rank).sum())}
        values |= {"top ids off": int((found.top_ids != truth.top_ids).sum()), **seconds}
        values["passed"] = not values["ranks off"] and not values["top ids off"]
    with record.item("the same bits, three times; a NaN row is marked") as values:
        _needs("triton", device)
        width, vocabulary, rows = (32, 100, 20) if record.tiny else (512, 20000, 500)
        hidden, head = _coarse(rows, width, vocabulary, device, "")
        hidden[1, 0] = float("nan")
        final = torch.full((rows,), rows - 1, device=device)
        runs = [
            lens_statistics(hidden, head, watch_ids=[1, 5], final_rows=final, backend="triton") for _ in "123"
        ]
        names = (*FLOATS, "top_ids", "watch_rank")
        same = all(
            torch.equal(
                torch.nan_to_num(getattr(runs[0], n), nan=-7), torch.nan_to_num(getattr(r, n), nan=-7)
            )
            for r in runs[1:]
            for n in names
        )
        marked = runs[0].nonfinite_rows == 1 and bool((runs[0].watch_rank[1] == -1).all())
        values |= {"same bits": same, "NaN marked": marked, "passed": same and marked}


def _coarse(
    rows: int, width: int, vocabulary: int, device: torch.device, extras: str
) -> tuple[Tensor, Unembedding]:
    """Give rows and a head whose logits tie by the thousand, which one wrong bit would show."""
    draw = torch.Generator(device=device).manual_seed(rows)
    weight = torch.randn(vocabulary, width, generator=draw, device=device) * (3 * width**-0.5)
    hidden = torch.randn(rows, width, generator=draw, device=device)
    head = Unembedding(
        ((weight * 4).round() / 4).bfloat16(),
        bias=torch.arange(vocabulary, device=device).remainder(3).bfloat16() if "bias" in extras else None,
        softcap=30.0 if "soft-cap" in extras else None,
    )
    return ((hidden * 2).round() / 2).bfloat16(), head


def entropies(record: Recorder) -> None:
    """Check the entropies of heads and activations, and the tuned lens's loss and gradient."""
    device = record.device
    for backend in ("triton", "torch"):
        for dtype in (torch.bfloat16, torch.float32):
            for width, more in ((64, {}), (128, {"window": 50, "softcap": 20.0})):
                name = f"attention entropy, {backend}, {str(dtype).removeprefix('torch.')}, E {width}"
                with record.item(name) as values:
                    _needs(backend, device)
                    length = 20 if record.tiny else 700
                    shape = (16,) if record.tiny else (width,)
                    query, key = (torch.randn(2, n, length, *shape, device=device).to(dtype) for n in (8, 2))
                    arguments = {"lengths": [length, length // 3], **more}
                    found, seconds = _first_call(
                        record,
                        lambda q=query, k=key, a=arguments, b=backend: attention_entropy(
                            q, k, **a, backend=b
                        ),
                    )
                    truth = attention_entropy(query, key, **arguments, backend="reference")
                    values |= _error(found, truth, NATS) | seconds
        for dtype in (torch.bfloat16, torch.float32):
            name = f"activation entropy, {backend}, {str(dtype).removeprefix('torch.')}"
            with record.item(name) as values:
                _needs(backend, device)
                rows = torch.randn(4 if record.tiny else 999, 40 if record.tiny else 4096, device=device).to(
                    dtype
                )
                found, seconds = _first_call(
                    record, lambda r=rows, b=backend: activation_entropy(r, backend=b)
                )
                values |= _error(found, activation_entropy(rows, backend="reference"), 1e-5) | seconds
    with record.item("attention row entropy, torch") as values:
        query = torch.randn(2, 8, 3, 64, device=device)
        key = torch.randn(2, 2, 90, 64, device=device)
        mask = torch.rand(2, 1, 3, 90, device=device) < 0.7
        found, seconds = _first_call(record, lambda: attention_row_entropy(query, key, mask=mask))
        truth = attention_row_entropy(query, key, mask=mask, backend="reference")
        values |= _error(found, truth, NATS) | seconds
    for dtype in (torch.float32, torch.bfloat16):
        _divergence(record, dtype)


def _divergence(record: Recorder, dtype: torch.dtype) -> None:
    with record.item(f"lens divergence, auto, {str(dtype).removeprefix('torch.')}") as values:
        width, vocabulary, rows = (48, 300, 6) if record.tiny else (576, 49152, 128)
        weight = (torch.randn(vocabulary, width, device=record.device) * (3 * width**-0.5)).to(dtype)
        hidden, final = (torch.randn(*s, rows, width, device=record.device).to(dtype) for s in ((4,), ()))
        head = Unembedding(weight)
        (kl, slope), seconds = _first_call(record, lambda: lens_divergence(hidden, final, head))
        kl_truth, slope_truth = lens_divergence(hidden, final, head, backend="reference")
        gradient = _largest(slope, slope_truth)
        # q − p is rounded to the weight's type: half precision keeps 8 bits of it.
        bound = (1e-3 if dtype == torch.float32 else 1e-2) * float(weight.abs().max())
        values |= {"KL": _largest(kl, kl_truth), "gradient": gradient, "its bound": bound, **seconds}
        values["passed"] = values["KL"] <= NATS and gradient <= bound


def _needs(backend: str, device: torch.device) -> None:
    if reason := why_not(backend, device):
        raise NotHereError(reason)
    get_backend(backend)


def _first_call(record: Recorder, run: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
    """Call once; give the result, the seconds of the call, and those of each kernel that it compiled."""
    with compile_seconds() as compiled:
        started = time.perf_counter()
        found = run()
        record.synchronize()
        seconds = time.perf_counter() - started
    return found, {"first call, s": seconds, "compiled, s": dict(compiled)}


def _largest(found: Tensor, truth: Tensor) -> float:
    """Give the largest difference; infinity where one is a number and the other is none."""
    if not torch.equal(torch.isnan(found), torch.isnan(truth)):
        return float("inf")
    return float(torch.nan_to_num(found.double() - truth.double()).abs().max())


def _error(found: Tensor, truth: Tensor, bound: float) -> dict[str, Any]:
    error = _largest(found, truth)
    return {"largest error": error, "bound": bound, "passed": error <= bound}
