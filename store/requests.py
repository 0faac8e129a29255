"""Requests to an object store: its client, and attempts that end in the store's own errors."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any

from store.errors import StoreError, UnreachableError

PATIENCE = 60.0
"""Seconds for which a request is tried again, with growing pauses; a claim lasts no longer in silence."""


@functools.lru_cache(maxsize=64)
def client(url: str, patience: float) -> Any:
    """Return the client for what lies under a URL; StoreError for a setting that cannot be."""
    from obstore.store import from_url

    retry: Any = {"max_retries": 1000, "retry_timeout": timedelta(seconds=patience)}
    try:
        return from_url(url, retry_config=retry)
    except Exception as error:  # a setting of the environment that cannot be
        raise StoreError(f"{url}: {first_line(error)}") from error


def tag_of(meta: Any) -> dict[str, str]:
    """Return what an object's state is known by in a condition."""
    return {name: meta[name] for name in ("e_tag", "version") if meta.get(name)}


def attempts(where: str, name: str) -> Iterator[AbstractContextManager[None]]:
    """Yield contexts for attempts at a request; the last one raises what it meets as the store's own errors.

    All that is asked of a bucket can be asked again. The client does so as well, but not where it cannot know
    whether a request has arrived.
    """
    deadline, pause = time.monotonic() + PATIENCE, 0.1
    while True:
        yield _attempt(where, name, last=time.monotonic() + pause > deadline)
        time.sleep(pause)
        pause = min(2 * pause, 5.0)


@contextmanager
def _attempt(where: str, name: str, *, last: bool) -> Iterator[None]:
    from obstore.exceptions import AlreadyExistsError, BaseError, GenericError, PreconditionError

    try:
        yield
    except (AlreadyExistsError, PreconditionError):
        raise
    except (BaseError, PermissionError) as error:
        said = first_line(error)
        if last or not isinstance(error, GenericError) or "builder error" in said:
            raise UnreachableError(f"{where}/{name}: {said}") from error


def first_line(error: Exception) -> str:
    """Return what an error says, without the client's inner state and without a URL's query."""
    return re.sub(r"\?\S*", "", str(error).partition("\n")[0])
