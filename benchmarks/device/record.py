"""What a step found, as one JSON line per item, written when the item ends."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

LAST_LINES = 12  # of a traceback


class NotHereError(Exception):
    """An item cannot be done on this machine; the message says why."""


class Recorder:
    """Writes a step's lines; a later item runs whatever became of an earlier one."""

    def __init__(self, step: str, file: Path, folder: Path, *, tiny: bool) -> None:
        self.step, self.file, self.folder, self.tiny = step, file, folder, tiny
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @contextmanager
    def item(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield a dict for what is found; `passed` in it says whether a promise was kept."""
        values: dict[str, Any] = {}
        line: dict[str, Any] = {"step": self.step, "item": name, "status": "ok"}
        started = time.perf_counter()
        try:
            yield values
            self.synchronize()
            if not values.pop("passed", True):
                line["status"] = "FAILED"
        except NotHereError as reason:
            line |= {"status": "skipped", "error": str(reason)}
        except Exception as error:
            lines = "".join(traceback.format_exception(error)).splitlines()
            line |= {"status": "ERROR", "error": "\n".join(lines[-LAST_LINES:])}
        line |= {"seconds": round(time.perf_counter() - started, 3), "values": values}
        write_line(self.file, line)

    def synchronize(self) -> None:
        """Wait for the GPU, so that an item has its own errors and its own time."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def write_line(file: Path, line: dict[str, Any]) -> None:
    """Append one JSON line; numbers that JSON lacks are written as text."""
    text = json.dumps(_plain(line), allow_nan=False, default=str)
    with file.open("a", encoding="utf-8") as lines:
        lines.write(text + "\n")


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Read what was written so far; a line that a kill cut short is left out."""
    found = []
    for text in file.read_text("utf-8").splitlines() if file.exists() else []:
        try:
            found.append(json.loads(text))
        except ValueError:
            continue
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return str(value)
    return value
