"""The files that hold a stage's results beside its arrays, and what a done record says of them."""

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from store.backend.location import Place
from store.backend.records import Json, hash_file

# What the stages of this name keep under STAGE/KEY/; anything else there is scaffolding.
RESULTS = {
    "data": "examples.jsonl",
    "train": "adapter",
    "lens": "translators.safetensors",
    "jacobian": "jacobians.safetensors",
}
JACOBIAN_STACK = "jacobian"  # the tensor of all layers in the file of a Jacobian lens
_KEPT = re.compile(r"adapter-\d+\.safetensors")  # adapters along a training, beside the final one


def result_name(stage: str, key: str) -> str | None:
    """Return the file or folder of a stage's results in the store; None for a stage that has arrays alone."""
    return f"{stage}/{key}/{RESULTS[stage]}" if stage in RESULTS else None


def result_files(place: Place, stage: str, key: str) -> Json:
    """Return size and BLAKE2b of every file of a stage's results, by its path under STAGE/KEY/."""
    name = result_name(stage, key)
    try:
        top = place.local(name) if name else None
    except FileNotFoundError:
        top = None
    if top is None:
        return {}
    files = sorted(file for file in (top, *top.rglob("*")) if file.is_file())
    known = {PurePosixPath(RESULTS[stage], file.relative_to(top)).as_posix(): file for file in files}
    if stage == "train":
        published = {match[0] for kept in place.names(f"{stage}/{key}") if (match := _KEPT.match(kept))}
        for kept in sorted(published):
            with suppress(FileNotFoundError):  # one that was put aside
                known[kept] = place.local(f"{stage}/{key}/{kept}")
    return {
        name: {"bytes": file.stat().st_size, "blake2b": hash_file(file)}
        for name, file in known.items()
        if file.is_file()
    }


def result_file(place: Place, stage: str, key: str, name: str) -> Path:
    """Return a file that a done record names, by its path under STAGE/KEY/, as a path on this machine.

    FileNotFoundError or DamagedError where what holds it is not there.
    """
    top, *parts = PurePosixPath(name).parts
    return place.local(f"{stage}/{key}/{top}").joinpath(*parts)


def file_trouble(file: Path, known: Mapping[str, Any]) -> str:
    """Return what is wrong with a file whose size and BLAKE2b were recorded, "" where it is as it was."""
    if not file.is_file():
        return "missing"
    if (size := file.stat().st_size) != known["bytes"]:
        return f"its content has changed since it was made: {size:,} bytes, expected {known['bytes']:,}"
    return "" if hash_file(file) == known["blake2b"] else "its content has changed since it was made"
