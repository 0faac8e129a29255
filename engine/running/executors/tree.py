"""The processes below one: what is to end with a worker, also where nobody is left to tell it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

Member: TypeAlias = tuple[int, str]  # number and start time, by which a number used again is told
_LOOK = 0.05  # seconds between looks


def tree(pid: int) -> list[Member]:
    """Give a process and all that it has started, as far as the system tells (it does on Linux)."""
    parents: dict[int, list[Member]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        if process := _read(int(entry.name)):
            parents.setdefault(process[0], []).append((int(entry.name), process[1]))
    own_process = _read(pid)
    members = [(pid, own_process[1])] if own_process else []
    for member in members:  # grows meanwhile
        members += parents.get(member[0], [])
    return members


def end(members: Iterable[Member], within: float) -> None:
    """Wait so many seconds for processes to end, and kill those that have not."""
    deadline, left = time.monotonic() + within, list(members)
    try:
        while (left := [member for member in left if _lives(member)]) and time.monotonic() < deadline:
            time.sleep(_LOOK)
    finally:
        for pid, _ in (member for member in left if _lives(member)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _lives(member: Member) -> bool:
    process = _read(member[0])
    return process is not None and process[1] == member[1]


def _read(pid: int) -> tuple[int, str] | None:
    """Give a process's parent and start time; None where it has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else (int(fields[0]), fields[18])
