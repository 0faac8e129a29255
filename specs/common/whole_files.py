"""Files that are there whole or not at all: written beside their place, then moved there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

PARTIAL = ".partial"
"""Suffix of what is made beside its place and not hidden: a later run may see that it was left."""


def partial_of(path: Path) -> Path:
    """Give a new name beside a file's or folder's, for what is not whole yet."""
    return path.with_name(f"{path.name}.{uuid4().hex}{PARTIAL}")


@contextmanager
def named(path: Path, temporary: Path) -> Iterator[None]:
    """Have an OSError that names `temporary`, or no file, name `path`.

    Nobody knows the file beside it, and a full disk names none.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(temporary)) and error.filename2 is None:
            error.filename = str(path)
        raise


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Give a hidden file beside `path`, to be written and moved there. What is left of it is removed.

    Errors name `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Named so that no listing by suffix (".done.json") ever takes it for a record.
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        with named(path, temporary):
            yield temporary
    finally:
        with suppress(OSError):  # what is at its place stays there, and this is swept by its name
            temporary.unlink(missing_ok=True)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a hidden file beside `path` to write to, which takes its place at the end."""
    with beside(path) as temporary:
        yield temporary
        temporary.replace(path)


def write_synced(file: Path, content: bytes, *, keep: bool = True) -> None:
    """Write a file; with `keep` the disk has it on return."""
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        if keep:
            os.fsync(stream.fileno())
