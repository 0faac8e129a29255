"""Ids of watched tokens: the same for all rows, [J], or each row's own, [R, J]."""

from __future__ import annotations

import torch
from torch import Tensor


def by_row(ids: Tensor, rows: int) -> Tensor:
    """Give ids [J] or [R, J] as [R, J], without a copy."""
    return ids.expand(rows, -1) if ids.ndim == 1 else ids


def first_of_each(ids: Tensor) -> Tensor:
    """Mark each id [..., J] that no equal one stands before along the last axis."""
    values, order = torch.sort(ids, dim=-1, stable=True)
    new = torch.ones_like(values, dtype=torch.bool)
    new[..., 1:] = values[..., 1:] != values[..., :-1]
    return torch.empty_like(new).scatter_(-1, order, new)
