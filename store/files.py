"""Atomic JSON files and the store's lock: what every writer to a store directory shares."""

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec

from store.errors import StoreError

try:
    import fcntl
except ImportError:  # a platform without it can still read a store
    fcntl = None  # type: ignore[assignment]

Json = dict[str, Any]

_PLAIN = re.compile(r"[\w-]+", re.ASCII)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace `path` by `content` as a whole: a reader or a crash meets the old file or the new one.

    Folders are made as needed. Content that JSON cannot hold raises StoreError and leaves the old file.
    """
    with _written(path, content) as temporary:
        temporary.replace(path)


def create_json(path: Path, content: Mapping[str, Any]) -> bool:
    """Make `path` with `content` as a whole; False, changing nothing, when it is there already.

    Of several processes that try, on one machine or on many, exactly one is told True.
    """
    with _written(path, content) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            # A network file system may have made the link and lost the answer.
            return temporary.stat().st_nlink == 2
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP):
                raise
            raise StoreError(f"{path}: writing a store needs a file system with hard links") from error
        return True


@contextmanager
def _written(path: Path, content: Mapping[str, Any]) -> Iterator[Path]:
    """Give a file with the content beside `path`, to be moved there."""
    try:
        text = json.dumps(content, indent=1)
    except (TypeError, ValueError) as error:
        raise StoreError(f"{path}: content is not JSON: {error}") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    # Named so that no listing by suffix (".done.json") ever takes it for a record.
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def read_json(path: Path) -> Json:
    """Return the JSON object in `path`; StoreError names the file when it is torn or no object.

    A missing file raises FileNotFoundError, which callers tell apart from a damaged one.
    """
    return parse_json(path.read_bytes(), path)


def parse_json(text: bytes, path: Path | str) -> Json:
    """Return the JSON object that was read from `path`."""
    try:
        try:
            content = msgspec.json.decode(text)  # several times as fast
        except msgspec.DecodeError:  # or one of Python's own NaN and Infinity
            content = json.loads(text)
    except ValueError as error:
        raise StoreError(f"{path}: not a JSON record ({error}); delete it to have it made again") from error
    if not isinstance(content, dict):
        raise StoreError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def plain(name: str) -> str:
    """Return a stage, key or family that is fit to be part of a path; StoreError for any other."""
    if not _PLAIN.fullmatch(name):
        raise StoreError(f"{name!r}: expected a name of letters, digits, _ and - that is no path")
    return name


def hash_file(path: Path) -> str:
    """Return the BLAKE2b of a file's content: 32 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def sync(path: Path) -> None:
    """Ask the disk to keep a file or folder; nothing happens when there is none, or where folders cannot."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems refuse to sync a folder
        pass
    finally:
        os.close(descriptor)


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the store's one lock, against other threads and other processes alike.

    The system releases it when its holder dies, so it is never left behind. Not re-entrant.
    """
    if fcntl is None:
        raise StoreError(f"{root}: writing a store needs POSIX file locks, which this platform lacks")
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
