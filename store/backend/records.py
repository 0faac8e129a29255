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

from store.errors import MEND, DamagedError, StoreError

if TYPE_CHECKING:
    from store.backend.location import Place

Json = dict[str, Any]

_PLAIN = re.compile(r"[\w-]+", re.ASCII)
_CHECKSUM = "blake2b"  # the last entry of a record: of all before it, and of the file's name
_DIGITS = 16
_END = b'"\n}\n'
_SEAL = len(f'"{_CHECKSUM}": "') + _DIGITS + len(_END)


def write_json(place: Place, name: str, content: Mapping[str, Any]) -> None:
    """Replace the file by `content` as a whole: a reader or a crash meets the old file or the new one.

    Content that JSON cannot hold raises StoreError and leaves the old file.
    """
    place.write(name, sealed(content, f"{place}/{name}"))


def create_json(place: Place, name: str, content: Mapping[str, Any]) -> bool:
    """Make the file with `content` as a whole; False, changing nothing, when it is there already.

    Of several processes that try, on one machine or on many, exactly one is told True.
    """
    return place.create(name, sealed(content, f"{place}/{name}"))


def read_json(place: Place, name: str, *, checked: bool = True) -> Json:
    """Return the content of a record; DamagedError names the file when it is not as it was written.

    Unless `checked`, it may lack its checksum: a file that is no record, as zarr's are. A missing file
    raises FileNotFoundError, which callers tell apart from a damaged one.
    """
    path = f"{place}/{name}"
    return parse_record(read_file(place, name), path, checked=checked)


def read_file(place: Place, name: str) -> bytes:
    """Return a file's content; FileNotFoundError where there is none, DamagedError where it is no file.

    PermissionError where this process may not read it: nothing is known to be wrong with it then.
    """
    try:
        return place.read(name)
    except (FileNotFoundError, PermissionError):
        raise
    except NotADirectoryError as error:
        raise StoreError(f"{place}/{name}: found a file where a store has a folder") from error
    except OSError as error:
        raise DamagedError(f"{place}/{name}: cannot be read: {error.strerror or error}; {MEND}") from error


def parse_record(text: bytes, path: str, *, checked: bool = True) -> Json:
    """Return the content of a record that was read from `path`; see `read_json`."""
    seal = text[-_SEAL:]
    if seal != _seal(text[:-_SEAL], path):
        if _CHECKSUM.encode() in seal:
            raise DamagedError(f"{path}: its content has changed since it was written; {MEND}")
        content = parse_json(text, path)
        if checked:
            raise DamagedError(f"{path}: not a record: it lacks its checksum; {MEND}")
        return content
    content = parse_json(text, path)
    del content[_CHECKSUM]
    return content


def parse_json(text: bytes, path: Path | str) -> Json:
    """Return the JSON object that was read from `path`; DamagedError where it is none."""
    try:
        try:
            content = msgspec.json.decode(text)  # several times as fast
        except msgspec.DecodeError:  # or one of Python's own NaN and Infinity
            content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path}: not a JSON record ({error}); {MEND}") from error
    if not isinstance(content, dict):
        raise DamagedError(f"{path}: expected a JSON object, found {type(content).__name__}; {MEND}")
    return content


def json_text(content: Mapping[str, Any], path: Path | str) -> bytes:
    """Return content as JSON; StoreError where that cannot hold it."""
    try:
        return json.dumps(content, indent=1).encode()
    except (TypeError, ValueError) as error:
        raise StoreError(f"{path}: content is not JSON: {error}") from error


def sealed(content: Mapping[str, Any], path: str) -> bytes:
    """Return a record: content as JSON, whose last entry is a checksum of the rest and of the file's name."""
    text = json_text({**content, _CHECKSUM: "0" * _DIGITS}, path) + b"\n"
    return text[:-_SEAL] + _seal(text[:-_SEAL], path)


def _seal(body: bytes, path: str) -> bytes:
    name = path.rpartition("/")[2]  # so that a record in another's place is found
    digest = hashlib.blake2b(name.encode() + b"\0" + body, digest_size=_DIGITS // 2).hexdigest()
    return f'"{_CHECKSUM}": "{digest}'.encode() + _END


def is_plain(name: str) -> bool:
    """Tell whether a name may be a stage's, key's or family's; files that others have left have any."""
    return _PLAIN.fullmatch(name) is not None


def plain(name: str) -> str:
    """Return a stage, key or family that is fit to be part of a path; StoreError for any other."""
    if not is_plain(name):
        raise StoreError(f"{name!r}: expected a name of letters, digits, _ and - that is no path")
    return name


def is_half(folder: str, name: str) -> bool:
    """Tell whether a file never got to its place: one of the store's own, or, among arrays, of zarr's."""
    if name.startswith(".") and name.endswith(".tmp"):
        return True
    return folder.startswith("results.zarr") and name.endswith(".partial")


def cache_root() -> Path:
    """Return this machine's folder for what can be made, or fetched, again; nobody may have made it yet."""
    named = os.environ.get("ABLATION_ENGINE_CACHE")
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(named) if named else Path(caches).expanduser() / "ablation-engine"


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
