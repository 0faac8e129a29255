"""What workers say of their stages while they run: files that they write, and the execution's process reads.

They tell how far a worker is, and no more: what a unit of work has come to is in its outcome.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from attrs import define, field

from engine.planning.plan import Plan, PlannedCell
from engine.progress import Report, silent
from engine.running.display import Display
from store.backend.location import Place
from store.errors import StoreError

SECONDS = 0.5  # between two lines on the progress of a stage
FILES = ".jsonl"
FAR = 10.0  # between two looks into a bucket


class WorkerDisplay(Display):
    """Writes what happens in this worker, an event a line."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def begin(self, cell: PlannedCell, stage: str) -> Report:
        """Write that a stage begins, and now and then how far it is."""
        self._write("begin", cell, stage)
        last = -SECONDS

        def report(done: int, total: int, text: str) -> None:
            nonlocal last
            if time.monotonic() - last >= SECONDS:
                last = time.monotonic()
                self._write("runs", cell, stage, done, total, text)

        return report

    def done(self, cell: PlannedCell, stage: str, summary: dict[str, float]) -> None:
        """Write that a stage is done."""
        self._write("done", cell, stage, summary)

    def failed(self, cell: PlannedCell, stage: str, message: str) -> None:
        """Write that a stage has failed."""
        self._write("failed", cell, stage, message)

    def left(self, cell: PlannedCell, stage: str) -> None:
        """Write that a stage is not at work any more."""
        self._write("left", cell, stage)

    def _write(self, event: str, cell: PlannedCell, stage: str, *told: Any) -> None:
        with suppress(OSError):  # a full disk: what cannot be shown stops no work
            self._file.write(json.dumps([event, cell.index, stage, *told]) + "\n")
            self._file.flush()


def worker_file() -> str:
    """Name the file of this process."""
    return f"{platform.node()}-{os.getpid()}{FILES}"


@define
class WorkerEvents:
    """Passes on to a display what workers have written, and keeps what it has told."""

    plan: Plan
    place: Place  # the folder of their files
    display: Display
    told: set[tuple[int, str]] = field(factory=set)  # cells and stages that have ended
    _read: dict[str, int] = field(factory=dict)  # bytes of each file
    _reports: dict[tuple[int, str], Report] = field(factory=dict)  # of what is at work
    _next: float = 0.0

    def look(self, *, now: bool = False) -> None:
        """Pass on what has come since the last look; into a bucket only now and then, or `now`."""
        if self.place.distant and not now and time.monotonic() < self._next:
            return
        self._next = time.monotonic() + FAR
        with suppress(StoreError, OSError):  # as above
            for name in sorted(name for name in self.place.names("") if name.endswith(FILES)):
                self._pass_on(self._new_lines(self.place, name))

    def end(self, cells: Iterable[PlannedCell]) -> None:
        """Drop what was at work in the cells of a unit that has ended, however it has."""
        indices = {cell.index for cell in cells}
        for index, stage in [place for place in self._reports if place[0] in indices]:
            del self._reports[index, stage]
            self.display.left(self.plan.cells[index], stage)

    def _new_lines(self, place: Place, name: str) -> list[bytes]:
        start = self._read.get(name, 0)
        if place.distant:
            content = place.read(name)[start:]
        else:  # it may be long, and is looked at often
            with Path(str(place), name).open("rb") as stream:
                stream.seek(start)
                content = stream.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._read[name] = start + len(whole)
        return whole.splitlines()

    def _pass_on(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            event, index, stage, *told = json.loads(line)
            place, cell = (index, stage), self.plan.cells[index]
            if event == "runs":
                self._reports.get(place, silent)(*told)
            elif event == "begin":
                self._reports[place] = self.display.begin(cell, stage)
            elif event == "left":
                if self._reports.pop(place, None):
                    self.display.left(cell, stage)
            elif place not in self.told:
                self._reports.pop(place, None)
                self.told.add(place)
                getattr(self.display, event)(cell, stage, *told)
