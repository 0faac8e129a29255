"""Paths in a spec are relative to the file in which they stand, so that a study runs from any folder."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from specs.common.names import BUCKET_SCHEMES, BUCKET_URLS, BUILT_IN_TEXT, TRAINED_TEXTS
from specs.common.spelling import nearest
from specs.errors import Problem
from specs.registry import DATA_SETS, PUBLIC_SETS
from specs.toml import keys
from specs.toml.describe import value as spell
from specs.toml.text import absolute

DATA_FILES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow")  # each also with .gz, in any case


_TASK_FILE = re.compile(r"\.py(@.*)?$")
TASKS: keys.Path = ("evaluate", "inspect", "tasks")
PATHS: tuple[keys.Path, ...] = (
    ("data", "source"), ("evaluate", "data", "source"), ("evaluate", "neutral_text"),
    ("evaluate", "task_folder"), TASKS, ("model", "id"), ("probe", "tuned", "corpus"),
    ("probe", "jacobian", "corpus"), ("probe", "jacobian", "path"),
)  # fmt: skip
# Where every text is a path but these words.
FILES: Mapping[keys.Path, tuple[str, ...]] = {
    ("evaluate", "neutral_text"): (BUILT_IN_TEXT,),
    ("evaluate", "task_folder"): (),
    ("probe", "tuned", "corpus"): (TRAINED_TEXTS, BUILT_IN_TEXT),
    ("probe", "jacobian", "corpus"): (TRAINED_TEXTS, BUILT_IN_TEXT),
    ("probe", "jacobian", "path"): (),
}


def holds_path(key: keys.Path) -> bool:
    """Tell whether what stands at a key may be, or hold, a path."""
    return any(key[: len(other)] == other[: len(key)] for other in PATHS)


def anchor(raw: Mapping[str, Any], folder: Callable[[keys.Path], Path]) -> dict[str, Any]:
    """Give the tables with what stands at `PATHS` made absolute where it is local.

    folder: to which the path at a key is relative.
    """
    anchored = dict(raw)
    for key in PATHS:
        if keys.exists(raw, key):
            leaf = keys.leaf(raw, key)
            if key == TASKS:
                value = _located_tasks(leaf, folder(key))
            elif key in FILES:
                value = _file(leaf, folder(key), FILES[key])
            else:
                value = located(leaf, folder(key))
            anchored = keys.merge(anchored, keys.nest(key, value))
    return anchored


def from_here(folder: Path, path: str) -> Path:
    """Return a path that is relative to a folder as it is spelled from the current one, if it lies there."""
    whole = Path(os.path.normpath(absolute(folder) / Path(path).expanduser()))
    here = absolute(Path())
    return whole.relative_to(here) if whole.is_relative_to(here) else whole


def located(value: Any, folder: Path) -> Any:
    """Return a source or model, or a list of these, absolute where it is a path; a name as it is."""
    if isinstance(value, list):
        return [located(item, folder) for item in value]
    if not isinstance(value, str) or ":" in value or not value:  # which is no path: that of its own folder
        return value
    path = folder / Path(value).expanduser()
    local = data_suffix(path) or looks_local(value) or (path.exists() and not _is_built_in(value))
    return str(absolute(path)) if local else value


def _located_tasks(value: Any, folder: Path) -> Any:
    """Return tasks of Inspect with their files absolute; PACKAGE/TASK as it is, whatever lies there."""
    if not isinstance(value, list):
        return value
    return [located(item, folder) if _TASK_FILE.search(str(item)) else item for item in value]


def _file(value: Any, folder: Path, words: tuple[str, ...]) -> Any:
    """Return the absolute path of a file, however it is spelled; a word as it is."""
    if not isinstance(value, str) or not value or value in words:
        return value
    return str(absolute(folder / Path(value).expanduser()))


def near_file(path: Path) -> str:
    """The file or folder that may be meant by one that is missing, or "".

    Of one in a folder that is there, its name; else that of the folder, with what follows if that is there;
    else that of a file of its very name in the nearest folder above that is there.
    """
    if not path.parent.exists() and path.parent != path:
        folder, above = near_file(path.parent), _first_there(path).parent
        within = Path(folder) / path.name
        if folder:
            return str(within) if (above / within).exists() else folder
        return str(above / path.name) if (above / path.name).is_file() else ""
    try:
        return nearest(path.name, [other.name for other in path.parent.iterdir() if other.name != path.name])
    except OSError:
        return ""


def _first_there(path: Path) -> Path:
    """The outermost part of a path that is missing."""
    return path if path.parent.exists() or path.parent == path else _first_there(path.parent)


def no_such(
    path: str | Path, what: str = "file or folder", more: str = "", words: Collection[str] = ()
) -> str:
    """What is said wherever something is missing that a spec or a command names: found, expected, nearest.

    Args:
        path: where nothing is.
        what: what was expected there.
        more: what follows from that.
        words: what may stand there in the place of a path.
    """
    place = Path(path).expanduser()
    file = near_file(place)
    near = nearest(place.name, filter(None, (*words, file))) or file
    what += ", nor " * bool(words) + ", ".join(map(spell, words))
    hint = f'; did you mean "{near}"?' if near else ""
    return f'found "{path}", which is no {what}{more}{hint}'


def _is_built_in(value: str) -> bool:
    return value in DATA_SETS.built_in or value in PUBLIC_SETS.built_in


def data_suffix(path: Path) -> str | None:
    """The one of `DATA_FILES` that a file's name ends with, packed or not; None: it is no data file."""
    name = path.name.lower().removesuffix(".gz")
    return next((suffix for suffix in DATA_FILES if name.endswith(suffix) and name != suffix), None)


def looks_local(value: str) -> bool:
    """Whether a model, data set or task is spelled as a path; a hub id has one slash at the most."""
    is_file = value.endswith(".gguf") or _TASK_FILE.search(value) is not None
    return value.startswith((".", "/", "~")) or is_file or value.count("/") > 1


def store_problems(store: str | None) -> Iterator[Problem]:
    """What is wrong with a store that is named by a URL; the user and password in one are not shown."""
    parts = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/]*)(.*)", store or "")
    if parts is None:
        return
    scheme, bucket, rest = parts.groups()
    if "@" in bucket or re.search("[?#]", bucket + rest):
        message = (
            f"expected {BUCKET_URLS} without user, password and query; credentials are the environment's"
        )
        yield Problem(None, "store", message)
    elif scheme not in BUCKET_SCHEMES or not bucket:
        yield Problem(None, "store", f"expected a folder, or one of {BUCKET_URLS}; found {spell(store)}")
