"""Launchers of Triton kernels on a GPU that is not there: what they hand on lies on it, grids are whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import torch
from fake_cuda import fake_cuda
from fake_cuda_tensors import Away
from torch import Tensor

from kernels import (
    Unembedding,
    activation_entropy,
    attention_entropy,
    lens_divergence,
    lens_statistics,
)

jit = pytest.importorskip("triton.runtime.jit")
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real GPU, see `make gpu`")


@pytest.fixture
def launched() -> Iterator[list[str]]:
    """Names of the kernels that are launched, which check their arguments and do nothing."""
    names: list[str] = []

    def launcher(kernel: Any, grid: Any) -> Any:
        def launch(*args: Any, **options: Any) -> None:
            names.append(kernel.fn.__name__)
            assert all(isinstance(size, int) and size > 0 for size in grid), f"{names[-1]}: grid {grid}"
            for value in (*args, *options.values()):
                pointer = getattr(value, "base", value)  # of a tensor's descriptor
                assert isinstance(pointer, Away) or not isinstance(pointer, Tensor), f"{names[-1]}: {value}"

        return launch

    with mock.patch.object(jit.KernelInterface, "__getitem__", launcher), fake_cuda(triton=True):
        yield names


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_launchers_hand_on_pointers_to_the_gpu_alone(launched: list[str], dtype: torch.dtype) -> None:
    rows, weight = (torch.randn(size, 64).to("cuda", dtype) for size in (24, 300))
    head = Unembedding(weight, bias=torch.zeros(300, device="cuda"), softcap=30.0)
    final = torch.arange(8, device="cuda").repeat(3)
    found = lens_statistics(rows, head, watch_ids=[5, 7], top_k=5, final_rows=final)
    assert found.backend == "triton" and found.kl_final.device.type == "cuda"
    lens_divergence(rows[:16].reshape(2, 8, 64), rows[16:], head)
    activation_entropy(rows)
    attention_entropy(*torch.randn(2, 1, 2, 16, 32).to("cuda", dtype))
    assert set(launched) == {
        "lens_sums", "merge_splits", "lens_divergences", "add_normalisers", "slopes", "energy_entropy",
        "attention_sums",
    }  # fmt: skip
