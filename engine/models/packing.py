"""Rows that are one text each, which transformers is not to find out anew in every pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from transformers import masking_utils

_LOOK = "find_packed_sequence_indices"


@contextmanager
def nothing_packed() -> Iterator[None]:
    """Let transformers take every row of a batch without a mask for one text inside the `with` block.

    It would read that off the positions, for which the CPU waits until a GPU has done all that it was given.
    On tensors without content it would make a mask, and with it copies of keys and values that heads share.
    """
    if not hasattr(masking_utils, _LOOK):
        yield
        return
    with mock.patch.object(masking_utils, _LOOK, lambda _positions: None):
        yield
