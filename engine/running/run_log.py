"""The log of an execution in the store: one JSON line per event, for `engine logs`."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from engine.planning.plan import Plan, PlannedCell
from engine.progress import Report
from engine.running.display import Display
from store.backend.location import Place
from store.errors import StoreError

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


class SentLog(io.StringIO):
    """A log in a bucket, where no file can grow: it is written anew, now and then and at the end.

    What cannot be sent is sent later; a log stops no execution.
    """

    def __init__(self, place: Place, name: str) -> None:
        super().__init__()
        self._place, self._name, self._last = place, name, 0.0

    def flush(self) -> None:
        """Send the log, unless it was sent a moment ago."""
        if time.monotonic() - self._last >= SECONDS:
            self.send()

    def send(self) -> None:
        """Send the log as it is."""
        self._last = time.monotonic()
        with suppress(StoreError, OSError):
            self._place.write(self._name, self.getvalue().encode())


@contextmanager
def logged(plan: Plan, display: Display) -> Iterator[Display]:
    """Give a display that logs too."""
    begun = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    name = f"{plan.matrix.experiment.name}-{begun}-{os.getpid()}.jsonl"
    if plan.root.distant:
        log = SentLog(plan.root, f"{FOLDER}/{name}")
        try:
            yield LoggedDisplay(display, plan, log)
        finally:
            log.send()
        return
    folder = Path(str(plan.root)) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("a", encoding="utf-8") as stream:
        yield LoggedDisplay(display, plan, stream)


def log_names(place: Place, experiment: str | None = None) -> list[str]:
    """Give the names of a store's logs, the oldest first; of one experiment alone where it is named."""
    names = (name for name in place.names(FOLDER) if name.endswith(".jsonl"))
    wanted = (name for name in names if experiment is None or name.rsplit("-", 2)[0] == experiment)
    return sorted(wanted, key=lambda name: name.rsplit("-", 2)[1:])


def read_events(place: Place, name: str, start: int = 0) -> tuple[list[Mapping[str, Any]], int]:
    """Give the events of a log from a byte on, and where the next will begin.

    What is half written, or was left so by a kill, is none.
    """
    content = place.read(f"{FOLDER}/{name}")
    end = max(start, content.rfind(b"\n") + 1)
    return [json.loads(line) for line in content[start:end].splitlines()], end
