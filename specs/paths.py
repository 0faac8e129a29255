"""Paths in a spec are relative to the spec file, so that a study can be run from any folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from specs.data import NAMED_SETS

DATA_FILES = {".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}  # suffix → reader of `datasets`


def anchor(raw: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Give the tables with `data.source`, `evaluate.data.source` and `model.id` made absolute where local."""
    anchored = dict(raw)
    for table, key in (("data", "source"), ("model", "id")):
        if table in raw:
            anchored[table] = _anchored(raw[table], key, folder)
    if isinstance(overlay := raw.get("evaluate", {}).get("data"), dict):
        anchored["evaluate"] = raw["evaluate"] | {"data": _anchored(overlay, "source", folder)}
    return anchored


def _anchored(table: dict[str, Any], key: str, folder: Path) -> dict[str, Any]:
    value = table.get(key)
    if isinstance(value, list):
        return table | {key: [_absolute(item, folder) for item in value]}
    return table | {key: _absolute(value, folder)} if key in table else table


def _absolute(value: Any, folder: Path) -> Any:
    if not isinstance(value, str) or ":" in value or value in NAMED_SETS:
        return value
    path = folder / Path(value).expanduser()
    local = path.suffix in DATA_FILES or value.startswith((".", "/", "~")) or path.exists()
    return str(path.resolve()) if local else value
