"""Content fingerprints of model and data files, remembered so that planning stays instant."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from specs.common.whole_files import PARTIAL, named, whole_file
from store.backend.records import cache_root, hash_file

# What does not change a model's or data set's content: editors' and hubs' own files.
IGNORED_SUFFIXES = {".md", ".lock", PARTIAL}


def cache_folder() -> Path:
    """Give the folder for converted models and remembered fingerprints."""
    folder = cache_root()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def fingerprint_path(path: Path) -> str:
    """Hash a file, or the names and contents of all files in a folder (BLAKE2b, 32 hex digits).

    A file whose size and modification time are as remembered is not read again.
    """
    files = [path] if path.is_file() else sorted(_files(path))
    memory_file = cache_folder() / "fingerprints.json"
    memory = _read_memory(memory_file)
    known = dict(memory)
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        status = file.stat()
        stamp = f"{file.resolve()}|{status.st_size}|{status.st_mtime_ns}"
        if stamp not in memory:
            with named(file, file):  # reading names no file in its errors, as opening does
                memory[stamp] = hash_file(file)
        if file is not path:
            digest.update(str(file.relative_to(path)).encode())
        digest.update(memory[stamp].encode())
    if memory != known:
        with whole_file(memory_file) as temporary:
            temporary.write_text(json.dumps(memory))
    return digest.hexdigest()


def _files(folder: Path) -> list[Path]:
    return [
        file
        for file in folder.rglob("*")
        if file.is_file() and file.suffix not in IGNORED_SUFFIXES and not file.name.startswith(".")
    ]


def _read_memory(file: Path) -> dict[str, str]:
    try:
        return dict(json.loads(file.read_text()))
    except (FileNotFoundError, ValueError):
        return {}
