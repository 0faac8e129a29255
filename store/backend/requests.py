"""Requests to an object store: its client, and attempts that end in the store's own errors."""

from __future__ import annotations

import functools
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from store.backend.refusals import Refusal, first_line, half_set, no_bucket, refusal
from store.errors import StoreError, UnreachableError

PATIENCE = 60.0
"""Seconds for which a request is tried again, with growing pauses; a claim lasts no longer in silence."""

FIRST_PATIENCE = 3.0
"""The same where nothing has ever answered this process: a wrong address rather than a passing fault."""

SILENCE = 5.0
"""Seconds after which a person learns that a request is being tried again."""

_ONE_CALL = 1.0  # seconds for which the client itself tries again, of which nobody hears
_ONE_FILE = 10.0  # the same of a large file, all of which a new attempt sends again
_SPACING = 20.0  # seconds between two such lines about one bucket, however many threads are waiting
_lock = Lock()
_answered: set[tuple[str, ...]] = set()  # what has answered this process
_told: dict[str, float] = {}


@functools.lru_cache(maxsize=64)
def client(url: str, *, large: bool = False) -> Any:
    """Return the client for what lies under a URL; StoreError for a setting that cannot be."""
    from obstore.store import from_url

    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"):
        address = os.environ.get(name, "")
        if url.startswith("s3:") and address and not _is_address(address):
            raise StoreError(f"{url}: {name} is no address; expected http://HOST:PORT or https://HOST")
    patience = timedelta(seconds=min(PATIENCE, _ONE_FILE if large else _ONE_CALL))
    retry: Any = {"max_retries": 1000, "retry_timeout": patience}
    try:
        return from_url(url, retry_config=retry)
    except Exception as error:  # a setting of the environment that cannot be
        reason = first_line(error)
        raise StoreError(f"{url}: {half_set(reason) or reason}") from error


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none
        return False


def tag_of(meta: Any) -> dict[str, str]:
    """Return what an object's state is known by in a condition."""
    return {name: meta[name] for name in ("e_tag", "version") if meta.get(name)}


def attempts(where: str, name: str) -> Iterator[AbstractContextManager[None]]:
    """Yield contexts for attempts at a request; the last one raises what it meets as the store's own errors.

    All that is asked of a bucket can be asked again. The client does so as well, but not where it cannot know
    whether a request has arrived.
    """
    began, pause = time.monotonic(), 0.1
    while True:
        yield _attempt(where, name, began, pause)
        time.sleep(pause)
        pause = min(2 * pause, 5.0)


@contextmanager
def _attempt(where: str, name: str, began: float, pause: float) -> Iterator[None]:
    from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

    # Judged at its begin: a long upload that fails has another attempt.
    last = time.monotonic() + pause > began + PATIENCE
    try:
        yield
    except (AlreadyExistsError, PreconditionError):
        _answered.add(_server_of(where))
        raise
    except FileNotFoundError as error:
        if no_bucket(error):
            raise UnreachableError(f"{where}: {refusal(where, error)}") from error
        _answered.add(_server_of(where))
        raise
    except (BaseError, PermissionError) as error:
        refused, server = refusal(where, error), _server_of(where)
        waited = time.monotonic() - began
        unmet = refused.unmet and server not in _answered and waited > min(PATIENCE, FIRST_PATIENCE)
        if refused.final or unmet:
            raise UnreachableError(f"{where}: {refused}") from error
        if last:
            raise UnreachableError(f"{where}/{name}: {refused}; tried for {waited:.0f} s") from error
        if waited + pause > SILENCE:
            _tell(where, refused, PATIENCE - waited)
    else:
        _answered.add(_server_of(where))


def has_answered(where: str) -> bool:
    """Tell whether what a URL names has answered this process before."""
    return _server_of(where) in _answered


def _server_of(url: str) -> tuple[str, ...]:
    """Return what a store's address depends on: bucket and settings."""
    settings = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_REGION")
    return (urlsplit(url).scheme, urlsplit(url).netloc, *(os.environ.get(name, "") for name in settings))


def _tell(where: str, refused: Refusal, left: float) -> None:
    """Say once in a while that a request is tried again."""
    with _lock:
        now = time.monotonic()
        if now - _told.get(where, -_SPACING) < _SPACING:
            return
        _told[where] = now
    message = f"{where}: no answer yet ({refused.reason}); trying again for up to {max(left, 1):.0f} s"
    # With a registry of its own, or the line of a second outage would pass for a repeated one.
    warnings.warn_explicit(message, UserWarning, __file__, 0, registry={})
