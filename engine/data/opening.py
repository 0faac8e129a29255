"""Opening a source: a file, the files of a folder by split, or a hub data set through `datasets`."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from engine.data.graded_dialogues import NAME
from engine.data.sources import DataSource
from engine.data.table_files import Raw, Table, joined, read_file
from engine.errors import DataError
from specs.common.spelling import nearest
from specs.registry import DATA_SETS, PUBLIC_SETS
from specs.tables.data import Data
from specs.toml.paths import DATA_FILES, data_suffix, near_file, no_such


def open_source(
    source: DataSource, data: Data, wanted: Collection[str] | None
) -> Iterator[tuple[str | None, Table]]:
    """Yield (split or None, table) of files or of a hub data set; the split where it has its own.

    `wanted` are the columns that will be read (None: all). Raises DataError for what is not there or out of
    reach.
    """
    if source.path is not None and source.missing:
        raise DataError(f"data.source: {no_such(source.path)}")
    if source.path is not None and source.path.is_file():
        yield None, read_file(source.path, wanted)
        return
    names: dict[str | None, str] = {None: data.train_split}
    if data.test_split is not None:
        names["test"] = data.test_split
    for split, name in names.items():
        where = f'{source}, split "{name}"'
        if source.path is not None:
            files = _files(source.path, source.config, name)
            yield split, joined([read_file(file, wanted) for file in files], where)
        else:
            yield split, _hub(source, data, name, where)


def not_data(path: Path) -> str:
    """Say why a path that is there is no data: found, expected; "" for a data file and a folder with some."""
    expected = f"files that end with {', '.join(DATA_FILES)}, each also with .gz"
    if path.is_file():
        return "" if data_suffix(path) else f'found "{path}"; expected one of the {expected}'
    if not path.is_dir() or any(data_suffix(file) for file in path.rglob("*")):
        return ""
    return f'found the folder "{path}", which holds no data files; expected {expected}'


def _files(folder: Path, config: str | None, split: str) -> list[Path]:
    """Give the files of a folder's split: as its README says, else by the names of files and folders.

    Both as `datasets` does it, whatever the formats, in the order of their names.
    """
    from datasets.data_files import DataFilesDict, get_data_patterns, sanitize_patterns
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard, DatasetCardData

    readme = folder / "README.md"
    card = DatasetCard.load(readme).data if readme.is_file() else DatasetCardData()
    configs = MetadataConfigs.from_dataset_card_data(card)
    chosen = config or configs.get_default_config_name() or next(iter(configs), None)
    if config is not None and config not in configs:
        known = ", ".join(configs) or "none"
        raise DataError(f'data.config: found "{config}"; the configurations in {readme} are: {known}')
    try:
        patterns = configs[chosen].get("data_files") if chosen else None
        patterns = sanitize_patterns(patterns) if patterns else get_data_patterns(str(folder))
        by_split = DataFilesDict.from_patterns(patterns, base_path=str(folder))
    except FileNotFoundError as error:
        raise DataError(f"data.source: {not_data(folder) or error}") from error
    files_of = {
        str(name): [file for file in map(Path, files) if data_suffix(file)]
        for name, files in by_split.items()
    }
    if not any(files_of.values()):
        why = not_data(folder) or f'found no split of data files in "{folder}"'
        raise DataError(f"data.source: {why}")
    if not files_of.get(split):
        has = ", ".join(f'"{name}"' for name, files in files_of.items() if files)
        raise DataError(f'data.source: "{folder}" has no split "{split}"; its files make the splits {has}')
    return sorted(files_of[split])


def _hub(source: DataSource, data: Data, split: str, where: str) -> Table:
    """Open one split of a hub data set; DataError whether opening or reading it fails."""
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    import datasets

    if source.adapter and split not in source.adapter.splits:
        has = ", ".join(source.adapter.splits)
        raise DataError(f'data.source: "{source.public}" has the splits {has}; found "{split}"')
    try:
        stream: Any = datasets.load_dataset(
            str(source), source.config, split=split, revision=source.revision, streaming=data.streaming
        )
    except Exception as error:
        raise DataError(_failure(source, split, error)) from error

    def rows() -> Iterator[tuple[str, Raw]]:
        rest = iter(stream)
        number = 0
        while True:
            try:
                row = next(rest)
            except StopIteration:
                return
            except Exception as error:
                raise DataError(_failure(source, split, error)) from error
            number += 1
            yield f"{where}, row {number}", row

    return Table(where, stream.column_names, rows())


def _failure(source: DataSource, split: str, error: Exception) -> str:
    import datasets

    reason = f"{error.__cause__ or error}"
    expected = f'neither "{NAME}", nor a {", ".join(DATA_FILES)} file, nor a hub data set within reach'
    text = f'data.source: found "{source}" (split "{split}"), which is {expected}: {reason}'
    if datasets.config.HF_HUB_OFFLINE:
        text += (
            "; HF_HUB_OFFLINE or HF_DATASETS_OFFLINE is set, so a hub data set must be in the cache already, "
            "or be a local copy: data.source = its folder, data.adapter = its name"
        )
    near = nearest(str(source), (*DATA_SETS, *PUBLIC_SETS)) or near_file(Path(str(source)))
    return text if source.public or not near else f'{text}; did you mean "{near}"?'
