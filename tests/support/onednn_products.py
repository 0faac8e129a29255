"""oneDNN as the faster library, whoever made this CPU and however small a product is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from engine.stages.training import frozen_linear
from kernels import cpu_product

needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN"
)
Shape = tuple[int, ...]


def choose(monkeypatch: pytest.MonkeyPatch, *, onednn: bool) -> None:
    """Let oneDNN be the faster library, or not."""
    for module in (cpu_product, frozen_linear):
        monkeypatch.setattr(module, "onednn_is_faster", lambda: onednn)
    monkeypatch.setattr(cpu_product, "LEAST", 1)


def noted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Shape, Shape]]:
    """Let oneDNN be the faster library; give the shapes of rows and weight of each of its products."""
    seen: list[tuple[Shape, Shape]] = []
    multiply = cpu_product._by_onednn

    def noting(rows: Tensor, weight: Tensor, *arguments: Any) -> Tensor:
        seen.append((tuple(rows.shape), tuple(weight.shape)))
        return multiply(rows, weight, *arguments)

    monkeypatch.setattr(cpu_product, "_by_onednn", noting)
    choose(monkeypatch, onednn=True)
    return seen
