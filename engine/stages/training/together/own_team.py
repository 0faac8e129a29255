"""The threads that compute for a training which runs in a thread of its own.

OpenMP gives each thread that computes in parallel a team of its own. Where all teams are more threads than
there are CPUs, GNU's OpenMP lets them sleep from one piece of work to the next, and to wake them takes
longer than most pieces: common passes took 1.2 times as long. So a training's own thread computes by itself.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache

import torch
from threadpoolctl import ThreadpoolController


def team_of(threads: int) -> AbstractContextManager[object]:
    """Let OpenMP compute with so many threads for the calling thread, inside the `with` block."""
    torch.get_num_threads()  # torch sets its own number at a thread's first call, and not behind it
    return _libraries().limit(limits=threads, user_api="openmp")


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()
