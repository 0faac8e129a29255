"""A process that ends with the one that started it."""

from __future__ import annotations

import multiprocessing
import os
import time
from multiprocessing.connection import wait

from engine.progress import StopRequest


def follow_parent(stop: StopRequest, grace: float | None = None) -> None:
    """Request a stop when the starting process is gone; with a grace, end this one at the latest after it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        stop.requested = True
        if grace is not None:
            time.sleep(grace)
            os._exit(1)
