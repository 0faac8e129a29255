"""Activation entropy on the GPU: kernel and launcher."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu.device import launching_on

MOST = 32768  # coordinates of a vector that a program holds in registers


@triton.jit
def energy_entropy(rows, entropy, width, B_WIDTH: tl.constexpr):
    """Store the entropy of one row's energy; 0 / 0 and ∞ / ∞ are NaN, as they should be."""
    i_row = tl.program_id(0).to(tl.int64)
    i_width = tl.arange(0, B_WIDTH)
    m_width = i_width < width
    h = tl.abs(tl.load(rows + i_row * width + i_width, m_width, other=0.0).to(tl.float32))
    relative = tl.where(m_width, h / tl.max(h, 0), 0.0)
    energy = relative * relative
    terms = tl.where(energy == 0.0, 0.0, energy * tl.log(energy))
    total = tl.sum(energy, 0)
    tl.store(entropy + i_row, tl.log(total) - tl.sum(terms, 0) / total)


def row_warps(block: int) -> int:
    """Choose the warps of a program for a padded width: at most 64 coordinates per thread."""
    return min(16, max(1, block // 512))


def triton_backend(rows: Tensor) -> Tensor:
    """Compute the entropy of rows [R, D] in one read of them."""
    count, width = rows.shape
    if width > MOST:
        raise ValueError(
            f'hidden: found D = {width}, expected at most {MOST}; backend "torch" has no such limit'
        )
    entropy = torch.empty(count, device=rows.device)
    block = triton.next_power_of_2(width)
    if count:
        with launching_on(rows.device):
            energy_entropy[(count,)](
                rows.contiguous(),
                entropy,
                width,
                B_WIDTH=block,
                num_warps=row_warps(block),
                enable_fp_fusion=False,
            )
    return entropy
