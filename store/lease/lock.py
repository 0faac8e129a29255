"""The one lock of a store: the file system's, or a claim where files cannot be locked."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from store.backend.location import Place
from store.lease.claims import Claims

_POLL = 0.2  # seconds between two looks at a claim that another holds


@contextmanager
def locked(place: Place) -> Iterator[Callable[[], None]]:
    """Hold the store's one lock against all others; gives a check that raises where it is lost.

    Not re-entrant. A claim ends with its holder's silence, a file lock with its holder.
    """
    file_lock = place.file_lock()
    if file_lock is not None:
        with file_lock:
            yield lambda: None
        return
    claims = Claims(place, top="locks")
    while (claim := claims.take("store", "lock")) is None:
        time.sleep(_POLL)
    try:
        yield functools.partial(claim.check, now=True)
    finally:
        claim.release()
