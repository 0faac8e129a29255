"""The log of an execution in the store: one JSON line per event, for `engine logs`."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from engine.planning.plan import Plan, PlannedCell
from engine.progress import Report
from engine.running.display import Display, Relay
from store.backend.location import Place
from store.errors import StoreError

FOLDER = "logs"
_PROGRESS = re.compile(r"(?:(\d+)/(\d+) ?)?(.*)", re.DOTALL)  # as the event "runs" tells it
SECONDS = 10.0  # between two lines on the progress of a stage


class LoggedDisplay(Relay):
    """Passes everything on to another display, and writes it to a file."""

    def __init__(self, display: Display, plan: Plan, file: IO[str]) -> None:
        super().__init__(display)
        self._plan, self._file = plan, file
        self._open: set[tuple[int, str]] = set()  # what has begun and not ended

    def begin(self, cell: PlannedCell, stage: str) -> Report:
        """Log that a stage begins, and now and then how far it is."""
        shown = super().begin(cell, stage)
        self._write(cell, stage, "begins", "")
        self._open.add((cell.index, stage))
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
        super().done(cell, stage, summary)
        self._write(cell, stage, "done", ", ".join(f"{name} {value:.6g}" for name, value in summary.items()))

    def failed(self, cell: PlannedCell, stage: str, message: str) -> None:
        """Log a failure."""
        super().failed(cell, stage, message)
        self._write(cell, stage, "failed", message)

    def lost(self, cell: PlannedCell, stage: str, message: str) -> None:
        """Log how a worker died."""
        super().lost(cell, stage, message)
        self._write(cell, stage, "lost", message)

    def left(self, cell: PlannedCell, stage: str) -> None:
        """Log the end of what has not come to a result or a failure."""
        super().left(cell, stage)
        if (cell.index, stage) in self._open:
            self._write(cell, stage, "ends", "")

    def _write(self, cell: PlannedCell, stage: str, event: str, text: str) -> None:
        record = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "cell": cell.index + 1,
            "levels": self._plan.levels(cell),
            "stage": stage,
            "event": event,
            "text": text,
        }
        if event != "runs":
            self._open.discard((cell.index, stage))
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

    def close(self) -> None:
        """Send what is left."""
        if not self.closed:
            self.send()
        super().close()


@contextmanager
def logged(plan: Plan, display: Display, run: str) -> Iterator[Display]:
    """Give a display that logs too."""
    stream = lines_to(plan.root.under(FOLDER), f"{plan.matrix.experiment.name}-{run}.jsonl")
    try:
        yield LoggedDisplay(display, plan, stream)
    finally:
        stream.close()


def lines_to(place: Place, name: str) -> IO[str]:
    """Open a file whose lines others read as they come; into a bucket they are sent now and then."""
    if place.distant:
        return SentLog(place, name)
    folder = Path(str(place))
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / name).open("a", encoding="utf-8")


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


def under_way(place: Place, experiment: str, runs: Collection[str]) -> list[dict[str, Any]]:
    """Give the stages that the logs of executions say to be at work at, with how far each is.

    runs: the names of the executions.
    """
    found = []
    for name in log_names(place, experiment) if runs else ():
        if name.removesuffix(".jsonl").removeprefix(f"{experiment}-") not in runs:
            continue
        last: dict[tuple[int, str], Mapping[str, Any]] = {}
        for event in read_events(place, name)[0]:
            at = event["cell"], event["stage"]
            last.pop(at, None)
            if event["event"] in ("begins", "runs"):
                last[at] = event
        for event in last.values():
            done, total, text = _PROGRESS.fullmatch(event["text"]).groups("")  # type: ignore[union-attr]
            progress = {"done": int(done or 0), "total": int(total or 0), "text": text}
            found.append({key: event[key] for key in ("cell", "levels", "stage", "time")} | progress)
    return found
