"""JSON records in a store, and what its files have in common wherever it lies."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from store.errors import StoreError

if TYPE_CHECKING:
    from store.places import Place

Json = dict[str, Any]

_PLAIN = re.compile(r"[\w-]+", re.ASCII)


def write_json(place: Place, name: str, content: Mapping[str, Any]) -> None:
    """Replace the file by `content` as a whole: a reader or a crash meets the old file or the new one.

    Content that JSON cannot hold raises StoreError and leaves the old file.
    """
    place.write(name, _text(place, name, content))


def create_json(place: Place, name: str, content: Mapping[str, Any]) -> bool:
    """Make the file with `content` as a whole; False, changing nothing, when it is there already.

    Of several processes that try, on one machine or on many, exactly one is told True.
    """
    return place.create(name, _text(place, name, content))


def read_json(place: Place, name: str) -> Json:
    """Return the JSON object in a file; StoreError names the file when it is torn or no object.

    A missing file raises FileNotFoundError, which callers tell apart from a damaged one.
    """
    return parse_json(place.read(name), f"{place}/{name}")


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


def _text(place: Place, name: str, content: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(content, indent=1).encode()
    except (TypeError, ValueError) as error:
        raise StoreError(f"{place}/{name}: content is not JSON: {error}") from error


def plain(name: str) -> str:
    """Return a stage, key or family that is fit to be part of a path; StoreError for any other."""
    if not _PLAIN.fullmatch(name):
        raise StoreError(f"{name!r}: expected a name of letters, digits, _ and - that is no path")
    return name


def is_half(folder: str, name: str) -> bool:
    """Tell whether a file never got to its place: one of the store's own, or, among arrays, of zarr's."""
    if name.startswith(".") and name.endswith(".tmp"):
        return True
    return folder.startswith("results.zarr") and name.endswith(".partial")


def cache_root() -> Path:
    """Return this machine's folder for what can be made, or fetched, again; nobody may have made it yet."""
    return Path(os.environ.get("ABLATION_ENGINE_CACHE") or Path("~/.cache/ablation-engine").expanduser())


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
