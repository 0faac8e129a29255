"""Errors put into a running program: at a file operation of a store, or at a call of a function."""

from __future__ import annotations

import errno
import pkgutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from attrs import define
from children import EVENTS


@define
class Fault:
    """What has been counted so far, and at which number it fails, once; 0: never."""

    at: int = 0
    count: int = 0
    what: str = ""  # what failed

    def step(self, what: str) -> bool:
        """Count one; tell whether this is the one that fails."""
        self.count += 1
        if self.count == self.at:
            self.what = what
        return self.count == self.at


_watched: list[tuple[str, Fault]] = []  # a folder, while one is watched


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if _watched and event in EVENTS:
        folder, fault = _watched[-1]
        if (path := str(arguments[0])).startswith(folder) and fault.step(f"{event} {path}"):
            raise OSError(errno.EIO, "injected", path)


@cache
def _watch() -> None:
    sys.addaudithook(_hook)  # for good: none can be taken off again


@contextmanager
def file_operations(folder: Path, at: int = 0) -> Iterator[Fault]:
    """Let the operation of this number on files in a folder fail inside the `with` block."""
    _watch()
    fault = Fault(at)
    _watched.append((str(folder), fault))
    try:
        yield fault
    finally:
        _watched.pop()


@contextmanager
def calls(name: str, action: Callable[[], None], *, behind: bool = False, at: int = 1) -> Iterator[Fault]:
    """Do something more at one call of a function or method; `behind`: when it has done its work."""
    place, _, attribute = name.rpartition(".")
    owner = pkgutil.resolve_name(place)
    original, fault = getattr(owner, attribute), Fault(at)

    def disturbed(*arguments: Any, **options: Any) -> Any:
        now = fault.step(name)
        if now and not behind:
            action()
        result = original(*arguments, **options)
        if now and behind:
            action()
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, attribute, disturbed)
        yield fault


def raising(error: BaseException) -> Callable[[], None]:
    """Give a function that raises."""

    def fail() -> None:
        raise error

    return fail
