"""The log of an execution in the store's folder: one JSON line per event, for `engine logs`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from engine.planning.plan import Plan, PlannedCell
from engine.progress import Report
from engine.running.display import Display
from store.backend.location import Place

FOLDER = "logs"
SECONDS = 10.0  # between two lines on the progress of a stage


class LoggedDisplay(Display):
    """Passes everything on to another display, and writes it to a file."""

    def __init__(self, display: Display, plan: Plan, file: IO[str]) -> None:
        self._display, self._plan, self._file = display, plan, file

    def begin(self, cell: PlannedCell, stage: str) -> Report:
        """Log that a stage begins, and now and then how far it is."""
        shown = self._display.begin(cell, stage)
        self._write(cell, stage, "begins", "")
        last = time.monotonic()

        def report(done: int, total: int, text: str) -> None:
            nonlocal last
            shown(done, total, text)
            if time.monotonic() - last >= SECONDS:
                last = time.monotonic()
                self._write(cell, stage, "runs", f"{done}/{total} {text}".strip())

        return report

    def done(self, cell: PlannedCell, stage: str, summary: dict[str, float]) -> None:
        """Log a stage's numbers."""
        self._display.done(cell, stage, summary)
        self._write(cell, stage, "done", ", ".join(f"{name} {value:.6g}" for name, value in summary.items()))

    def failed(self, cell: PlannedCell, stage: str, message: str) -> None:
        """Log a failure."""
        self._display.failed(cell, stage, message)
        self._write(cell, stage, "failed", message)

    def lost(self, cell: PlannedCell, stage: str, message: str) -> None:
        """Log how a worker died."""
        self._display.lost(cell, stage, message)
        self._write(cell, stage, "lost", message)

    def _write(self, cell: PlannedCell, stage: str, event: str, text: str) -> None:
        record = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "cell": cell.index + 1,
            "levels": self._plan.levels(cell),
            "stage": stage,
            "event": event,
            "text": text,
        }
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()


@contextmanager
def logged(plan: Plan, display: Display) -> Iterator[Display]:
    """Give a display that logs too, where the store is a folder; in a bucket no file can grow."""
    if plan.root.distant:
        yield display
        return
    folder = Path(str(plan.root)) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    begun = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    file = folder / f"{plan.matrix.experiment.name}-{begun}-{os.getpid()}.jsonl"
    with file.open("a", encoding="utf-8") as stream:
        yield LoggedDisplay(display, plan, stream)


def log_files(place: Place, experiment: str | None = None) -> list[Path]:
    """Give the logs of a store's folder, the oldest first; of one experiment alone where it is named."""
    folder = Path(str(place)) / FOLDER
    files = folder.glob("*.jsonl") if folder.is_dir() else ()
    named = (file for file in files if experiment is None or file.name.rsplit("-", 2)[0] == experiment)
    return sorted(named, key=lambda file: file.name.rsplit("-", 2)[1:])


def read_lines(stream: IO[str]) -> Iterator[Mapping[str, Any]]:
    """Yield the events that stand in a log from here on; what a kill left half written is none."""
    while line := stream.readline():
        if not line.endswith("\n"):
            stream.seek(stream.tell() - len(line.encode()))
            return
        yield json.loads(line)
