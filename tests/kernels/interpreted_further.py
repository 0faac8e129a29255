"""Attention and activation entropy in Triton's interpreter; collected by `test_triton.py`."""

from __future__ import annotations

import pytest
import torch
from head_problems import heads, vectors
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels import activation_entropy, attention_entropy


@settings(max_examples=20, deadline=None)
@given(problem=heads(longest=90))
def test_attention_agrees_with_the_reference(problem: dict[str, object]) -> None:
    ours = attention_entropy(**problem, backend="triton")
    truth = attention_entropy(**problem, backend="reference")
    torch.testing.assert_close(ours.double(), truth, atol=1e-4, rtol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_attention_of_other_types_is_summed_in_float32(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, count, 70, 24, generator=generator).to(dtype) for count in (4, 2))
    ours = attention_entropy(query, key, window=30, backend="triton")
    truth = attention_entropy(query, key, window=30, backend="reference")
    torch.testing.assert_close(ours.double(), truth, atol=1e-4, rtol=0)


@settings(max_examples=40, deadline=None)
@given(hidden=vectors(), dtype=st.sampled_from([torch.float32, torch.bfloat16]))
def test_activation_agrees_with_the_reference(hidden: Tensor, dtype: torch.dtype) -> None:
    ours = activation_entropy(hidden.to(dtype), backend="triton")
    truth = activation_entropy(hidden.to(dtype), backend="reference")
    torch.testing.assert_close(ours.double(), truth, atol=1e-5, rtol=0, equal_nan=True)
