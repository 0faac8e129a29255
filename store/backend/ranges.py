"""Parts of objects, many at a time: what a reader of arrays needs of files that are far away."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import urlsplit

from store.backend.requests import attempts, client

Item = TypeVar("Item")
Answer = TypeVar("Answer")
_UNRANGED = re.compile(r"\b416\b|non-partial response")  # of an empty object, and where ranges are not known
THREADS = 128
"""Requests at a time: what is read is small, and far away."""


def at_once(request: Callable[[Item], Answer], items: Iterable[Item]) -> list[Answer]:
    """Return the answers to requests in the order of the items; raises what the first of them raised."""
    listed = list(items)
    if len(listed) < 2:
        return [request(item) for item in listed]
    with ThreadPoolExecutor(min(THREADS, len(listed))) as pool:
        return list(pool.map(request, listed))


def ends(url: str, names: Sequence[str], length: int) -> list[tuple[int, bytes] | None]:
    """Return size and last bytes of objects under a URL, all of a shorter one; None for a missing one."""
    suffixes = urlsplit(url).scheme != "az"  # Azure knows no ranges from the end

    def end(name: str) -> tuple[int, bytes] | None:
        import obstore

        try:
            if suffixes:
                return _ranged(url, name, {"suffix": length})
            size = int(_asked(url, name, lambda: obstore.head(client(url), name))["size"])
            return _ranged(url, name, (max(0, size - length), size)) if size else (0, b"")
        except FileNotFoundError:
            return None

    return at_once(end, names)


def parts(url: str, wanted: Sequence[tuple[str, int, int]]) -> list[bytes]:
    """Return parts of objects under a URL: (name, start, length)."""
    return at_once(lambda part: _ranged(url, part[0], (part[1], part[1] + part[2]))[1], wanted)


def _ranged(url: str, name: str, wanted: Any) -> tuple[int, bytes]:
    import obstore
    from obstore.exceptions import GenericError

    def get() -> tuple[int, bytes]:
        try:
            answer = obstore.get(client(url), name, options={"range": wanted})
        except GenericError as error:
            if not _UNRANGED.search(str(error)):
                raise
            whole = bytes(obstore.get(client(url), name).bytes())
            cut = slice(-wanted["suffix"], None) if isinstance(wanted, dict) else slice(*wanted)
            return len(whole), whole[cut]
        return int(answer.meta["size"]), bytes(answer.bytes())

    return _asked(url, name, get)


def _asked(url: str, name: str, request: Callable[[], Answer]) -> Answer:
    for attempt in attempts(url, name):
        with attempt:
            return request()
    raise AssertionError("the last attempt raises")
