"""The product of a gradient on the CPU: slopes of KL, as the C core gives them, times the weight itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kernels.c_library import ThreadTeam, ffi, lib, path_number, pointer
from kernels.lens_c_weights import COLUMNS
from kernels.product import unrounded_product
from kernels.unembedding import Unembedding

PART = 32  # panels of tokens whose slopes one thread computes at once
# Parts of a product by BLAS. Few are long: behind each, OpenMP's threads wait awake, in others' way.
BLAS_PARTS = 16
PARTS = 4  # of a product by the C core, at least
PANELS = 4  # of 32 columns of W that a thread multiplies at once, at most

# Writes the slopes of so many panels from the first one on to a pointer, with so many floats from one row to
# the next, on the thread of this slot.
Slopes = Callable[[int, int, Any, int, int], None]


def slope_product(
    unembedding: Unembedding, rows: int, path: str | None, rounded: bool, team: ThreadTeam
) -> BlasProduct | BfloatProduct:
    """Choose how the slopes of at most so many rows meet the weight."""
    weight = unembedding.tokens
    halves = weight.dtype == torch.bfloat16 and weight.stride(1) == 1
    if halves and lib.lens_path_multiplies_bfloat16(path_number(path)):
        return BfloatProduct(weight, rows, path_number(path), 1 if rounded else 2, team)
    return BlasProduct(weight, rows, team)


class BlasProduct:
    """In float32, of many tokens at a time."""

    def __init__(self, weight: Tensor, rows: int, team: ThreadTeam) -> None:
        """Take memory for the slopes of so many rows."""
        self.weight, self.team = weight, team
        self.tokens = BLAS_PARTS * PART * COLUMNS
        self.slopes = torch.empty(rows * self.tokens)

    def add(self, slopes: Slopes, first: int, gradient: Tensor) -> None:
        """Add to gradient [n, D] what `tokens` tokens from the first one on give to it."""
        weight = self.weight[first : first + self.tokens]
        panels = -(-len(weight) // COLUMNS)
        of_tile = self.slopes[: len(gradient) * panels * COLUMNS].view(len(gradient), -1)
        start, stride = pointer("slopes", of_tile, torch.float32), of_tile.shape[1]

        def work(part: int, slot: int) -> None:
            at = part * PART
            here = min(PART, panels - at)
            slopes(first // COLUMNS + at, here, start + at * COLUMNS, stride, slot)

        self.team.share(work, -(-panels // PART))
        gradient += unrounded_product(of_tile[:, : len(weight)], weight)


class BfloatProduct:
    """In bfloat16 by the C core, with sums in float32; a slope is the sum of two, or the nearest one.

    Each thread multiplies columns of its own, so no bit depends on the number of threads.
    """

    def __init__(self, weight: Tensor, rows: int, path: int, numbers: int, team: ThreadTeam) -> None:
        """Take memory for the slopes of so many rows, as float32 and as so many bfloat16 numbers."""
        self.weight, self.path, self.team = weight, path, team
        depth, width = PART * COLUMNS, weight.shape[1]
        parts = min(BLAS_PARTS, max(PARTS, 2 * team.size))
        self.tokens = parts * depth
        self.slopes = torch.empty(team.size, rows * depth)
        self.packed = torch.empty(parts, rows * numbers * depth, dtype=torch.bfloat16)
        turns = -(-width // (PANELS * COLUMNS * team.size))  # of every thread, about
        self.columns = -(-width // (COLUMNS * turns * team.size)) * COLUMNS
        self.panels = torch.empty(team.size, self.columns * depth, dtype=torch.bfloat16)
        self.problem = ffi.new("lens_gradient *")
        self.problem.parts, self.problem.depth = numbers, depth
        self.problem.vocabulary, self.problem.width = weight.shape
        self.problem.stride = weight.stride(0)
        self.problem.weight = ffi.cast("void *", weight.data_ptr())

    def add(self, slopes: Slopes, first: int, gradient: Tensor) -> None:
        """Add to gradient [n, D] what `tokens` tokens from the first one on give to it."""
        depth, (vocabulary, width) = self.problem.depth, self.weight.shape
        starts = range(first, min(first + self.tokens, vocabulary), depth)
        self.problem.count = len(gradient)
        self.problem.gradient = pointer("gradient", gradient, torch.float32)
        packed = [pointer("packed", part, torch.bfloat16) for part in self.packed]
        own = [pointer("slopes", part, torch.float32) for part in self.slopes]
        panels = [pointer("panels", part, torch.bfloat16) for part in self.panels]

        def pack(part: int, slot: int) -> None:
            here = min(PART, -(-(vocabulary - starts[part]) // COLUMNS))
            slopes(starts[part] // COLUMNS, here, own[slot], depth, slot)
            lib.lens_pack_slopes(self.path, self.problem, own[slot], starts[part], packed[part])

        def multiply(share: int, slot: int) -> None:
            column = share * self.columns
            here = min(self.columns, width - column)
            for part, start in enumerate(starts):
                lib.lens_add_gradient(
                    self.path, self.problem, packed[part], start, column, here, panels[slot]
                )

        self.team.share(pack, len(starts))
        self.team.share(multiply, -(-width // self.columns))
