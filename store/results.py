"""The files that hold a stage's results beside its arrays, and what a done record says of them."""

from pathlib import Path

from store.files import Json, hash_file

# What the stages of this name keep under STAGE/KEY/; anything else there is scaffolding.
RESULTS = {"data": "examples.jsonl", "train": "adapter"}


def result_path(root: Path, stage: str, key: str) -> Path | None:
    """Return the file or folder of a stage's results; None for a stage that has arrays alone."""
    return root / stage / key / RESULTS[stage] if stage in RESULTS else None


def result_files(root: Path, stage: str, key: str) -> Json:
    """Return size and BLAKE2b of every file of a stage's results, by its path under STAGE/KEY/."""
    top = result_path(root, stage, key)
    if top is None:
        return {}
    files = sorted(file for file in (top, *top.rglob("*")) if file.is_file())
    return {
        file.relative_to(top.parent).as_posix(): {"bytes": file.stat().st_size, "blake2b": hash_file(file)}
        for file in files
    }
