"""The answers that were paid for: one JSON line each, appended as they come, read again by the next call."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from engine.errors import DataError, EngineError

SYNC_EVERY = 1.0  # seconds of answers that a power cut may cost; a killed process loses none


@frozen
class LoggedAnswer:
    """What came back for one request: the raw text, why it ended, and the tokens that it took, if told."""

    text: str
    finish: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    status: int = 200
    annotator: str = ""

    @property
    def refused(self) -> bool:
        """Whether the endpoint turned down this very request; `text` then is its message."""
        return self.status != 200


def log_path(output: Path) -> Path:
    """Give the file of the answers that belong to an output."""
    return output.with_name(f"{output.name}.answers.jsonl")


def read_answers(path: Path) -> dict[str, LoggedAnswer]:
    """Read a log: request key → answer. A last line that a crash has torn is no answer."""
    if not path.exists():
        return {}
    answers: dict[str, LoggedAnswer] = {}
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
                usage = record["usage"]
                answers[record["key"]] = LoggedAnswer(
                    record["text"], record["finish"], usage["prompt"], usage["completion"], record["status"],
                    record["annotator"],
                )  # fmt: skip
            except (ValueError, KeyError, TypeError) as error:
                if line.endswith(b"\n"):
                    raise DataError(
                        f"{path}:{number}: expected an answer as `engine annotate` writes it, "
                        f"found {line[:80]!r}; delete the line to have the question asked again"
                    ) from error
    return answers


@define
class AnswerLog:
    """The log of one output, open for appending by this process alone; `answers` holds all that is in it."""

    path: Path
    answers: dict[str, LoggedAnswer]
    _descriptor: int
    _synced: float = field(factory=time.monotonic)

    def add(self, key: str, answer: LoggedAnswer, about: Mapping[str, Any]) -> None:
        """Append an answer; it is in the file when this returns. `about` says what the question was."""
        record = {
            "key": key, "annotator": answer.annotator, **about, "text": answer.text, "finish": answer.finish,
            "status": answer.status, "time": round(time.time(), 3),
            "usage": {"prompt": answer.prompt_tokens, "completion": answer.completion_tokens},
        }  # fmt: skip
        line = memoryview(json.dumps(record).encode() + b"\n")
        while line:
            line = line[os.write(self._descriptor, line) :]
        self.answers[key] = answer
        if time.monotonic() - self._synced > SYNC_EVERY:
            self.sync()

    def sync(self) -> None:
        """Ask the disk to keep what was written."""
        os.fsync(self._descriptor)
        self._synced = time.monotonic()


@contextmanager
def open_log(path: Path) -> Iterator[AnswerLog]:
    """Open a log for appending; EngineError where another process has it open."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EngineError(
                f"{path}: another process is annotating into it; wait for it, or stop it"
            ) from None
        _mend(path, descriptor)
        log = AnswerLog(path, read_answers(path), descriptor)
        try:
            yield log
        finally:
            log.sync()
    finally:
        os.close(descriptor)  # and with it the lock


def _mend(path: Path, descriptor: int) -> None:
    """Give the file a last line that ends: one that a crash has torn is cut off."""
    size = os.fstat(descriptor).st_size
    if not size or os.pread(descriptor, 1, size - 1) == b"\n":
        return
    content = path.read_bytes()
    start = content.rfind(b"\n") + 1
    try:
        json.loads(content[start:])
    except ValueError:
        os.ftruncate(descriptor, start)
    else:
        os.write(descriptor, b"\n")  # all but the line's end had arrived
