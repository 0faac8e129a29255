"""The self-check passes here, finds a backend that is off by little, and a store that fails."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from commands import engine
from facts import told
from torch import Tensor

from engine.cli import doctor
from kernels import available_backends, backends
from kernels import lens_checks as checks
from kernels import lens_divergences_torch as divergence
from kernels import lens_torch as torch_tiled
from kernels.backends import get_backend
from kernels.lens_torch import TiledProjection


def test_the_command_names_the_machine_and_passes() -> None:
    output = engine("doctor").output
    for word in (
        "C compiler",
        "threads",
        "waiting: ",
        "CPU paths",
        "CPU products",
        "torch",
        "triton",
        "reference",
        "auto takes",
        "float16",
    ):
        assert word in output
    assert re.search(r"threads .* of \d+ CPUs \(.*\); load [\d.]+; waiting: \w", output)
    passed = [line for line in output.splitlines() if "passed" in line]
    assert len(passed) >= 3 * len(available_backends())
    assert told(output, "store", "reported")
    assert "adapter: saved and loaded" in output


@pytest.mark.parametrize(
    ("field", "by"),
    [("entropy", 1e-3), ("kl_final", 1e-3), ("js_final", 1e-3), ("watch_logprob", 1e-3), ("watch_rank", 1),
     ("top_ids", 1)],
)  # fmt: skip
def test_a_backend_that_is_off_fails(monkeypatch: pytest.MonkeyPatch, field: str, by: float) -> None:
    def wrong(name: str, operation: str = backends.LENS) -> Callable[..., Any]:
        compute = get_backend(name, operation)

        def off(*arguments: Any) -> Any:
            result = compute(*arguments)
            return attrs.evolve(result, **{field: getattr(result, field) + by})

        return off if (name, operation) == ("torch", backends.LENS) else compute

    monkeypatch.setattr(checks, "get_backend", wrong)
    failed = {(check.backend, check.dtype) for check in doctor.self_check() if not check.passed}
    assert failed == {("torch", dtype) for dtype in doctor.DTYPES}
    assert "FAILED" in engine("doctor", code=1).output


def rounded(rows: Tensor, weight: Tensor) -> Tensor:
    """A product whose entries are rounded to the operands' type, as a plain matmul rounds them."""
    return (rows.to(weight.dtype) @ weight.mT).float()


def test_products_that_are_rounded_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_tiled, "product", rounded)
    failed = {(check.backend, check.dtype) for check in doctor.self_check() if not check.passed}
    assert failed == {("torch", torch.bfloat16), ("torch", torch.float16)}


@pytest.mark.parametrize("wrong", ["logits", "slope"])
def test_so_do_they_in_the_divergence_alone(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    class Rounding(TiledProjection):
        def logits(self, hidden: Tensor, start: int, end: int) -> Tensor:
            head = self.unembedding
            return head.finish(rounded(hidden, head.weight[start:end]), start)

    if wrong == "logits":
        monkeypatch.setattr(divergence, "TiledProjection", Rounding)
    else:
        monkeypatch.setattr(
            divergence, "unrounded_product", lambda left, weight, **_: 1.01 * (left @ weight.float())
        )
    failed = {(c.backend, c.dtype): c.reason for c in doctor.self_check() if not c.passed}
    assert ("torch", torch.bfloat16) in failed and {backend for backend, _ in failed} == {"torch"}
    assert all("lens_divergence is off" in reason for reason in failed.values())


def test_a_triton_that_cannot_compile_is_a_fault_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "why_not", lambda *_: "Triton cannot compile or run its kernels")
    check = doctor._check("triton", torch.device("cuda"), torch.bfloat16)
    assert not check.passed and "cannot compile" in check.reason
    assert doctor._check("triton", torch.device("cpu"), torch.bfloat16).passed


def no_such_attribute(*arguments: object) -> object:
    raise AttributeError("no [value]")


def zeros(reader: object, row: int, statistic: int, out: np.ndarray, _absent: Any) -> None:
    out[...] = 0


@pytest.mark.parametrize(
    ("moved", "found", "sentence"),
    [
        (
            "store.writer.write_block",
            no_such_attribute,
            "cannot be written: AttributeError: no [value]",
        ),
        ("store.arrays.lazy.ShardReader.of", no_such_attribute, "cannot be read: AttributeError: no [value]"),
        (
            "store.arrays.shards.ShardReader._row",
            zeros,
            "was written, but its entropy came back as other values",
        ),
    ],
)
def test_a_store_that_cannot_be_written_or_read_fails(
    monkeypatch: pytest.MonkeyPatch, moved: str, found: object, sentence: str
) -> None:
    """As when a release of zarr has moved what the store asks of it."""
    monkeypatch.setattr(moved, found)
    output = " ".join(engine("doctor", code=1).output.split())
    assert told(output, "store", "FAILED") and sentence in output
