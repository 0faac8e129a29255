"""The text of a spec file: a file, standard input (`-`), or a pipe that somebody writes to."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from specs.errors import Problem, SpecError
from specs.toml.parse import MAX_BYTES

STANDARD_INPUT = Path("-")


def read_text(file: Path, hint: str = "") -> str:
    """Return the text, without a byte order mark; SpecError says why there is none. hint: another file."""
    try:
        content = _content(file, hint)
    except OSError as error:
        raise SpecError([Problem(file, "", f"cannot be read: {error.strerror}")]) from None
    if len(content) > MAX_BYTES:
        size = f"more than {MAX_BYTES:,}" if _is_stream(file) else f"{file.stat().st_size:,}"
        raise SpecError([Problem(file, "", f"{size} bytes; expected at most {MAX_BYTES:,}")])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SpecError([Problem(file, "", "expected UTF-8 text", line=line)]) from None


def absolute(path: Path) -> Path:
    """Return the path without links; where they lead in a circle, as far as they lead (`resolve` raises)."""
    return Path(os.path.realpath(path))


def is_there(file: Path) -> bool:
    """Whether there is something to read, other than a folder."""
    return file == STANDARD_INPUT or (file.exists() and not file.is_dir())


def _is_stream(file: Path) -> bool:
    return file == STANDARD_INPUT or not file.is_file()


def _content(file: Path, hint: str) -> bytes:
    """Return the bytes, at most one more than are allowed."""
    if file == STANDARD_INPUT:
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    if file.is_dir():
        raise SpecError([Problem(file, "", "a folder; expected a TOML file", hint)])
    if not file.exists():
        raise SpecError([Problem(file, "", "no such file", hint)])
    # Without a writer a pipe would be waited for without end; so it is first asked without waiting.
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return _read_all(descriptor)
        try:
            first = os.read(descriptor, MAX_BYTES)
        except BlockingIOError:  # there is a writer, who has written nothing yet
            first = None
        if first == b"":
            raise SpecError([Problem(file, "", "a pipe that nobody writes to; expected a TOML file")])
        os.set_blocking(descriptor, True)
        return (first or b"") + _read_all(descriptor)
    finally:
        os.close(descriptor)


def _read_all(descriptor: int) -> bytes:
    content = bytearray()
    while len(content) <= MAX_BYTES and (piece := os.read(descriptor, MAX_BYTES)):
        content += piece
    return bytes(content)
