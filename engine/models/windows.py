"""Windows of examples, which are parted into batches by their length."""

from __future__ import annotations

WINDOW = 16  # batches


def window_size(batch_size: int) -> int:
    """Give how many examples, in their own order, are parted into batches by length together.

    Few enough that results can be written window by window in the examples' order, and gone on from behind
    any of them; many enough that hardly anything is padding. Stages that read the same sequences in batches
    of one size make the same batches of them.
    """
    return WINDOW * batch_size
