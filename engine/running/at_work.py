"""An execution's own claim: by it others know that it is at work, also where none of its stages is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from os import getpid

from engine.running.run_log import FOLDER
from store import Ledger, StoreError
from store.backend.records import is_plain

STAGE = "execution"  # under which it stands among the claims of stages


def run_name() -> str:
    """Name an execution that begins now, by which its claim and its files in the store are known."""
    return f"{datetime.now(UTC).strftime('%Y%m%dT%H%M%SZ')}-{getpid()}"


def events_of(run: str) -> str:
    """Name the folder to which the workers of an execution write what they do."""
    return f"{FOLDER}/{run}.workers"


@contextmanager
def at_work(ledger: Ledger, run: str) -> Iterator[None]:
    """Claim that an execution is at work; sweep first what executions that were killed have left."""
    for dead in filter(is_plain, ledger.place.names(f"claims/{STAGE}")):
        if ledger.start(STAGE, dead):
            ledger.place.remove_all(events_of(dead))
            ledger.release(STAGE, dead)
    ledger.start(STAGE, run)
    try:
        yield
    finally:
        with suppress(StoreError, OSError):  # whoever cannot be told learns it by the silence
            ledger.release(STAGE, run)
